//! What is compared of an image, and why.

use super::BATCH_BLOCKS;
use lockstep_core::replica::disk_changes::{Blocks, may_differ};
use lockstep_shared_disk::image::Equal;
use serde_json::{Value, json};
use std::fmt;
use std::ops::Range;

/// Bytes of a reason that the other side gives, at most.
const WHY_BYTES_MAX: usize = 300;

/// The marks of a side, as the other one knows them.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    /// States since which only marked blocks may have been written.
    pub equal: Vec<Equal>,
    /// Those blocks.
    pub blocks: Blocks,
}

/// What is compared of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Place of the disk.
    pub disk: u8,
    /// Blocks that are compared.
    pub blocks: u64,
    /// Blocks that it has.
    pub of: u64,
    /// Generation of the bitmap, or the reason why there is none that can be used.
    pub bitmap: Result<u32, String>,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            blocks, of, bitmap, ..
        } = self;
        match bitmap {
            Ok(generation) => write!(
                f,
                "{blocks} of {of} blocks compared; bitmap of generation {generation}"
            ),
            Err(why) => write!(f, "all {of} blocks compared: {why}"),
        }
    }
}

impl Compared {
    /// Its fields in a report.
    #[must_use]
    pub fn fields(&self) -> Value {
        json!({
            "disk": self.disk,
            "blocks_compared": self.blocks,
            "blocks": self.of,
            "bitmap_generation": self.bitmap.as_ref().ok(),
            "why": self.bitmap.as_ref().err(),
        })
    }
}

/// Decides what is compared of a disk of `of` blocks.
pub(super) fn to_compare(
    disk: u8,
    of: u64,
    holder: Result<&Marks, String>,
    newcomer: Result<&Marks, String>,
) -> (Compared, Vec<Range<u64>>) {
    let decided = decide(holder, newcomer);
    let (blocks, bitmap) = match decided {
        Ok((blocks, generation)) => (blocks.ranges(), Ok(generation)),
        Err(why) => (std::iter::once(0..of).collect(), Err(why)),
    };
    let compared = Compared {
        disk,
        blocks: blocks.iter().map(|range| range.end - range.start).sum(),
        of,
        bitmap,
    };
    (compared, blocks)
}

fn decide(holder: Result<&Marks, String>, newcomer: Result<&Marks, String>) -> Result<(Blocks, u32), String> {
    let holder = holder.map_err(|why| format!("no bitmap of the holder's image: {why}"))?;
    let newcomer = newcomer.map_err(|why| format!("no bitmap of the newcomer's image: {why}"))?;
    let blocks = may_differ(
        (&holder.equal, &holder.blocks),
        (&newcomer.equal, &newcomer.blocks),
    );
    let mut states = holder.equal.iter().rev();
    let common = states.find(|state| newcomer.equal.contains(state));
    if let (Some(blocks), Some(common)) = (blocks, common) {
        return Ok((blocks, common.generation.0));
    }
    let generation = |marks: &Marks| marks.equal.last().map_or(0, |state| state.generation.0);
    let (one, other) = (generation(holder), generation(newcomer));
    Err(if one == other {
        "the bitmaps of the two images have no state in common".to_owned()
    } else {
        format!("the newcomer's bitmap is of generation {other}, and the holder's of generation {one}")
    })
}

/// A reason that the other side gives, in a line of this one's.
pub(super) fn bounded(why: &str) -> String {
    let mut text = String::new();
    for char in why.chars().take(WHY_BYTES_MAX) {
        match char.is_control() {
            true => text.extend(char.escape_default()),
            false => text.push(char),
        }
    }
    let end = text.floor_char_boundary(WHY_BYTES_MAX);
    text.truncate(end);
    text
}

/// Cuts ranges into batches of as many blocks as are compared at once.
pub(super) fn batches(ranges: &[Range<u64>]) -> Vec<Vec<Range<u64>>> {
    let mut batches: Vec<Vec<Range<u64>>> = Vec::new();
    let mut room = 0;
    for range in ranges {
        let mut start = range.start;
        while start < range.end {
            if room == 0 {
                batches.push(Vec::new());
                room = BATCH_BLOCKS;
            }
            let end = range.end.min(start + room);
            if let Some(batch) = batches.last_mut() {
                batch.push(start..end);
            }
            room -= end - start;
            start = end;
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::Generation;

    fn marks(generation: u32, states: &[u64], blocks: Range<u64>) -> Marks {
        let equal = states.iter().map(|number| Equal {
            join: [1; 16],
            number: *number,
            generation: Generation(generation),
        });
        Marks {
            equal: equal.collect(),
            blocks: Blocks::of(100, [blocks]),
        }
    }

    fn said(holder: Result<&Marks, String>, newcomer: Result<&Marks, String>) -> String {
        to_compare(0, 100, holder, newcomer).0.to_string()
    }

    #[test]
    fn marked_blocks_are_compared_where_there_is_a_common_state_and_else_all() {
        let (holder, newcomer) = (marks(3, &[0, 7], 1..3), marks(3, &[7], 2..5));
        assert_eq!(
            said(Ok(&holder), Ok(&newcomer)),
            "4 of 100 blocks compared; bitmap of generation 3"
        );
        let other = marks(3, &[8], 2..5);
        assert_eq!(
            said(Ok(&holder), Ok(&other)),
            "all 100 blocks compared: the bitmaps of the two images have no state in common"
        );
        let other = marks(2, &[7], 2..5);
        assert_eq!(
            said(Ok(&holder), Ok(&other)),
            "all 100 blocks compared: the newcomer's bitmap is of generation 2, and the holder's of generation 3"
        );
        assert_eq!(
            said(Ok(&holder), Err("there is none".to_owned())),
            "all 100 blocks compared: no bitmap of the newcomer's image: there is none"
        );
        assert_eq!(
            said(Err("there is none".to_owned()), Ok(&newcomer)),
            "all 100 blocks compared: no bitmap of the holder's image: there is none"
        );
    }

    #[test]
    fn batches_have_every_block_once_and_are_full() {
        let ranges = [0..1, 5..2 * BATCH_BLOCKS, 9000..9001];
        let batches = batches(&ranges);
        let blocks: Vec<u64> = batches.iter().flatten().cloned().flatten().collect();
        assert_eq!(blocks, ranges.iter().cloned().flatten().collect::<Vec<_>>());
        let lengths: Vec<usize> = batches
            .iter()
            .map(|batch| batch.iter().cloned().flatten().count())
            .collect();
        assert_eq!(lengths, [2048, 2045]);
    }
}
