//! Standing of a replica as its loop sees it: its connection to the peer, and its vCPU.
//!
//! ```text
//!   connected --(peer gone, or Disconnect of a live side)--> parted --(Solo)--> closing --> closed
//!   connected --(Disconnect of a side that replays, or acts alone)-----------> closing --> closed
//!   closed --(Joined)--> connected
//! ```

use crate::replica::role::{Action, Input, Report};

/// Standing of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// True while what the peer sends is read.
    pub connected: bool,
    /// The connection is to be closed once what is queued is written.
    pub closing: bool,
    /// The vCPU is live.
    pub live: bool,
    /// This side acts alone: no peer claims for having lost it.
    pub alone: bool,
    /// Frames are for this vCPU: it is live, or is about to be, and what comes until then waits for
    /// it.
    pub receives: bool,
}

impl Standing {
    /// The standing at the start. `live`: the vCPU runs live from the start.
    #[must_use]
    pub fn new(live: bool) -> Self {
        Self {
            connected: true,
            closing: false,
            live,
            alone: false,
            receives: live,
        }
    }

    /// The standing of a side that acts alone from the start.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            connected: false,
            alone: true,
            ..Self::new(true)
        }
    }

    /// The role machine is about to be told this.
    pub fn told<E, O>(&mut self, input: &Input<E, O>) {
        match input {
            Input::PeerClosed(_) => self.connected = false,
            Input::LiveAt { .. } => self.live = true,
            Input::Joined => self.connected = true,
            _ => {}
        }
    }

    /// This is about to be carried out.
    pub fn acts<E, O>(&mut self, action: &Action<E, O>) {
        match action {
            // A primary closes when it has won: heard earlier, its backup would claim beside it,
            // and moving costs clients more.
            Action::Disconnect => (self.connected, self.closing) = (false, !self.live || self.alone),
            Action::Report(Report::Solo { .. }) => (self.closing, self.alone) = (true, true),
            Action::Report(Report::Live { .. }) => self.alone = true,
            Action::Report(Report::Armed { .. }) => self.alone = false,
            Action::GoLive { .. } => self.receives = true,
            _ => {}
        }
    }

    /// The connection is closed, or cannot be, which is the same.
    pub fn closed(&mut self) {
        self.closing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::Sequence;

    fn disconnected(live: bool) -> Standing {
        let mut standing = Standing::new(live);
        standing.acts::<(), ()>(&Action::Disconnect);
        assert!(!standing.connected);
        standing
    }

    #[test]
    fn a_replaying_side_closes_at_once_and_a_live_one_when_it_has_won() {
        assert!(disconnected(false).closing);
        assert!(!disconnected(true).closing);
    }

    #[test]
    fn a_side_that_acts_alone_closes_to_a_newcomer_at_once_and_to_a_backup_when_it_has_won() {
        let mut standing = Standing::alone();
        assert!(!standing.connected);
        standing.told::<(), ()>(&Input::Joined);
        assert!(standing.connected);
        let mut armed = standing;
        standing.acts::<(), ()>(&Action::Disconnect);
        assert!(standing.closing && !standing.connected);

        let from = Sequence(1);
        armed.acts::<(), ()>(&Action::Report(Report::Armed { from, took_ns: 0 }));
        armed.acts::<(), ()>(&Action::Disconnect);
        assert!(!armed.closing);
    }

    #[test]
    fn a_side_that_goes_live_receives_before_it_is() {
        let mut standing = Standing::new(false);
        standing.acts::<(), ()>(&Action::GoLive {
            generation: lockstep_logging_channel::Generation(2),
            after: Sequence(1),
        });
        assert!(standing.receives && !standing.live);
        standing.told::<(), ()>(&Input::LiveAt {
            sequence: Sequence(1),
            exits: 1,
        });
        assert!(standing.live);
    }
}
