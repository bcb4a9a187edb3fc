//! The journal of a live vCPU: encodes entries, and hands them in batches to the role machine.
//!
//! A batch is handed over when an output waits for it, before the guest idles, when it is large, or
//! when it is old; [`Batcher`] cuts it by bytes within an execution point. The guest waits here
//! while the role machine throttles it: a full window slows the primary, and never loses an entry.

use super::{Carried, FromCpu, Payload, output};
use crate::machine::door::DoorError;
use crate::replica::mutant::{self, Mutant};
use crate::replica::role::Input;
use crate::replica::{Batcher, CaptureJournal, Journal};
use lockstep_logging_channel::{Body, Completion, DeviceId, Entry, Event, EventKind, OutputTarget, Sequence};

/// A batch that is older is handed over, whether an output waits for it or not.
pub const BATCH_AGE_NS_MAX: u64 = 5_000_000;

/// The host of a journal: the way to the role machine, and a clock.
pub trait JournalHost {
    /// Time since any fixed moment, in nanoseconds. It does not go back.
    fn now_ns(&mut self) -> u64;

    /// True once there is no peer: entries need no encoding.
    fn acts_alone(&self) -> bool;

    /// Gives the role machine a message, behind all before it. Waits where it is behind.
    ///
    /// # Errors
    /// The order that was given, where the role machine is gone.
    fn tell(&mut self, what: FromCpu) -> Result<(), DoorError>;

    /// Every entry at exits up to `exits` has been told.
    fn passed(&mut self, exits: u64);

    /// The log says, at `sequence`, that a disk has done request `number`.
    fn completed(&mut self, device: DeviceId, number: u64, sequence: Sequence);

    /// True where the guest has to wait.
    ///
    /// # Errors
    /// [`DoorError`].
    fn is_throttled(&mut self) -> Result<bool, DoorError>;

    /// Waits for [`JournalHost::is_throttled`] to change, for a bounded time.
    ///
    /// # Errors
    /// [`DoorError::Stopped`] or [`DoorError::Fenced`].
    fn wait(&mut self) -> Result<(), DoorError>;
}

/// The journal.
pub struct BatchingJournal<H> {
    host: H,
    batcher: Batcher<Payload>,
    /// When the oldest entry of the batch was appended.
    since_ns: u64,
}

impl<H: JournalHost> BatchingJournal<H> {
    /// A journal with nothing in it.
    pub fn new(host: H) -> Self {
        Self {
            host,
            batcher: Batcher::default(),
            since_ns: 0,
        }
    }

    fn flush(&mut self) -> Result<(), DoorError> {
        let batch = self.batcher.take();
        self.hand_over(batch)
    }

    fn hand_over(&mut self, appended: Option<Input<Vec<u8>, Payload>>) -> Result<(), DoorError> {
        let Some(Input::Appended { batch, outputs }) = appended else {
            return Ok(());
        };
        let batch = batch.map(Carried::Encoded);
        self.host.tell(Input::Appended { batch, outputs })
    }

    fn is_old(&mut self) -> bool {
        !self.batcher.is_empty() && self.host.now_ns().saturating_sub(self.since_ns) >= BATCH_AGE_NS_MAX
    }
}

impl<H: JournalHost> Journal for BatchingJournal<H> {
    fn append(&mut self, entry: &Entry) -> Result<(), DoorError> {
        if self.batcher.is_empty() {
            self.since_ns = self.host.now_ns();
        }
        let encodes = !self.host.acts_alone();
        let full = self.batcher.append(entry, encodes)?;
        self.hand_over(full)?;
        if let Body::Event(Event {
            device,
            kind: EventKind::Completion(Completion { number, .. }),
            ..
        }) = &entry.body
        {
            self.host.completed(*device, *number, entry.sequence);
        }
        Ok(())
    }

    fn output(&mut self, entry: &Entry, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.append(entry)?;
        self.batcher.output(output(entry.sequence, target, bytes));
        Ok(())
    }

    fn held(&mut self, sequence: Sequence, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.batcher.output(output(sequence, target, bytes));
        Ok(())
    }

    fn is_followed(&self) -> bool {
        !self.host.acts_alone()
    }

    fn passed(&mut self, exits: u64, idle: bool) -> Result<(), DoorError> {
        let idle = idle && !mutant::is(Mutant::KeepWhenIdle);
        if idle || self.batcher.is_due() || self.is_old() {
            self.flush()?;
        }
        if self.batcher.is_empty() {
            self.host.passed(exits);
        }
        while self.host.is_throttled()? && !mutant::is(Mutant::IgnoreThrottle) {
            self.host.wait()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        self.flush()
    }
}

impl<H: JournalHost> CaptureJournal for BatchingJournal<H> {
    fn saved_at(&mut self, sequence: Sequence, exits: u64) -> Result<(), DoorError> {
        self.flush()?;
        self.host.tell(Input::SavedAt { sequence, exits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::{ExecutionPoint, Generation, Value};

    /// A host that keeps what it is told, and stops being throttled when it is waited for.
    #[derive(Default)]
    struct Host {
        now_ns: u64,
        told: Vec<(u64, u64, usize)>,
        passed: Vec<u64>,
        throttled: u32,
    }

    impl JournalHost for &mut Host {
        fn now_ns(&mut self) -> u64 {
            self.now_ns
        }

        fn acts_alone(&self) -> bool {
            false
        }

        fn tell(&mut self, what: FromCpu) -> Result<(), DoorError> {
            self.told.push(match what {
                Input::Appended { batch, outputs } => (batch.first.0, batch.last.0, outputs.len()),
                Input::SavedAt { sequence, exits } => (sequence.0, exits, usize::MAX),
                other => panic!("{other:?}"),
            });
            Ok(())
        }

        fn passed(&mut self, exits: u64) {
            self.passed.push(exits);
        }

        fn completed(&mut self, _: DeviceId, _: u64, _: Sequence) {}

        fn is_throttled(&mut self) -> Result<bool, DoorError> {
            Ok(self.throttled > 0)
        }

        fn wait(&mut self) -> Result<(), DoorError> {
            self.throttled -= 1;
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
    fn entries_wait_for_an_output_or_an_idle_guest() {
        let mut host = Host::default();
        let mut journal = BatchingJournal::new(&mut host);
        journal.append(&entry(1)).unwrap();
        journal.passed(1, false).unwrap();
        journal.append(&entry(2)).unwrap();
        journal.passed(2, true).unwrap();
        journal
            .output(&entry(3), OutputTarget::console(DeviceId(3)), vec![1])
            .unwrap();
        journal.passed(3, false).unwrap();
        assert_eq!(host.told, [(1, 2, 0), (3, 3, 1)]);
        assert_eq!(
            host.passed,
            [2, 3],
            "exit 1 had an entry that was not handed over"
        );
    }

    #[test]
    fn a_captured_machine_is_told_of_behind_everything_before() {
        let mut host = Host::default();
        let mut journal = BatchingJournal::new(&mut host);
        journal.append(&entry(1)).unwrap();
        journal.saved_at(Sequence(1), 7).unwrap();
        journal.append(&entry(2)).unwrap();
        journal.finish().unwrap();
        assert_eq!(host.told, [(1, 1, 0), (1, 7, usize::MAX), (2, 2, 0)]);
    }

    #[test]
    fn an_old_batch_is_handed_over() {
        let mut host = Host::default();
        let mut journal = BatchingJournal::new(&mut host);
        journal.append(&entry(1)).unwrap();
        journal.host.now_ns = BATCH_AGE_NS_MAX - 1;
        journal.passed(1, false).unwrap();
        assert_eq!(journal.host.told, []);
        journal.host.now_ns = BATCH_AGE_NS_MAX;
        journal.passed(2, false).unwrap();
        assert_eq!(host.told, [(1, 1, 0)]);
    }

    #[test]
    fn a_throttled_guest_waits_after_its_entries_have_been_handed_over() {
        let mut host = Host {
            throttled: 3,
            ..Host::default()
        };
        let mut journal = BatchingJournal::new(&mut host);
        journal
            .output(&entry(1), OutputTarget::network(DeviceId(4)), vec![1])
            .unwrap();
        journal.passed(1, false).unwrap();
        assert_eq!((host.told.len(), host.throttled), (1, 0));
    }
}
