//! Memory that is written at a rate, for measuring what a machine with such a guest costs.
//!
//! `write_mib=N`: so much memory is filled with noise at the start; `write_pages=N`: so many pages
//! of it are written a second, in order, over and over, as often as there is time, which is about
//! once a millisecond. A line a second says what was done, and how long the guest did not get to
//! it.

use alloc::vec::Vec;
use lockstep_guest_runtime::println;

const NS_PER_SECOND: u64 = 1_000_000_000;
/// Between two turns.
const TURN_NS: u64 = 1_000_000;
const WORDS_PER_PAGE: usize = 4096 / 8;
/// The longest pause whose writing is made up for.
const BEHIND_NS_MAX: u64 = 100_000_000;

/// The memory, and its account since the last line.
pub struct Writer {
    memory: Vec<u64>,
    pages_a_second: u64,
    next: usize,
    /// Everything due before was written, or given up.
    written_until_ns: u64,
    written: u64,
    last_turn_ns: u64,
    longest_turn_ns: u64,
    line_ns: u64,
}

impl Writer {
    /// Fills `mebibytes` of memory.
    pub fn new(mebibytes: usize, pages_a_second: u64, now_ns: u64) -> Self {
        let words = mebibytes * (1 << 20) / 8;
        let mut memory = Vec::with_capacity(words);
        let mut state = 1_u64;
        memory.extend((0..words).map(|_| {
            // xorshift64: nothing that compresses.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }));
        Self {
            memory,
            pages_a_second,
            next: 0,
            written_until_ns: now_ns,
            written: 0,
            last_turn_ns: now_ns,
            longest_turn_ns: 0,
            line_ns: now_ns,
        }
    }

    /// Bytes that it has taken of the heap.
    pub fn bytes(&self) -> usize {
        self.memory.len() * 8
    }

    /// When it wants its next turn.
    pub fn turn_at_ns(&self) -> u64 {
        self.last_turn_ns + TURN_NS
    }

    /// Writes what is due.
    pub fn turn(&mut self, now_ns: u64) {
        self.longest_turn_ns = self.longest_turn_ns.max(now_ns.saturating_sub(self.last_turn_ns));
        self.last_turn_ns = now_ns;
        self.written_until_ns = self.written_until_ns.max(now_ns.saturating_sub(BEHIND_NS_MAX));
        let due = (now_ns - self.written_until_ns) * self.pages_a_second / NS_PER_SECOND;
        if due > 0 {
            self.written_until_ns += due * NS_PER_SECOND / self.pages_a_second;
        }
        for _ in 0..due {
            if self.next >= self.memory.len() {
                self.next = 0;
            }
            if let Some(word) = self.memory.get_mut(self.next) {
                *word = word.wrapping_add(1);
            }
            self.next += WORDS_PER_PAGE;
        }
        self.written += due;
        let since_ns = now_ns.saturating_sub(self.line_ns);
        if since_ns >= NS_PER_SECOND {
            println!(
                "writer: {} pages/s, longest turn {} us",
                self.written * NS_PER_SECOND / since_ns,
                self.longest_turn_ns / 1000
            );
            (self.written, self.longest_turn_ns, self.line_ns) = (0, 0, now_ns);
        }
    }
}
