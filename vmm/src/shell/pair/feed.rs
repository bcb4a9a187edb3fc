//! The replayer's feed on a backup: entries as they come over the channel, and what is told back of the replay.

use super::journal::tell;
use super::{FromCpu, Payload, output};
use crate::machine::door::DoorError;
use crate::replica::role::{Input, Output};
use crate::replica::{Fed, Feed};
use crate::shell::live::control::Ordered;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};
use lockstep_logging_channel::{Entry, OutputTarget, Sequence};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// What the replica loop gives the replaying vCPU.
#[derive(Clone, Debug)]
pub enum Item {
    /// Consecutive entries.
    Entries(Vec<Entry>),
    /// No entry lies at exits up to this one but those delivered.
    Advance(u64),
    /// There will be no more: go live.
    GoLive,
}

/// Entries replayed before the loop is told, when more are waiting.
const REPORT_ENTRIES: u32 = 256;

/// What the loop has given and the feed has not taken. Entries in it are bounded by the flow-control window: the role machine
/// disconnects from a peer that sends more. Between two lots of them there is one [`Item::Advance`] at most, whatever heartbeats say.
type Queue = Arc<Mutex<VecDeque<Item>>>;

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

fn locked(queue: &Queue) -> MutexGuard<'_, VecDeque<Item>> {
    // Neither end can leave it half changed.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Items {
    /// Gives an item. A farther [`Item::Advance`] takes the place of the one before it.
    pub fn give(&self, item: Item) {
        let mut queue = locked(&self.queue);
        match (queue.back_mut(), item) {
            (Some(Item::Advance(to)), Item::Advance(exits)) => *to = exits.max(*to),
            (_, item) => queue.push_back(item),
        }
        drop(queue);
        // Full means that a wake-up is already waiting.
        let _ = self.wake.try_send(());
    }
}

/// The vCPU thread's end.
pub struct ChannelFeed {
    items: ItemsOut,
    to_loop: mpsc::Sender<FromCpu>,
    ordered: Ordered,
    entries: VecDeque<Entry>,
    replayed: Option<(Sequence, u64)>,
    replayed_entries: u32,
    outputs: Vec<Output<Payload>>,
}

impl ChannelFeed {
    /// A feed from `items`, that reports into `to_loop`.
    #[must_use]
    pub fn new(items: ItemsOut, to_loop: mpsc::Sender<FromCpu>, ordered: Ordered) -> Self {
        Self {
            items,
            to_loop,
            ordered,
            entries: VecDeque::new(),
            replayed: None,
            replayed_entries: 0,
            outputs: Vec::new(),
        }
    }

    fn report(&mut self) -> Result<(), DoorError> {
        let Some((sequence, exits)) = self.replayed.take() else {
            return Ok(());
        };
        self.replayed_entries = 0;
        let outputs = std::mem::take(&mut self.outputs);
        tell(
            &self.to_loop,
            &self.ordered,
            Input::Replayed {
                sequence,
                exits,
                outputs,
            },
        )
    }

    fn item(&mut self) -> Result<Item, DoorError> {
        loop {
            self.ordered.obey()?;
            // Before the queue is looked at: what comes after it wakes again.
            let woken = self.items.woken.try_recv();
            if let Some(item) = locked(&self.items.queue).pop_front() {
                return Ok(item);
            }
            match woken {
                Ok(()) => continue,
                Err(TryRecvError::Disconnected) => return Err(DoorError::Stopped),
                Err(TryRecvError::Empty) => self.report()?,
            }
            select! {
                recv(self.items.woken) -> woken => if woken.is_err() && locked(&self.items.queue).is_empty() {
                    return Err(DoorError::Stopped);
                },
                recv(self.ordered.woken()) -> _ => {
                    self.ordered.obey()?;
                    return Err(DoorError::Stopped);
                }
            }
        }
    }
}

impl Feed for ChannelFeed {
    fn next(&mut self, _exits: u64) -> Result<Fed, DoorError> {
        loop {
            if let Some(entry) = self.entries.pop_front() {
                return Ok(Fed::Entry(Box::new(entry)));
            }
            match self.item()? {
                Item::Entries(entries) => self.entries.extend(entries),
                Item::Advance(exits) => return Ok(Fed::Passed(exits)),
                Item::GoLive => {
                    self.report()?;
                    return Ok(Fed::Exhausted);
                }
            }
        }
    }

    fn replayed(&mut self, sequence: Sequence, exits: u64) -> Result<(), DoorError> {
        self.replayed = Some((sequence, exits));
        self.replayed_entries += 1;
        // The output of the entry just met follows; it is reported with the next one.
        if self.replayed_entries >= REPORT_ENTRIES && self.outputs.is_empty() {
            self.report()?;
        }
        Ok(())
    }

    fn output(&mut self, sequence: Sequence, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.outputs.push(output(sequence, target, bytes));
        if self.replayed_entries >= REPORT_ENTRIES {
            self.report()
        } else {
            Ok(())
        }
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        self.ordered.obey()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::live::control::control;
    use crate::shell::pair::journal::to_loop;
    use lockstep_logging_channel::{Body, ExecutionPoint, Generation, Value};

    fn entry(sequence: u64) -> Entry {
        Entry {
            generation: Generation(1),
            sequence: Sequence(sequence),
            point: ExecutionPoint::default(),
            body: Body::Value(Value::Monotonic(sequence)),
        }
    }

    fn feed() -> (Items, ChannelFeed) {
        let (items, out) = items();
        let (_control, ordered) = control();
        let (to_loop, _) = to_loop();
        (items, ChannelFeed::new(out, to_loop, ordered))
    }

    #[test]
    fn a_flood_of_heartbeats_leaves_one_item_between_entries() {
        let (items, _feed) = feed();
        for exits in 0..100_000 {
            items.give(Item::Advance(exits));
        }
        items.give(Item::Entries(vec![entry(1)]));
        for exits in 100_000..200_000 {
            items.give(Item::Advance(exits));
        }
        assert_eq!(locked(&items.queue).len(), 3);
    }

    #[test]
    fn the_order_stays_and_the_farthest_advance_counts() {
        let (items, mut feed) = feed();
        items.give(Item::Advance(5));
        items.give(Item::Advance(9));
        items.give(Item::Entries(vec![entry(1), entry(2)]));
        items.give(Item::GoLive);
        assert!(matches!(feed.next(0), Ok(Fed::Passed(9))));
        for sequence in [1, 2] {
            let Ok(Fed::Entry(fed)) = feed.next(0) else {
                panic!("no entry")
            };
            assert_eq!(fed.sequence, Sequence(sequence));
        }
        assert!(matches!(feed.next(0), Ok(Fed::Exhausted)));
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
