//! Treatment of the pages that were written while others were sent: send them too, or copy them
//! inside this process, and when to stop the guest for the last of them.
//!
//! ```text
//!   rounds over the channel:  a quarter fewer pages left than before -> another round
//!        |                    few left, no fewer left, or hopeless in the middle of a round
//!        v
//!   rounds of copies:         a quarter fewer left than before -> another
//!        |                    few left, or no fewer
//!        v
//!   capture:                  all that is left was copied within the time of a pause -> over
//!                             else -> rounds of copies again, and after some of that capture after capture
//! ```
//!
//! The guest is paused while the last pages are copied inside this process, not while they cross
//! the channel: what it writes during a round at the channel's speed may be a hundred times as much
//! as during a copy. A guest that writes even faster than it is copied is paused again and again,
//! for the time of one pause each: between two of them it runs for less than it takes to write as
//! much as was copied.

/// Pages that are copied while the guest runs on, where rounds over the channel still do some good:
/// 32 MiB.
const FEW_PAGES_MAX: u64 = 8192;
/// So few pages are not worth a copy before the capture: 1 ms at 3 µs each, of the 20 ms that a
/// pause may take.
const CAPTURED_AT_ONCE_MAX: u64 = 256;
/// Pages for which there is room at a pause: 12 ms at 3 µs each, which is beyond the time of a
/// pause.
pub const PAUSE_PAGES_MAX: u64 = 4096;
/// Rounds over the channel, at most. Each leaves a quarter fewer: from 786,432 pages (3 GiB) to
/// 8,192 takes 16.
pub const ROUNDS_MAX: u32 = 24;
/// Rounds of copies before a capture, at most. From 786,432 pages to 256 takes 28 where each leaves
/// a quarter fewer.
const COPY_ROUNDS_MAX: u32 = 32;
/// Captures that found too much, before capture follows capture without a round between.
const DECLINED_MAX: u32 = 3;
/// Pauses of one transfer. A pause copies some 3,000 pages: 262 of them copy 786,432 pages, and
/// four times as many leave as much for what was written in between.
pub const PAUSES_MAX: u32 = 1024;
/// Pages that are sent at least before a round can be found useless: 128 MiB, a second at 1 Gbit/s.
const JUDGED_PAGES_MIN: u64 = 32_768;

/// The next step of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send what was written, and look again.
    Round,
    /// Copy what was written while the guest runs, and look again.
    Copy,
    /// Stop the guest and copy what is left.
    Capture,
    /// The guest writes faster than can be copied: give the transfer up.
    GiveUp,
}

/// Decides after each round.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    made: u32,
    /// Pages of the round before, over the channel or of copies.
    before: u64,
    /// From the first copy on nothing goes over the channel until the capture.
    copying: bool,
    copy_rounds: u32,
    declined: u32,
}

impl Rounds {
    /// After the first round, which had `pages` pages.
    #[must_use]
    pub fn begun(pages: u64) -> Self {
        Self {
            made: 1,
            before: pages,
            copying: false,
            copy_rounds: 0,
            declined: 0,
        }
    }

    /// Rounds over the channel so far.
    #[must_use]
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Pages of a round over the channel after which it is to be asked again whether it
    /// [is hopeless](Self::is_hopeless). A look at the log costs the guest a fault for each page
    /// that it writes again, so there are three of them at most. A guest that only fills some
    /// memory is not what they are for.
    #[must_use]
    pub fn judged_after(&self) -> u64 {
        JUDGED_PAGES_MIN.max(self.before / 4)
    }

    /// True if a round is to be ended early: the guest has written `written` pages while `sent`
    /// were sent, and about as many would be left after it as it began with.
    #[must_use]
    pub fn is_hopeless(sent: u64, written: u64) -> bool {
        written > sent - sent / 4
    }

    /// From here on pages are copied: the round over the channel was ended, or is not wanted.
    pub fn copy_from_now_on(&mut self, left: u64) {
        self.copying = true;
        self.before = left;
    }

    /// Decides what to do when `left` pages are left.
    pub fn next(&mut self, left: u64) -> Next {
        if self.declined >= PAUSES_MAX {
            return Next::GiveUp;
        }
        if left <= CAPTURED_AT_ONCE_MAX || self.declined >= DECLINED_MAX {
            return Next::Capture;
        }
        let fewer = left <= self.before - self.before / 4;
        if !self.copying {
            if left > FEW_PAGES_MAX && fewer && self.made < ROUNDS_MAX {
                self.made += 1;
                self.before = left;
                return Next::Round;
            }
            self.copy_from_now_on(left);
        } else if !fewer || self.copy_rounds >= COPY_ROUNDS_MAX {
            return Next::Capture;
        }
        self.copy_rounds += 1;
        self.before = left;
        Next::Copy
    }

    /// A pause was over before everything was copied: `left` pages are left, and the guest runs on.
    pub fn decline(&mut self, left: u64) {
        self.declined += 1;
        self.copy_rounds = 0;
        self.copy_from_now_on(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_pages_are_captured_and_some_are_copied_first() {
        assert_eq!(Rounds::begun(100_000).next(0), Next::Capture);
        assert_eq!(Rounds::begun(100_000).next(CAPTURED_AT_ONCE_MAX), Next::Capture);
        assert_eq!(Rounds::begun(100_000).next(CAPTURED_AT_ONCE_MAX + 1), Next::Copy);
        let mut rounds = Rounds::begun(100_000);
        assert_eq!(rounds.next(FEW_PAGES_MAX), Next::Copy);
        assert_eq!(rounds.made(), 1);
    }

    #[test]
    fn rounds_go_on_while_each_leaves_a_quarter_fewer() {
        let mut rounds = Rounds::begun(100_000);
        assert_eq!(rounds.next(75_000), Next::Round);
        assert_eq!(rounds.next(56_250), Next::Round);
        assert_eq!(rounds.next(42_189), Next::Copy, "one page too many");
        assert_eq!(rounds.made(), 3);
    }

    #[test]
    fn a_guest_that_writes_all_of_its_memory_again_is_copied() {
        assert_eq!(Rounds::begun(262_144).next(262_144), Next::Copy);
    }

    #[test]
    fn copies_go_on_while_each_round_leaves_a_quarter_fewer() {
        let mut rounds = Rounds::begun(262_144);
        assert_eq!(rounds.next(262_144), Next::Copy);
        assert_eq!(rounds.next(100_000), Next::Copy, "never over the channel again");
        assert_eq!(rounds.next(75_000), Next::Copy);
        assert_eq!(rounds.next(56_251), Next::Capture, "one page too many");
    }

    #[test]
    fn what_a_pause_did_not_find_time_for_is_copied_and_in_the_end_only_at_pauses() {
        let mut rounds = Rounds::begun(262_144);
        assert_eq!(rounds.next(8_000), Next::Copy);
        for _ in 0..DECLINED_MAX {
            assert_eq!(rounds.next(8_000), Next::Capture);
            rounds.decline(12_000);
            if rounds.declined < DECLINED_MAX {
                assert_eq!(rounds.next(8_000), Next::Copy);
            }
        }
        for _ in DECLINED_MAX..PAUSES_MAX {
            assert_eq!(rounds.next(200_000), Next::Capture);
            rounds.decline(200_000);
        }
        assert_eq!(rounds.next(1), Next::GiveUp);
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

    #[test]
    fn a_round_is_hopeless_when_the_guest_writes_as_fast_as_it_is_sent() {
        assert!(!Rounds::is_hopeless(65_536, 49_152));
        assert!(Rounds::is_hopeless(65_536, 49_153));
    }

    #[test]
    fn a_round_is_judged_three_times_and_a_short_one_never() {
        assert_eq!(Rounds::begun(262_144).judged_after(), 65_536);
        assert!(Rounds::begun(16_384).judged_after() > 16_384);
    }
}
