//! The replayer's feed on a backup: entries as they come over the channel, and what is told back of the replay.

use super::journal::tell;
use super::{FromCpu, Payload, output};
use crate::machine::door::DoorError;
use crate::replica::role::{Input, Output};
use crate::replica::{Fed, Feed};
use crate::shell::live::control::Ordered;
use crossbeam_channel::{Receiver, Sender, TryRecvError, select, unbounded};
use lockstep_logging_channel::{Entry, OutputTarget, Sequence};
use std::collections::VecDeque;
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

/// The vCPU thread's end.
pub struct ChannelFeed {
    items: Receiver<Item>,
    to_loop: mpsc::Sender<FromCpu>,
    ordered: Ordered,
    entries: VecDeque<Entry>,
    replayed: Option<(Sequence, u64)>,
    replayed_entries: u32,
    outputs: Vec<Output<Payload>>,
}

/// The channel from the loop to a feed. Not bounded by itself: the flow-control window bounds what is in it, and the role machine parts
/// from a peer that sends more.
#[must_use]
pub fn items() -> (Sender<Item>, Receiver<Item>) {
    unbounded()
}

impl ChannelFeed {
    /// A feed from `items`, that reports into `to_loop`.
    #[must_use]
    pub fn new(items: Receiver<Item>, to_loop: mpsc::Sender<FromCpu>, ordered: Ordered) -> Self {
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
        self.ordered.obey()?;
        match self.items.try_recv() {
            Ok(item) => return Ok(item),
            Err(TryRecvError::Disconnected) => return Err(DoorError::Stopped),
            Err(TryRecvError::Empty) => self.report()?,
        }
        select! {
            recv(self.items) -> item => item.map_err(|_| DoorError::Stopped),
            recv(self.ordered.woken()) -> _ => {
                self.ordered.obey()?;
                Err(DoorError::Stopped)
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
