//! The replaying vCPU thread's ways from and to the replica loop: what a feed needs of this host.

use super::FromCpu;
use super::journal::tell;
use super::stop_point::{Step, pass};
use crate::disk::Disks;
use crate::live::control::Ordered;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};
use lockstep_core::machine::disk::{Operation, Request};
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::cpu::{self, FeedHost, Item, QueuedFeed};
use lockstep_core::replica::replayer::OwnRead;
use lockstep_logging_channel::{Completion, DeviceId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

type Queue = Arc<Mutex<cpu::Items>>;

/// The loop's end: never waits for the vCPU thread.
#[derive(Debug)]
pub struct Items {
    queue: Queue,
    wake: Sender<()>,
}

/// The feed's end.
#[derive(Debug)]
pub struct ItemsOut {
    queue: Queue,
    woken: Receiver<()>,
}

/// The channel from the loop to a feed.
#[must_use]
pub fn items() -> (Items, ItemsOut) {
    // One waiting wake-up is as good as many.
    let (wake, woken) = bounded(1);
    let queue = Queue::default();
    let out = ItemsOut {
        queue: queue.clone(),
        woken,
    };
    (Items { queue, wake }, out)
}

fn locked(queue: &Queue) -> MutexGuard<'_, cpu::Items> {
    // Neither end can leave it half changed.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Items {
    /// Gives an item.
    pub fn give(&self, item: Item) {
        locked(&self.queue).give(item);
        // Full means that a wake-up is already waiting.
        let _ = self.wake.try_send(());
    }
}

/// The vCPU thread's end.
pub struct LoopItems {
    items: ItemsOut,
    to_loop: mpsc::Sender<FromCpu>,
    ordered: Ordered,
    disks: Disks,
}

/// A feed from the replica loop.
pub type ChannelFeed = QueuedFeed<LoopItems>;

impl LoopItems {
    /// A feed from `items`, that reports into `to_loop`, of a machine with `disks`.
    #[must_use]
    pub fn feed(
        items: ItemsOut,
        to_loop: mpsc::Sender<FromCpu>,
        ordered: Ordered,
        disks: Disks,
    ) -> ChannelFeed {
        QueuedFeed::new(Self {
            items,
            to_loop,
            ordered,
            disks,
        })
    }
}

impl FeedHost for LoopItems {
    fn take(&mut self) -> Result<Option<Item>, DoorError> {
        self.ordered.obey()?;
        // Before the queue is looked at: what comes after it wakes again.
        let woken = self.items.woken.try_recv();
        match (locked(&self.items.queue).take(), woken) {
            (None, Err(TryRecvError::Disconnected)) => Err(DoorError::Stopped),
            (item, _) => {
                if item.is_some() {
                    pass(Step::Replay);
                }
                Ok(item)
            }
        }
    }

    fn wait(&mut self) -> Result<(), DoorError> {
        select! {
            recv(self.items.woken) -> woken => if woken.is_err() && locked(&self.items.queue).is_empty() {
                return Err(DoorError::Stopped);
            },
            recv(self.ordered.woken()) -> _ => {
                self.ordered.obey()?;
                return Err(DoorError::Stopped);
            }
        }
        Ok(())
    }

    fn tell(&mut self, what: FromCpu) -> Result<(), DoorError> {
        tell(&self.to_loop, &self.ordered, what)
    }

    fn obey(&mut self) -> Result<(), DoorError> {
        self.ordered.obey()
    }

    fn disk_request(&mut self, device: DeviceId, request: Request) -> Result<(), DoorError> {
        self.disks.issue(device, request)
    }

    fn change_disks(&mut self, changes: Vec<(DeviceId, Operation)>) -> Result<(), DoorError> {
        let ordered = &self.ordered;
        self.disks.change(changes, ordered.woken(), || ordered.obey())
    }

    fn shares_disk(&self, device: DeviceId) -> bool {
        self.disks.shares(device)
    }

    fn disk_is_done(&mut self, device: DeviceId, number: u64) -> bool {
        self.disks.is_done(device, number)
    }

    fn disk_completed(
        &mut self,
        device: DeviceId,
        completion: &Completion,
    ) -> Result<Option<OwnRead>, DoorError> {
        let ordered = &self.ordered;
        self.disks
            .wait(device, completion.number, ordered.woken(), || ordered.obey())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::control::control;
    use crate::pair::journal::to_loop;
    use lockstep_core::replica::{Fed, Feed};

    fn feed() -> (Items, ChannelFeed) {
        let (items, out) = items();
        let (_control, ordered) = control();
        let (to_loop, _) = to_loop();
        (items, LoopItems::feed(out, to_loop, ordered, Disks::default()))
    }

    #[test]
    fn what_comes_while_the_feed_waits_wakes_it() {
        let (items, mut feed) = feed();
        let giver = std::thread::spawn(move || {
            items.give(Item::Advance(3));
            items
        });
        assert!(matches!(feed.next(0), Ok(Fed::Passed(3))));
        drop(giver.join().unwrap());
        assert!(matches!(feed.next(0), Err(DoorError::Stopped)));
    }
}
