//! Method by which the backup of a machine follows now, and the decision to fall back to
//! checkpoints.
//!
//! ```text
//!   replay ---- as many replays within an hour have differed as are borne, and the mode allows it ---> checkpoints
//! ```
//!
//! The holder decides. Each newcomer is told before it is sent the machine, so that whoever holds
//! the machine later knows. There is no way back: a machine that begins anew begins as its mode
//! says.

use crate::configuration::Mode;
use lockstep_core::replica::divergences::{Counted, DIVERGENCES_MAX};
use lockstep_logging_channel::message::FollowsBy;
use lockstep_shared_disk::Line;

/// Method by which the backup follows now.
#[derive(Clone, Debug)]
pub struct Follows {
    mode: Mode,
    by: FollowsBy,
    why: Option<String>,
    counted: Counted,
}

impl Follows {
    /// A machine whose backup follows so when this side begins or joins. `counted`: the divergences
    /// of its replays so far.
    #[must_use]
    pub fn begin(mode: Mode, by: FollowsBy, counted: Counted) -> Self {
        let why = match (mode, by) {
            (Mode::Replay, _) => None,
            (Mode::Checkpoint, _) => Some("it was started so".to_owned()),
            (Mode::ReplayThenCheckpoint, FollowsBy::Replay) => Some(format!(
                "by checkpoints once {DIVERGENCES_MAX} replays have differed from its log within an hour"
            )),
            (Mode::ReplayThenCheckpoint, FollowsBy::Checkpoints) => {
                Some("its replays have differed from its log again and again".to_owned())
            }
        };
        Self {
            mode,
            by,
            why,
            counted,
        }
    }

    /// The method.
    #[must_use]
    pub fn by(&self) -> FollowsBy {
        self.by
    }

    /// The reason for it, where it was chosen.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// A replay has differed from the log in `part`, at `now_ns` of the role machine's clock. True
    /// where the machine falls back with it.
    pub fn diverged(&mut self, now_ns: u64, part: &Line) -> bool {
        let given_up = self.counted.one_more(now_ns);
        if !given_up || !self.mode.falls_back() || self.by == FollowsBy::Checkpoints {
            return false;
        }
        self.by = FollowsBy::Checkpoints;
        self.why = Some(format!(
            "{DIVERGENCES_MAX} replays have differed from its log within an hour, the last in its {part}"
        ));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn diverging(mode: Mode) -> (Follows, Vec<bool>) {
        let mut follows = Follows::begin(mode, mode.first(), Counted::default());
        let part = Line::shortened("registers");
        let fell = (1..=7).map(|second| follows.diverged(second * SECOND_NS, &part));
        let fell = fell.collect();
        (follows, fell)
    }

    #[test]
    fn a_machine_falls_back_once_where_its_mode_allows_it() {
        let (follows, fell) = diverging(Mode::ReplayThenCheckpoint);
        assert_eq!(fell, [false, false, false, false, true, false, false]);
        assert_eq!(follows.by(), FollowsBy::Checkpoints);
        let why = follows.why().unwrap();
        assert!(
            why.contains("5 replays") && why.contains("the last in its registers"),
            "{why}"
        );
        for mode in [Mode::Replay, Mode::Checkpoint] {
            let (follows, fell) = diverging(mode);
            assert_eq!((follows.by(), fell), (mode.first(), vec![false; 7]));
        }
    }

    #[test]
    fn who_joins_a_machine_that_has_fallen_back_keeps_it_there() {
        let mode = Mode::ReplayThenCheckpoint;
        let follows = Follows::begin(mode, FollowsBy::Checkpoints, Counted::default());
        assert_eq!(follows.by(), FollowsBy::Checkpoints);
        assert!(follows.why().unwrap().contains("again and again"));
    }
}
