//! Orders to the thread of a disk.

use super::carrying::bell::{Bell, Cord};
use super::executor::Command;
use crossbeam_channel::{Receiver, SendError, Sender, unbounded};
use std::sync::Arc;

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
