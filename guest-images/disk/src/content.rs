//! What a request writes: every sector says which request wrote it, and where.

use crate::random::{mixed, step};
use lockstep_guest_runtime::requests::SECTOR_BYTES;

const WORD_BYTES: usize = 8;

/// Fills `sector` with what request `number` writes at sector `place`.
pub fn fill(seed: u64, number: u64, place: u64, sector: &mut [u8]) {
    for (word, bytes) in words(seed, number, place).zip(sector.chunks_exact_mut(WORD_BYTES)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

/// The request that wrote `sector` at `place`: none for zeros, and an error for anything else.
pub fn writer(seed: u64, place: u64, sector: &[u8]) -> Result<Option<u64>, ()> {
    if sector.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let first = sector.first_chunk().copied().map(u64::from_le_bytes);
    let number = first.and_then(|word| word.checked_sub(1)).ok_or(())?;
    let is_whole = words(seed, number, place)
        .zip(sector.chunks_exact(WORD_BYTES))
        .all(|(word, bytes)| bytes == word.to_le_bytes());
    is_whole.then_some(Some(number)).ok_or(())
}

/// The number, which is not 0, the place, and noise that follows from both.
fn words(seed: u64, number: u64, place: u64) -> impl Iterator<Item = u64> {
    let mut noise = mixed(mixed(seed, number), place);
    (0..SECTOR_BYTES / WORD_BYTES).map(move |index| match index {
        0 => number.wrapping_add(1),
        1 => place,
        _ => {
            noise = step(noise);
            noise
        }
    })
}
