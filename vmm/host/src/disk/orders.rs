//! Orders to the thread of a disk.

use super::carrying::bell::{Bell, Cord};
use super::changes::Reached;
use crossbeam_channel::{Receiver, SendError, Sender, unbounded};
use lockstep_core::machine::disk::Request;
use std::sync::Arc;
use std::time::Instant;

/// An order to the disk's thread.
pub(in crate::disk) enum Command {
    /// Carry this out, unless its number was given before. Of a shared disk changes and flushes
    /// wait to be released, and everything waits until the machine is live.
    Issue(Request),
    /// A request, and all before it, may leave.
    Release(u64),
    /// A request of a shared disk was done by who acts.
    Replayed(u64),
    /// The machine is live: from now on it is this side that touches its shared disk.
    GoLive,
    /// There is no peer any more.
    Alone,
    /// Both sides have a state of the image.
    BothHave(Reached),
    /// What was given is done, and was another machine's: requests are numbered anew.
    Renumber,
    /// Carry nothing more out. Says when nothing is under way.
    Freeze { quiet: Sender<()> },
    /// Go on.
    Thaw,
    /// Say when everything is carried out that was given.
    Settle { settled: Sender<()> },
    /// Finish what can be finished until then, make it durable, and end.
    Finish {
        until: Instant,
        finished: Sender<Finished>,
    },
}

/// The end of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Requests that were not carried out.
    pub left: usize,
    /// Reason why what was written may not be durable.
    pub not_flushed: Option<String>,
}

/// Disks at the end of their machine, the best state first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Everything is durable that the guest has asked for.
    Whole,
    /// Requests were not carried out, and the guest was not told that they were.
    Unfinished,
    /// Writes that the guest was told of may be lost.
    Unknown,
}

impl Finished {
    /// State of the disk.
    #[must_use]
    pub fn durability(&self) -> Durability {
        match self {
            Self {
                not_flushed: Some(_), ..
            } => Durability::Unknown,
            Self { left: 0, .. } => Durability::Whole,
            Self { .. } => Durability::Unfinished,
        }
    }
}

/// The end of who gives orders.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    /// Dropped before the cord, which tells the thread.
    commands: Sender<Command>,
    cord: Option<Cord>,
}

impl Orders {
    /// Both ends, where `bell` wakes the thread; without one the channel does. What waits in it is
    /// bounded by the requests that the device has outstanding.
    pub fn new(bell: Option<Arc<Bell>>) -> (Self, Receiver<Command>) {
        let (commands, taken) = unbounded();
        let cord = bell.map(Cord);
        (Self { commands, cord }, taken)
    }

    /// Gives `command`.
    ///
    /// # Errors
    /// The thread is over.
    pub fn send(&self, command: Command) -> Result<(), SendError<Command>> {
        self.commands.send(command)?;
        if let Some(Cord(bell)) = &self.cord {
            bell.ring();
        }
        Ok(())
    }
}
