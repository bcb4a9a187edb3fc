//! Parts of a common point, and what a reader makes of any that are not those of one maker.

use super::*;
use crate::machine::cpu::SavedCpu;
use crate::machine::cpu::saved::SavedComponent;
use crate::machine::door::Met;
use crate::machine::saved::pages::PAGE_BYTES;
use crate::machine::saved::{Page, SavedError, SavedMachine, SavedPosition};
use crate::replica::common::{Parts, Staged};
use crate::replica::transfer::RAW_BYTES_MAX;
use lockstep_logging_channel::{CommonPoint, Part};
use proptest::prelude::*;
use proptest::sample::Index;

const MEMORY_PAGES: u64 = 16;
const MEMORY_BYTES: u64 = MEMORY_PAGES * PAGE_BYTES as u64;
const GENERATION: Generation = Generation(1);

/// A machine at that exit; `components` of its vCPU make it longer than a part.
pub fn machine(exits: u64, components: u8) -> SavedMachine {
    let component = |number| SavedComponent {
        number,
        bytes: (0..8192_u32).map(|at| (at * 31) as u8 ^ number).collect(),
    };
    SavedMachine {
        memory_bytes: MEMORY_BYTES,
        position: SavedPosition {
            exits,
            ..SavedPosition::default()
        },
        cpu: SavedCpu {
            components: (2..2 + components).map(component).collect(),
            ..SavedCpu::default()
        },
        ..SavedMachine::default()
    }
}

pub fn page(index: u64, byte: u8) -> Page {
    Page {
        index,
        bytes: [byte; PAGE_BYTES],
    }
}

/// Pages of each part, and then the machine: their numbers from 5 on.
fn made(pages: &[Vec<Page>], components: u8) -> (Vec<(Sequence, Part)>, CommonPoint) {
    let mut parts = Parts::default();
    let mut entries = Vec::new();
    for pages in pages {
        let sequence = Sequence(5 + entries.len() as u64);
        entries.push((sequence, parts.pages(sequence, pages.clone())));
    }
    let sequence = Sequence(5 + entries.len() as u64);
    let (last, common) = parts.last(sequence, machine(9, components));
    entries.extend((sequence.0..).map(Sequence).zip(last));
    (entries, common)
}

fn met(entries: &[(Sequence, Part)], common: &CommonPoint) -> Result<Met, SavedError> {
    let mut staged = Staged::of_memory(MEMORY_BYTES);
    for (sequence, part) in entries {
        staged.take(GENERATION, *sequence, part)?;
    }
    staged.finish(point(9, 0), common)
}

/// Three parts of pages, one page in two of them, and a machine of two parts.
fn sample() -> (Vec<(Sequence, Part)>, CommonPoint) {
    let pages = [
        vec![page(1, 1), page(7, 2)],
        vec![page(2, 3)],
        vec![page(1, 4), page(15, 5)],
    ];
    made(&pages, 20)
}

/// Content of [`sample`].
fn sampled() -> Met {
    Met {
        pages: vec![page(1, 4), page(2, 3), page(7, 2), page(15, 5)],
        machine: Box::new(machine(9, 20)),
    }
}

#[test]
fn each_page_is_as_it_came_last_and_the_machine_is_whole() {
    let (entries, common) = sample();
    assert_eq!(entries.len(), 5, "the machine takes two parts");
    assert_eq!((common.first, common.pages), (Sequence(5), 5));
    assert_eq!(met(&entries, &common).unwrap(), sampled());
}

#[test]
fn the_next_common_point_begins_with_nothing() {
    let (mut parts, mut staged) = (Parts::default(), Staged::of_memory(MEMORY_BYTES));
    for round in 0..2 {
        let first = Sequence(10 * round);
        let part = parts.pages(first, vec![page(round, 1)]);
        staged.take(GENERATION, first, &part).unwrap();
        let (last, common) = parts.last(Sequence(first.0 + 1), machine(round, 0));
        staged.take(GENERATION, Sequence(first.0 + 1), &last[0]).unwrap();
        assert_eq!(common.first, first);
        assert_eq!(
            staged.finish(point(round, 0), &common).unwrap().pages,
            [page(round, 1)]
        );
    }
}

#[test]
fn a_captured_reader_and_one_from_the_beginning_meet_the_same() {
    let mut parts = Parts::default();
    let before = parts.pages(Sequence(1), vec![page(1, 1), page(2, 2)]);
    parts.captured();
    let behind = parts.pages(Sequence(2), vec![page(2, 3)]);
    let (last, common) = parts.last(Sequence(3), machine(9, 0));
    let entries = [
        (Sequence(1), before),
        (Sequence(2), behind),
        (Sequence(3), last[0].clone()),
    ];
    assert_eq!(common.first, Sequence(2));

    let continuous = met(&entries, &common).unwrap();
    let captured = met(&entries[1..], &common).unwrap();

    assert_eq!(continuous.machine, captured.machine);
    // The captured one has page 1 from its capture: nobody has written it since.
    assert_eq!(continuous.pages, [page(1, 1), page(2, 3)]);
    assert_eq!(captured.pages, [page(2, 3)]);
}

#[test]
fn parts_of_an_earlier_generation_are_forgotten() {
    let (entries, common) = sample();
    let mut staged = Staged::of_memory(MEMORY_BYTES);
    let mut abandoned = Parts::default();
    let part = abandoned.pages(Sequence(1), vec![page(3, 9)]);
    staged.take(Generation(0), Sequence(1), &part).unwrap();
    let (last, _) = abandoned.last(Sequence(2), machine(4, 0));
    staged.take(Generation(0), Sequence(2), &last[0]).unwrap();

    for (sequence, part) in &entries {
        staged.take(GENERATION, *sequence, part).unwrap();
    }

    assert_eq!(staged.finish(point(9, 0), &common).unwrap(), sampled());
}

#[test]
fn a_machine_at_another_point_than_the_entry_is_refused() {
    let (entries, common) = sample();
    for at in [point(8, 0), point(10, 0), point(9, 1)] {
        let mut staged = Staged::of_memory(MEMORY_BYTES);
        for (sequence, part) in &entries {
            staged.take(GENERATION, *sequence, part).unwrap();
        }
        let refused = staged.finish(at, &common).unwrap_err();
        assert!(matches!(refused, SavedError::Position { .. }), "{refused}");
    }
}

#[test]
fn a_page_beyond_memory_is_refused() {
    let (entries, _) = made(&[vec![page(MEMORY_PAGES, 1)]], 0);
    let mut staged = Staged::of_memory(MEMORY_BYTES);
    let refused = staged.take(GENERATION, Sequence(5), &entries[0].1).unwrap_err();
    assert!(matches!(refused, SavedError::Page { index: MEMORY_PAGES }));
}

#[test]
fn more_pages_than_a_maker_sends_are_refused() {
    let mut staged = Staged::of_memory(MEMORY_BYTES);
    let mut parts = Parts::default();
    let mut take = || {
        let part = parts.pages(
            Sequence(1),
            (0..MEMORY_PAGES).map(|index| page(index, 1)).collect(),
        );
        staged.take(GENERATION, Sequence(1), &part)
    };
    (0..4).for_each(|_| take().unwrap());
    assert!(matches!(take().unwrap_err(), SavedError::Length { .. }));
}

#[test]
fn a_part_of_a_length_that_no_maker_gives_is_malformed() {
    let (entries, _) = sample();
    for raw_bytes in [0, RAW_BYTES_MAX as u32 + 1, u32::MAX] {
        let part = Part {
            raw_bytes,
            ..entries[0].1.clone()
        };
        let refused = Staged::default().take(GENERATION, Sequence(1), &part);
        assert!(matches!(refused.unwrap_err(), SavedError::Malformed { .. }));
    }
}

#[test]
fn nothing_comes_behind_the_machine() {
    let (entries, _) = made(&[vec![page(1, 1)]], 0);
    for more in &entries {
        let mut staged = Staged::of_memory(MEMORY_BYTES);
        staged.take(GENERATION, Sequence(6), &entries[1].1).unwrap();
        let refused = staged.take(GENERATION, Sequence(7), &more.1);
        assert!(matches!(refused.unwrap_err(), SavedError::Order { .. }));
    }
}

/// A change of what a maker has made.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// A bit of a part's bytes.
    Bit,
    /// A part is shorter.
    Cut,
    Repeated,
    Lost,
    /// It changes places with the next.
    Swapped,
    RawBytes,
    Pages,
    Sections,
    First,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => Just(Change::Bit),
        2 => Just(Change::Cut),
        1 => Just(Change::Repeated),
        1 => Just(Change::Lost),
        1 => Just(Change::Swapped),
        1 => Just(Change::RawBytes),
        1 => Just(Change::Pages),
        1 => Just(Change::Sections),
        1 => Just(Change::First),
    ]
}

proptest! {
    /// A block of LZ4 can be written in several ways: a changed one may still say the same.
    #[test]
    fn what_was_changed_is_refused_or_says_the_same(change in change(), at in any::<Index>(), place in any::<Index>()) {
        let (mut entries, mut common) = sample();
        let at = at.index(entries.len());
        let bits = entries[at].1.block.len() * 8;
        let place = place.index(bits);
        match change {
            Change::Bit => entries[at].1.block[place / 8] ^= 1 << (place % 8),
            Change::Cut => entries[at].1.block.truncate(place / 8),
            Change::Repeated => entries.insert(at, entries[at].clone()),
            Change::Lost => drop(entries.remove(at)),
            Change::Swapped => {
                let other = (at + 1) % entries.len();
                let part = entries[at].1.clone();
                entries[at].1 = std::mem::replace(&mut entries[other].1, part);
            }
            Change::RawBytes => entries[at].1.raw_bytes ^= 1 << (place % 32),
            Change::Pages => common.pages ^= 1 << (place % 64),
            Change::Sections => common.sections.0[place % 16] ^= 1,
            Change::First => common.first.0 ^= 1 << (place % 64),
        }
        match met(&entries, &common) {
            Ok(same) => {
                prop_assert!(matches!(change, Change::Bit | Change::First), "{change:?} of {at} is not noticed");
                prop_assert_eq!(same, sampled());
            }
            Err(why) => prop_assert!(!why.to_string().is_empty()),
        }
    }
}
