//! Pages of bits as they are in the file: each sector has a checksum of its own, because a disk
//! writes a sector whole or not at all, and a page perhaps in part.

/// Bytes of a sector: the unit that every disk writes as a whole.
const SECTOR_BYTES: usize = 512;
/// Bytes of the checksum at the end of a sector.
const SUM_BYTES: usize = 4;
/// Bytes of bits in a sector.
pub(super) const BITS_BYTES: usize = SECTOR_BYTES - SUM_BYTES;
/// Sectors of a page.
pub(super) const SECTORS: usize = 8;
/// Bytes of a page in the file.
pub(super) const SEALED_BYTES: usize = SECTOR_BYTES * SECTORS;

/// What makes the sums of one file others than those of the next: its header's checksum.
pub(super) type Key = [u8; 16];

/// Page `page` of bits, as it is in the file.
pub(super) fn seal(key: &Key, page: usize, bits: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SEALED_BYTES);
    for (sector, bits) in bits.chunks(BITS_BYTES).enumerate() {
        sealed.extend(bits);
        sealed.extend(sum(key, page * SECTORS + sector, bits));
    }
    sealed
}

/// The bits of all pages, as they are in the file; `None` where a sector is damaged.
pub(super) fn unseal(key: &Key, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::with_capacity(sealed.len());
    for (sector, content) in sealed.chunks(SECTOR_BYTES).enumerate() {
        let (bits, found) = content.split_at_checked(BITS_BYTES)?;
        if found != sum(key, sector, bits) {
            return None;
        }
        all.extend(bits);
    }
    Some(all)
}

fn sum(key: &Key, sector: usize, bits: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = [0; SUM_BYTES];
    blake3::Hasher::new()
        .update(key)
        .update(&(sector as u64).to_le_bytes())
        .update(bits)
        .finalize_xof()
        .fill(&mut sum);
    sum
}
