//! Treatment of the pages that were written while others were sent: send them too, copy them and
//! stop the guest, or fork.
//!
//! ```text
//!   left:   few -> capture     up to COPIED_PAGES_MAX -> copy while it runs, then capture
//!           more, and a quarter fewer than before -> another round      else -> fork
//! ```
//!
//! The guest stands while the last pages are copied inside this process, not while they cross the
//! channel: what it writes during a round at the channel's speed may be a hundred times as much as
//! during a copy.

/// Pages that are copied while the guest stands, at most: 4,096 at 2 µs each are 8 ms, of the 20 ms
/// that a pause may take.
pub const PAUSE_PAGES_MAX: u64 = 4096;
/// Pages that are copied while the guest runs on, before it is stopped: 32 MiB. Copying takes 16 ms
/// at 2 µs each; a guest that writes 100,000 pages a second leaves 1,600 for the pause.
pub const COPIED_PAGES_MAX: u64 = 8192;
/// So few pages are not worth a copy first.
const CAPTURED_AT_ONCE_MAX: u64 = 256;
/// Pauses that found more than [`PAUSE_PAGES_MAX`] and were given up, before the machine is forked.
pub const DECLINED_MAX: u32 = 3;
/// Rounds, at most. Each leaves a quarter fewer: from 786,432 pages (3 GiB) to 8,192 takes 16.
pub const ROUNDS_MAX: u32 = 24;

/// The next step of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send what was written, and look again.
    Round,
    /// Copy what was written, then capture.
    Copy,
    /// Stop the guest and copy what is left.
    Capture,
    /// Stop the guest and fork: what is left comes from the child.
    Fork,
}

/// Decides after each round.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    made: u32,
    declined: u32,
    /// Pages of the round before.
    before: u64,
}

impl Rounds {
    /// After the first round, which had `pages` pages.
    #[must_use]
    pub fn begun(pages: u64) -> Self {
        Self {
            made: 1,
            declined: 0,
            before: pages,
        }
    }

    /// Rounds so far.
    #[must_use]
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Decides what to do when `left` pages were written meanwhile.
    pub fn next(&mut self, left: u64) -> Next {
        let next = if self.declined >= DECLINED_MAX {
            Next::Fork
        } else if left <= CAPTURED_AT_ONCE_MAX {
            Next::Capture
        } else if left <= COPIED_PAGES_MAX {
            Next::Copy
        } else if self.made < ROUNDS_MAX && left <= self.before - self.before / 4 {
            Next::Round
        } else {
            Next::Fork
        };
        if next == Next::Round {
            self.made += 1;
            self.before = left;
        }
        next
    }

    /// A pause found more than [`PAUSE_PAGES_MAX`] pages, and the guest runs on.
    pub fn decline(&mut self) {
        self.declined += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_pages_are_captured_and_some_are_copied_first() {
        let mut rounds = Rounds::begun(100_000);
        assert_eq!(rounds.next(0), Next::Capture);
        assert_eq!(rounds.next(CAPTURED_AT_ONCE_MAX), Next::Capture);
        assert_eq!(rounds.next(CAPTURED_AT_ONCE_MAX + 1), Next::Copy);
        assert_eq!(rounds.next(COPIED_PAGES_MAX), Next::Copy);
        assert_eq!(rounds.made(), 1);
    }

    #[test]
    fn rounds_go_on_while_each_leaves_a_quarter_fewer() {
        let mut rounds = Rounds::begun(100_000);
        assert_eq!(rounds.next(75_000), Next::Round);
        assert_eq!(rounds.next(56_250), Next::Round);
        assert_eq!(rounds.next(42_189), Next::Fork, "one page too many");
        assert_eq!(rounds.made(), 3);
    }

    #[test]
    fn a_guest_that_writes_all_of_its_memory_again_is_forked() {
        assert_eq!(Rounds::begun(262_144).next(262_144), Next::Fork);
    }

    #[test]
    fn a_guest_that_writes_too_much_before_each_pause_is_forked() {
        let mut rounds = Rounds::begun(262_144);
        for _ in 0..DECLINED_MAX {
            assert_eq!(rounds.next(COPIED_PAGES_MAX), Next::Copy);
            rounds.decline();
        }
        assert_eq!(rounds.next(1), Next::Fork);
    }

    #[test]
    fn the_largest_machine_gets_there_in_fewer_rounds_than_there_are() {
        let mut rounds = Rounds::begun(786_432);
        let mut left = 786_432;
        loop {
            left -= left / 4;
            match rounds.next(left) {
                Next::Round => {}
                other => break assert_eq!(other, Next::Copy),
            }
        }
        assert!(rounds.made() < ROUNDS_MAX);
    }
}
