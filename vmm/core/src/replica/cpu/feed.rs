//! The feed of a replaying vCPU: entries as they come over the channel, and what is reported of the
//! replay.

use super::{FromCpu, Payload, output};
use crate::machine::disk::{Operation, Request};
use crate::machine::door::{DoorError, NotFollowed};
use crate::replica::mutant::{self, Mutant};
use crate::replica::replayer::OwnRead;
use crate::replica::role::{Input, Output};
use crate::replica::{Fed, Feed};
use lockstep_logging_channel::{Completion, DeviceId, Entry, OutputTarget, Sequence};
use std::collections::VecDeque;

/// An item that the replica loop gives the replaying vCPU.
#[derive(Clone, Debug)]
pub enum Item {
    /// Consecutive entries.
    Entries(Vec<Entry>),
    /// No entry occurs at exits up to this one but those delivered.
    Advance(u64),
    /// There will be no more entries: go live.
    GoLive,
}

/// Entries replayed before the loop is told, when more are waiting.
const REPORT_ENTRIES: u32 = 256;

/// Items that the loop has given and the feed has not taken. Entries in them are bounded by the
/// flow-control window: the role machine disconnects from a peer that sends more. Between two lots
/// of them there is one [`Item::Advance`] at most, whatever heartbeats say.
#[derive(Debug, Default)]
pub struct Items(VecDeque<Item>);

impl Items {
    /// Gives an item. A farther [`Item::Advance`] takes the place of the one before it.
    pub fn give(&mut self, item: Item) {
        match (self.0.back_mut(), item) {
            (Some(Item::Advance(to)), Item::Advance(exits)) => *to = exits.max(*to),
            (Some(Item::Entries(_)), item @ Item::Advance(_)) if mutant::is(Mutant::AdvanceOvertakes) => {
                self.0.insert(self.0.len() - 1, item);
            }
            (_, item) => self.0.push_back(item),
        }
    }

    /// Takes the oldest item.
    pub fn take(&mut self) -> Option<Item> {
        self.0.pop_front()
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Entries that wait.
    #[must_use]
    pub fn entries(&self) -> usize {
        let entries = |item: &Item| match item {
            Item::Entries(entries) => entries.len(),
            _ => 0,
        };
        self.0.iter().map(entries).sum()
    }
}

/// The host of a feed: the ways from and to the role machine.
pub trait FeedHost {
    /// The next item, if one is there.
    ///
    /// # Errors
    /// [`DoorError::Stopped`] or [`DoorError::Fenced`]; also where no item can come any more.
    fn take(&mut self) -> Result<Option<Item>, DoorError>;

    /// Waits until there may be an item.
    ///
    /// # Errors
    /// As [`FeedHost::take`].
    fn wait(&mut self) -> Result<(), DoorError>;

    /// Gives the role machine a message, behind all before it. Waits where it is behind.
    ///
    /// # Errors
    /// The order that was given, where the role machine is gone.
    fn tell(&mut self, what: FromCpu) -> Result<(), DoorError>;

    /// Refuses where the replay is to stop.
    ///
    /// # Errors
    /// [`DoorError::Stopped`] or [`DoorError::Fenced`].
    fn obey(&mut self) -> Result<(), DoorError>;

    /// As [`Feed::disk_request`].
    ///
    /// # Errors
    /// [`DoorError`].
    fn disk_request(&mut self, device: DeviceId, _request: Request) -> Result<(), DoorError> {
        Err(DoorError::no_disk(device))
    }

    /// False where [`FeedHost::disk_completed`] would wait.
    fn disk_is_done(&mut self, _device: DeviceId, _number: u64) -> bool {
        true
    }

    /// As [`Feed::disk_completed`].
    ///
    /// # Errors
    /// [`DoorError`].
    fn disk_completed(
        &mut self,
        device: DeviceId,
        _completion: &Completion,
    ) -> Result<Option<OwnRead>, DoorError> {
        Err(DoorError::no_disk(device))
    }

    /// As [`Feed::change_disks`].
    ///
    /// # Errors
    /// [`DoorError`].
    fn change_disks(&mut self, _changes: Vec<(DeviceId, Operation)>) -> Result<(), DoorError> {
        Err(NotFollowed.into())
    }

    /// As [`Feed::shares_disk`].
    fn shares_disk(&self, _device: DeviceId) -> bool {
        false
    }
}

/// The feed.
pub struct QueuedFeed<H> {
    host: H,
    entries: VecDeque<Entry>,
    replayed: Option<(Sequence, u64)>,
    replayed_entries: u32,
    outputs: Vec<Output<Payload>>,
}

impl<H: FeedHost> QueuedFeed<H> {
    /// A feed that has taken nothing yet.
    pub fn new(host: H) -> Self {
        Self {
            host,
            entries: VecDeque::new(),
            replayed: None,
            replayed_entries: 0,
            outputs: Vec::new(),
        }
    }

    /// Reports what was replayed and is not reported yet.
    fn report(&mut self) -> Result<(), DoorError> {
        let Some((sequence, exits)) = self.replayed.take() else {
            return Ok(());
        };
        self.replayed_entries = 0;
        let outputs = std::mem::take(&mut self.outputs);
        self.host.tell(Input::Replayed {
            sequence,
            exits,
            outputs,
        })
    }

    fn item(&mut self) -> Result<Item, DoorError> {
        loop {
            if let Some(item) = self.host.take()? {
                return Ok(item);
            }
            self.report()?;
            self.host.wait()?;
        }
    }
}

impl<H: FeedHost> Feed for QueuedFeed<H> {
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

    fn disk_request(&mut self, device: DeviceId, request: Request) -> Result<(), DoorError> {
        self.host.disk_request(device, request)
    }

    fn disk_completed(
        &mut self,
        device: DeviceId,
        completion: &Completion,
    ) -> Result<Option<OwnRead>, DoorError> {
        if !self.host.disk_is_done(device, completion.number) {
            self.report()?;
        }
        self.host.disk_completed(device, completion)
    }

    fn change_disks(&mut self, changes: Vec<(DeviceId, Operation)>) -> Result<(), DoorError> {
        self.report()?;
        self.host.change_disks(changes)
    }

    fn shares_disk(&self, device: DeviceId) -> bool {
        self.host.shares_disk(device)
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        if mutant::is(Mutant::KeepTheEnd) {
            return Ok(());
        }
        self.report()
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        self.host.obey()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::{Body, DeviceId, ExecutionPoint, Generation, Value};

    const NETWORK: OutputTarget = OutputTarget::network(DeviceId(4));

    /// A host without a thread: nothing comes while it waits.
    #[derive(Default)]
    struct Host {
        items: Items,
        reported: Vec<(u64, usize)>,
    }

    impl FeedHost for &mut Host {
        fn take(&mut self) -> Result<Option<Item>, DoorError> {
            Ok(self.items.take())
        }

        fn wait(&mut self) -> Result<(), DoorError> {
            Err(DoorError::Stopped)
        }

        fn tell(&mut self, what: FromCpu) -> Result<(), DoorError> {
            let Input::Replayed {
                sequence, outputs, ..
            } = what
            else {
                panic!("{what:?}")
            };
            self.reported.push((sequence.0, outputs.len()));
            Ok(())
        }

        fn obey(&mut self) -> Result<(), DoorError> {
            Ok(())
        }
    }

    fn entry(sequence: u64) -> Entry {
        Entry {
            generation: Generation(1),
            sequence: Sequence(sequence),
            point: ExecutionPoint::default(),
            body: Body::Value(Value::Monotonic(sequence)),
        }
    }

    #[test]
    fn a_flood_of_heartbeats_leaves_one_item_between_entries() {
        let mut items = Items::default();
        for exits in 0..100_000 {
            items.give(Item::Advance(exits));
        }
        items.give(Item::Entries(vec![entry(1)]));
        for exits in 100_000..200_000 {
            items.give(Item::Advance(exits));
        }
        assert_eq!(items.0.len(), 3);
    }

    #[test]
    fn the_order_stays_and_the_farthest_advance_counts() {
        let mut host = Host::default();
        host.items.give(Item::Advance(5));
        host.items.give(Item::Advance(9));
        host.items.give(Item::Entries(vec![entry(1), entry(2)]));
        host.items.give(Item::GoLive);
        let mut feed = QueuedFeed::new(&mut host);
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
    fn what_was_replayed_is_reported_before_the_feed_waits() {
        let mut host = Host::default();
        host.items.give(Item::Entries(vec![entry(1)]));
        let mut feed = QueuedFeed::new(&mut host);
        feed.next(0).unwrap();
        feed.replayed(Sequence(1), 0).unwrap();
        feed.output(Sequence(1), NETWORK, vec![1]).unwrap();
        assert_eq!(feed.host.reported, []);
        assert!(feed.next(0).is_err());
        assert_eq!(host.reported, [(1, 1)]);
    }

    #[test]
    fn outputs_right_before_the_end_are_reported() {
        let mut host = Host::default();
        let mut feed = QueuedFeed::new(&mut host);
        feed.replayed(Sequence(1), 0).unwrap();
        feed.output(Sequence(1), NETWORK, vec![1]).unwrap();
        feed.replayed(Sequence(2), 0).unwrap();
        feed.finish().unwrap();
        assert_eq!(host.reported, [(2, 1)]);
    }

    #[test]
    fn a_long_replay_is_reported_on_its_way_with_the_outputs_of_what_is_reported() {
        let mut host = Host::default();
        let mut feed = QueuedFeed::new(&mut host);
        for sequence in 1..=u64::from(REPORT_ENTRIES) {
            feed.replayed(Sequence(sequence), 0).unwrap();
            feed.output(Sequence(sequence), NETWORK, vec![1]).unwrap();
        }
        assert_eq!(host.reported, [(256, 256)]);
    }
}
