//! The sector at the beginning of the disk, which says what was done to the rest.

use lockstep_guest_runtime::digest::Digest;
use lockstep_guest_runtime::requests::SECTOR_BYTES;

/// "LOCKLOAD", little-endian.
const MAGIC: u64 = 0x4441_4f4c_4b43_4f4c;
const WORDS: usize = 7;

/// History of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Seed of the requests.
    pub seed: u64,
    /// Sectors of the area that they are for.
    pub sectors: u64,
    /// Kinds of requests, as the plan has them.
    pub kinds: u64,
    /// Requests, from the first one on, whose effects were flushed.
    pub flushed: u64,
    /// Guests that began on this disk.
    pub boots: u64,
}

impl Header {
    /// Writes it into the beginning of `sector`.
    pub fn write(&self, sector: &mut [u8]) {
        let fields = [
            MAGIC,
            self.seed,
            self.sectors,
            self.kinds,
            self.flushed,
            self.boots,
        ];
        let words = fields.into_iter().chain([check(&fields)]);
        for (word, bytes) in words.zip(sector.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads it from `sector`: none where that is all zeros, and an error for anything else.
    ///
    /// # Errors
    /// It is something else.
    #[allow(clippy::result_unit_err, reason = "there is nothing more to say of it")]
    pub fn read(sector: &[u8]) -> Result<Option<Self>, ()> {
        if sector.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let mut words = [0; WORDS];
        let (chunks, _) = sector.get(..SECTOR_BYTES).ok_or(())?.as_chunks();
        for (word, bytes) in words.iter_mut().zip(chunks) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [magic, seed, sectors, kinds, flushed, boots, found] = words;
        let is_ours = magic == MAGIC && found == check(&[magic, seed, sectors, kinds, flushed, boots]);
        is_ours
            .then_some(Some(Self {
                seed,
                sectors,
                kinds,
                flushed,
                boots,
            }))
            .ok_or(())
    }
}

fn check(fields: &[u64; WORDS - 1]) -> u64 {
    let mut digest = Digest::default();
    fields.iter().for_each(|field| digest.number(*field));
    digest.value()
}
