//! The state of the computation, its steps in assembly, and its check.
//!
//! A pass visits every page once. A visit steps one word of the page, seven vector registers, one
//! general register and the x87 stack, each by its own affine map. The word of a page moves on with
//! the passes, so that whole pages change.
#![allow(unsafe_code)]

use crate::affine::Affine;
use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::AtomicU64;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
const WORDS: usize = PAGE_BYTES / 8;
/// Vector registers that hold state; as many hold what is added to them.
const VECTORS: usize = 7;
const LANES: usize = 2;
/// Distance of the shift by which a lane is multiplied by 2^13 + 1.
const SHIFT: u32 = 13;
/// Knuth's MMIX generator.
const FACTOR: u64 = 6_364_136_223_846_793_005;
const SUMMAND: u64 = 1_442_695_040_888_963_407;
/// An odd number (2^64 divided by the golden ratio), from which first values and summands are
/// derived.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// SSE control while it computes: every exception masked, rounding toward zero. Not what a
/// processor begins with.
const SSE_CONTROL: u32 = 0x7f80;
/// x87 control while it computes: 64-bit mantissa, every exception masked, rounding toward zero.
const X87_CONTROL: u32 = 0x0f7f;

/// Not 0 once the computation is to be left at the end of its pass. Interrupt handlers set it.
pub static ATTENTION: AtomicU64 = AtomicU64::new(0);
/// Stack pointer for as long as the computation runs.
pub static STACK: AtomicU64 = AtomicU64::new(0);

global_asm!(
    include_str!("compute.s"),
    attention = sym ATTENTION,
    stack = sym STACK,
    lanes = const offset_of!(Registers, lanes),
    summands = const offset_of!(Registers, summands),
    counter = const offset_of!(Registers, counter),
    visits = const offset_of!(Registers, visits),
    passes = const offset_of!(Registers, passes),
    passes_max = const offset_of!(Registers, passes_max),
    pages = const offset_of!(Registers, pages),
    pages_end = const offset_of!(Registers, pages_end),
    sse_control = const offset_of!(Registers, sse_control),
    x87_control = const offset_of!(Registers, x87_control),
    factor = const FACTOR,
    summand = const SUMMAND,
    golden = const GOLDEN,
    shift = const SHIFT,
    page_bytes = const PAGE_BYTES,
    word_mask = const WORDS - 1,
);

unsafe extern "C" {
    fn steady_compute(registers: *mut Registers);
}

/// Content of the registers while it computes.
#[derive(Debug)]
#[repr(C, align(16))]
struct Registers {
    lanes: [[u64; LANES]; VECTORS],
    summands: [[u64; LANES]; VECTORS],
    counter: u64,
    visits: u64,
    passes: u64,
    passes_max: u64,
    pages: *mut Page,
    pages_end: *mut Page,
    sse_control: u32,
    x87_control: u32,
}

#[derive(Clone, Debug)]
#[repr(C, align(4096))]
struct Page([u64; WORDS]);

/// The computation.
#[derive(Debug)]
pub struct Work {
    registers: Registers,
    pages: Vec<Page>,
}

/// A value that is not what so many passes make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The register, or `page`.
    pub place: &'static str,
    /// Which of them.
    pub number: usize,
    /// Lane of a vector register, word of a page.
    pub part: usize,
    /// The value it has.
    pub found: u64,
    /// The value it should have.
    pub expected: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            number,
            part,
            found,
            expected,
        } = self;
        write!(
            formatter,
            "{place} {number}, part {part}: {found:#018x} instead of {expected:#018x}"
        )
    }
}

const WORD_MAP: Affine = Affine {
    factor: FACTOR,
    summand: SUMMAND,
};

fn first(number: usize) -> u64 {
    GOLDEN.wrapping_mul(number as u64 + 1)
}

fn summand(vector: usize, lane: usize) -> u64 {
    first(1000 + vector * LANES + lane) | 1
}

impl Work {
    /// A computation over so many pages, at least one, before its first pass.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        let mut memory = vec![Page([0; WORDS]); pages.max(1)];
        for (number, page) in memory.iter_mut().enumerate() {
            for (index, word) in page.0.iter_mut().enumerate() {
                *word = first(number * WORDS + index);
            }
        }
        let lanes = core::array::from_fn(|vector| core::array::from_fn(|lane| first(vector * LANES + lane)));
        let summands = core::array::from_fn(|vector| core::array::from_fn(|lane| summand(vector, lane)));
        Self {
            registers: Registers {
                lanes,
                summands,
                counter: 0,
                visits: 0,
                passes: 0,
                passes_max: 0,
                pages: core::ptr::null_mut(),
                pages_end: core::ptr::null_mut(),
                sse_control: SSE_CONTROL,
                x87_control: X87_CONTROL,
            },
            pages: memory,
        }
    }

    /// Computes on until [`ATTENTION`] is set or `passes_max` have been made, and for one pass at
    /// least. No exit is made.
    pub fn compute(&mut self, passes_max: u64) {
        let range = self.pages.as_mut_ptr_range();
        self.registers.passes_max = passes_max;
        self.registers.pages = range.start;
        self.registers.pages_end = range.end;
        // SAFETY: the routine changes these registers' values and words of these pages, and nothing
        // else.
        unsafe { steady_compute(&raw mut self.registers) };
    }

    /// Passes so far.
    #[must_use]
    pub const fn passes(&self) -> u64 {
        self.registers.passes
    }

    /// Pages that each pass changes.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.pages.len()
    }

    /// A sum over all values, for a reader to compare.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        let words = self.pages.iter().flat_map(|page| page.0);
        let lanes = self.registers.lanes.into_iter().flatten();
        words
            .chain(lanes)
            .fold(self.registers.counter, |sum, value| sum.rotate_left(1) ^ value)
    }

    /// The first value that is not what the passes made so far make of the first values.
    #[must_use]
    pub fn difference(&self) -> Option<Difference> {
        let Self { registers, pages } = self;
        let visits = registers.passes.wrapping_mul(pages.len() as u64);
        let single = [
            ("x87 stack", registers.visits, visits),
            ("general register", registers.counter, GOLDEN.wrapping_mul(visits)),
            (
                "SSE control",
                u64::from(registers.sse_control),
                u64::from(SSE_CONTROL),
            ),
            (
                "x87 control",
                u64::from(registers.x87_control),
                u64::from(X87_CONTROL),
            ),
        ];
        let single = single
            .into_iter()
            .map(|(place, found, expected)| (place, 0, 0, found, expected));
        let different = single
            .chain(self.vectors(visits))
            .chain(self.words())
            .find(|(.., found, expected)| found != expected);
        different.map(|(place, number, part, found, expected)| Difference {
            place,
            number,
            part,
            found,
            expected,
        })
    }

    /// Each lane as it is, and as it should be.
    fn vectors(&self, visits: u64) -> impl Iterator<Item = (&'static str, usize, usize, u64, u64)> {
        let Registers { lanes, summands, .. } = &self.registers;
        let states = lanes
            .iter()
            .flatten()
            .copied()
            .enumerate()
            .map(move |(lane, found)| {
                let (vector, part) = (lane / LANES, lane % LANES);
                let map = Affine {
                    factor: (1 << SHIFT) + 1,
                    summand: summand(vector, part),
                };
                let expected = map.repeated(visits).apply(first(lane));
                ("vector register", vector, part, found, expected)
            });
        let summands = summands
            .iter()
            .flatten()
            .copied()
            .enumerate()
            .map(|(lane, found)| {
                let (vector, part) = (lane / LANES, lane % LANES);
                (
                    "vector register",
                    VECTORS + vector,
                    part,
                    found,
                    summand(vector, part),
                )
            });
        states.chain(summands)
    }

    /// Each word as it is, and as it should be. Pass p stepped word p modulo the words of a page.
    fn words(&self) -> impl Iterator<Item = (&'static str, usize, usize, u64, u64)> {
        let (rounds, rest) = (
            self.passes() / WORDS as u64,
            (self.passes() % WORDS as u64) as usize,
        );
        let [fewer, more] = [rounds, rounds + 1].map(|steps| WORD_MAP.repeated(steps));
        self.pages.iter().enumerate().flat_map(move |(number, page)| {
            page.0.iter().copied().enumerate().map(move |(index, found)| {
                let map = if index < rest { more } else { fewer };
                (
                    "page",
                    number,
                    index,
                    found,
                    map.apply(first(number * WORDS + index)),
                )
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A computation of its own for each test: none of them sets [`ATTENTION`].
    fn computed(pages: usize, passes: u64) -> Work {
        let mut work = Work::new(pages);
        work.compute(passes);
        work
    }

    #[test]
    fn the_steps_in_assembly_are_what_the_maps_say() {
        for (pages, passes) in [(1, 1), (1, 511), (2, 512), (3, 513), (16, 5000)] {
            let work = computed(pages, passes);

            assert_eq!(work.passes(), passes);
            assert_eq!(work.difference(), None, "{pages} pages, {passes} passes");
        }
    }

    #[test]
    fn it_goes_on_where_it_was_left() {
        let mut work = Work::new(5);

        (1..=40).for_each(|leg| work.compute(leg * 37));

        assert_eq!(work.passes(), 40 * 37);
        assert_eq!(work.difference(), None);
        assert_eq!(work.checksum(), computed(5, 40 * 37).checksum());
    }

    #[test]
    fn every_value_that_is_wrong_is_found() {
        type Harm = fn(&mut Work);
        let harms: [(&str, Harm); 8] = [
            ("vector register", |work| work.registers.lanes[6][1] ^= 1 << 63),
            ("vector register", |work| work.registers.summands[3][0] ^= 2),
            ("general register", |work| work.registers.counter += 1),
            ("x87 stack", |work| work.registers.visits -= 1),
            ("SSE control", |work| work.registers.sse_control = 0x1f80),
            ("x87 control", |work| work.registers.x87_control = 0x037f),
            ("page", |work| work.pages[2].0[511] ^= 1),
            // A step of one word is lost, and one is made twice.
            ("page", |work| {
                work.pages[0].0[7] = WORD_MAP.apply(work.pages[0].0[7])
            }),
        ];
        for (place, harm) in harms {
            let mut work = computed(3, 700);
            harm(&mut work);

            assert_eq!(work.difference().map(|difference| difference.place), Some(place));
        }
    }

    #[test]
    fn a_pass_too_many_in_the_count_is_found() {
        let mut work = computed(3, 700);

        work.registers.passes += 1;

        assert!(work.difference().is_some());
    }
}
