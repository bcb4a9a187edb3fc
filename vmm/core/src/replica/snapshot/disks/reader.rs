//! Reading the disks of a snapshot.

use super::{DISKS_HEADER_BYTES, DiskBlock, DisksHeader, HEAD_BYTES, RawHead, SnapshotError};
use crate::replica::snapshot::reader::{BODY, HEADER, fill, is_over};
use lockstep_logging_channel::Digest;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

/// Place of a block's bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Byte of the file at which they begin.
    pub offset: u64,
    /// Number of them; none where all of the block are zeros.
    pub length: u32,
    digest: Digest,
}

/// Reads the header of a file.
///
/// # Errors
/// [`SnapshotError`].
pub fn read_disks_header(source: &mut impl Read) -> Result<DisksHeader, SnapshotError> {
    let mut bytes = [0; DISKS_HEADER_BYTES];
    fill(source, &mut bytes, HEADER)?;
    DisksHeader::decode(&bytes)
}

/// Finds the last record of each block behind `header`, which was read. The machine's disks have
/// `sizes_bytes`.
///
/// # Errors
/// [`SnapshotError`]: whatever is not exactly the heads that were written.
pub fn scan(
    source: &mut (impl Read + Seek),
    header: &DisksHeader,
    sizes_bytes: &[u64],
) -> Result<BTreeMap<DiskBlock, Found>, SnapshotError> {
    let end = (DISKS_HEADER_BYTES as u64).checked_add(header.body_bytes);
    let end = end.ok_or(SnapshotError::Damaged { part: HEADER })?;
    let mut found = BTreeMap::new();
    let mut heads = blake3::Hasher::new();
    let mut at = DISKS_HEADER_BYTES as u64;
    let mut records = 0;
    while at < end {
        let mut bytes = [0; HEAD_BYTES];
        fill(source, &mut bytes, BODY)?;
        heads.update(&bytes);
        let raw: RawHead = zerocopy::transmute!(bytes);
        let length = raw.length.get();
        let block = DiskBlock {
            disk: raw.disk,
            block: raw.block.get(),
        };
        let size = sizes_bytes.get(usize::from(block.disk));
        let whole = size.and_then(|size| block.length_on(*size));
        let whole = whole.ok_or(SnapshotError::NoSuchBlock {
            disk: block.disk,
            block: block.block,
        })?;
        if length != 0 && u64::from(length) != whole {
            return Err(SnapshotError::Damaged { part: BODY });
        }
        let offset = at + HEAD_BYTES as u64;
        found.insert(
            block,
            Found {
                offset,
                length,
                digest: Digest(raw.digest),
            },
        );
        source.seek_relative(length.into()).map_err(SnapshotError::Read)?;
        at = offset + u64::from(length);
        records += 1;
    }
    let is_whole = at == end && records == header.records;
    if !is_whole || Digest::from_hash(&heads.finalize()) != header.heads {
        return Err(SnapshotError::Damaged { part: BODY });
    }
    check_end(source, end)?;
    Ok(found)
}

/// Refuses what was cut within its last record, whose bytes were not read, or goes on.
fn check_end(source: &mut (impl Read + Seek), end: u64) -> Result<(), SnapshotError> {
    let before = end.saturating_sub(1);
    source
        .seek(SeekFrom::Start(before))
        .map_err(SnapshotError::Read)?;
    fill(source, &mut [0], BODY)?;
    if is_over(source)? {
        Ok(())
    } else {
        Err(SnapshotError::BehindEnd)
    }
}

/// Reads the bytes of a block into `buffer`; none where all of the block are zeros.
///
/// # Errors
/// [`SnapshotError`]: they are not those that were written.
pub fn read_bytes(
    source: &mut (impl Read + Seek),
    found: &Found,
    buffer: &mut Vec<u8>,
) -> Result<(), SnapshotError> {
    buffer.clear();
    if found.length > 0 {
        buffer.resize(found.length as usize, 0);
        source
            .seek(SeekFrom::Start(found.offset))
            .map_err(SnapshotError::Read)?;
        fill(source, buffer, BODY)?;
    }
    if Digest::of(buffer) == found.digest {
        Ok(())
    } else {
        Err(SnapshotError::Damaged { part: BODY })
    }
}
