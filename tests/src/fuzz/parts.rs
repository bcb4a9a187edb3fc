//! Parts of a common point, as a backup takes them from a primary that sends anything. There is a
//! common point only where all of its parts came and nothing else, and then it is the one that was
//! made; all else is one error with a text, and never a panic.
//!
//! Each step is a byte: 0 the next part as it should be, 1 the next with one byte of its content
//! changed (place, mask), 2 a part of these bytes (how many), 3 the same as they are, without
//! compression, with this length before it (length, how many), 4 a section of this kind and these
//! bytes with a fitting digest, 5 the entry that ends them, 6 the same with one byte changed (place,
//! mask), 7 all that follows is of the next generation, and begins anew.

use super::input::Input;
use super::transfer::machine;
use lockstep_core::machine::door::Met;
use lockstep_core::machine::memory::MEMORY_BYTES_MIN;
use lockstep_core::machine::saved::pages::{PAGE_BYTES, PAGES_PER_PART};
use lockstep_core::machine::saved::{Page, SavedError};
use lockstep_core::replica::common::{Parts, Staged};
use lockstep_logging_channel::{CommonPoint, Digest, ExecutionPoint, Generation, Part, Sequence};

/// Number of the first part.
const FIRST: Sequence = Sequence(7);
/// Pages of the common point: as many as two parts hold and one more.
const PAGES: u64 = 2 * PAGES_PER_PART as u64 + 1;

thread_local! {
    static MADE: Made = Made::new();
}

/// A common point, and what it says.
struct Made {
    parts: Vec<Part>,
    common: CommonPoint,
    met: Met,
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    MADE.with(|made| meet(&mut Input::new(bytes), made));
}

fn meet(input: &mut Input<'_>, made: &Made) {
    let mut staged = Staged::of_memory(MEMORY_BYTES_MIN);
    let mut generation = Generation(1);
    let mut number = 0;
    while !input.is_empty() {
        let step = input.byte() % 8;
        let taken = match step {
            5 | 6 => staged
                .finish(made.point(), &made.common(input, step == 6))
                .map(Some),
            7 => {
                generation.0 = generation.0.saturating_add(1);
                number = 0;
                continue;
            }
            _ => {
                let part = made.part(input, step, number);
                let sequence = Sequence(FIRST.0 + number as u64);
                number += 1;
                staged.take(generation, sequence, &part).map(|()| None)
            }
        };
        match taken {
            Ok(None) => {}
            Ok(Some(met)) => {
                assert_eq!(met, made.met);
                assert!(staged.finish(made.point(), &made.common).is_err());
                return;
            }
            Err(why) => return refused(&why),
        }
    }
}

fn refused(why: &SavedError) {
    assert!(!why.to_string().is_empty());
}

impl Made {
    fn new() -> Self {
        let mut maker = Parts::default();
        let mut parts = Vec::new();
        let all: Vec<Page> = (0..PAGES).map(page).collect();
        for pages in all.chunks(PAGES_PER_PART) {
            let sequence = Sequence(FIRST.0 + parts.len() as u64);
            parts.push(maker.pages(sequence, pages.to_vec()));
        }
        let sequence = Sequence(FIRST.0 + parts.len() as u64);
        let (last, common) = maker.last(sequence, machine());
        parts.extend(last);
        let met = Met {
            pages: all,
            machine: Box::new(machine()),
        };
        Self { parts, common, met }
    }

    fn point(&self) -> ExecutionPoint {
        ExecutionPoint {
            exits: self.met.machine.position.exits,
            ..ExecutionPoint::default()
        }
    }

    fn part(&self, input: &mut Input<'_>, step: u8, number: usize) -> Part {
        let next = self.parts.get(number).unwrap_or(&self.parts[0]);
        match step {
            0 => next.clone(),
            1 => {
                let mut raw = lz4_flex::block::decompress(&next.block, next.raw_bytes as usize)
                    .expect("a part is compressed");
                let place = usize::from(input.word()) % raw.len();
                raw[place] ^= input.byte();
                part(&raw)
            }
            2 => {
                let count = input.word();
                part(input.take(count.into()))
            }
            3 => {
                let (raw_bytes, count) = (input.long(), input.word());
                let block = input.take(count.into()).to_vec();
                Part { raw_bytes, block }
            }
            _ => {
                let (kind, count) = (input.byte(), input.word());
                let body = input.take(count.into());
                let mut covered = vec![kind, 0, 0, 0];
                covered.extend((body.len() as u32).to_le_bytes());
                let digest = Digest::of(&[covered.as_slice(), body].concat());
                part(&[covered.as_slice(), &digest.0, body].concat())
            }
        }
    }

    fn common(&self, input: &mut Input<'_>, changed: bool) -> CommonPoint {
        let mut common = self.common.clone();
        if changed {
            let (place, mask) = (usize::from(input.byte()) % 32, input.byte());
            match place {
                0..8 => common.first.0 ^= u64::from(mask) << (8 * place),
                8..16 => common.pages ^= u64::from(mask) << (8 * (place - 8)),
                _ => common.sections.0[place - 16] ^= mask,
            }
        }
        common
    }
}

fn page(index: u64) -> Page {
    Page {
        index,
        bytes: [index as u8; PAGE_BYTES],
    }
}

fn part(raw: &[u8]) -> Part {
    Part {
        raw_bytes: raw.len() as u32,
        block: lz4_flex::block::compress(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_of_it_is_met() {
        let count = MADE.with(|made| made.parts.len());
        assert_eq!(count, 4, "the seed `whole` has a step for each part");
        let steps = [vec![0; count], vec![5]].concat();
        run(&steps);
        MADE.with(|made| {
            let mut staged = Staged::of_memory(MEMORY_BYTES_MIN);
            for (number, part) in (FIRST.0..).zip(&made.parts) {
                staged.take(Generation(1), Sequence(number), part).unwrap();
            }
            assert_eq!(staged.finish(made.point(), &made.common).unwrap(), made.met);
        });
    }
}
