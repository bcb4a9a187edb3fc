//! Journal and feed of a virtual CPU, under the eyes of the judges.

use lockstep_core::machine::disk::{Operation, Request};
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::recorder::{CaptureJournal, Journal};
use lockstep_core::replica::replayer::{Fed, Feed, OwnRead};
use lockstep_logging_channel::{Completion, DeviceId, Entry, OutputTarget, Sequence};

use super::cpu::Shared;
use super::marks::Mark;

/// A journal or feed, and a judge's eye on what passes through it.
pub struct Watched<T> {
    inner: T,
    end: Shared,
}

impl<T> Watched<T> {
    /// The same, seen by the judges of this virtual CPU.
    pub fn new(inner: T, cpu: &Shared) -> Self {
        let end = cpu.clone();
        Self { inner, end }
    }

    fn note_output(&self, sequence: Sequence, bytes: &[u8]) {
        let cpu = &mut *self.end.borrow_mut();
        cpu.judge_held(bytes);
        cpu.history.push((sequence, bytes.to_vec()));
    }

    /// Marks of the mode: common points are made and met in both.
    fn mark(&self, in_epochs: Mark, otherwise: Mark) -> Mark {
        let has_epochs = self.end.borrow().epoch_ns.is_some();
        if has_epochs { in_epochs } else { otherwise }
    }
}

impl<T: Journal> Watched<T> {
    /// Appends, and notes a cut: anything that is handed over meanwhile was cut from the entry.
    fn cut_by(&mut self, append: impl FnOnce(&mut T) -> Result<(), DoorError>) -> Result<(), DoorError> {
        let before = self.end.borrow().told.len();
        append(&mut self.inner)?;
        let mut cpu = self.end.borrow_mut();
        if cpu.told.len() > before {
            cpu.marks.reach(Mark::BatchCut);
        }
        Ok(())
    }
}

impl<T: Journal> Journal for Watched<T> {
    fn append(&mut self, entry: &Entry) -> Result<(), DoorError> {
        {
            let mark = self.mark(Mark::EpochEnded, Mark::CommonPointMade);
            let mut cpu = self.end.borrow_mut();
            cpu.appended = entry.sequence;
            cpu.see(entry, mark);
        }
        self.cut_by(|journal| journal.append(entry))
    }

    fn output(&mut self, entry: &Entry, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        if !self.end.borrow().held.is_empty() {
            self.end.borrow_mut().marks.reach(Mark::HeldLetGo);
        }
        self.note_output(entry.sequence, &bytes);
        self.end.borrow_mut().appended = entry.sequence;
        self.cut_by(|journal| journal.output(entry, target, bytes))
    }

    fn held(&mut self, sequence: Sequence, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.note_output(sequence, &bytes);
        self.inner.held(sequence, target, bytes)
    }

    fn is_followed(&self) -> bool {
        self.inner.is_followed()
    }

    fn passed(&mut self, exits: u64, idle: bool) -> Result<(), DoorError> {
        self.inner.passed(exits, idle)
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        self.inner.finish()
    }
}

impl<T: CaptureJournal> CaptureJournal for Watched<T> {
    fn saved_at(&mut self, sequence: Sequence, exits: u64) -> Result<(), DoorError> {
        {
            let cpu = &mut *self.end.borrow_mut();
            if std::mem::take(&mut cpu.has_parts) {
                cpu.marks.reach(Mark::CapturedAmongParts);
            }
        }
        self.inner.saved_at(sequence, exits)
    }
}

impl<T: Feed> Feed for Watched<T> {
    fn next(&mut self, exits: u64) -> Result<Fed, DoorError> {
        let fed = self.inner.next(exits)?;
        if let Fed::Entry(entry) = &fed {
            let mark = self.mark(Mark::WasPut, Mark::CommonPointMet);
            self.end.borrow_mut().see(entry, mark);
        }
        Ok(fed)
    }

    fn replayed(&mut self, sequence: Sequence, exits: u64) -> Result<(), DoorError> {
        self.inner.replayed(sequence, exits)
    }

    fn output(&mut self, sequence: Sequence, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.note_output(sequence, &bytes);
        self.inner.output(sequence, target, bytes)
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        self.inner.finish()
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        self.inner.kicked()
    }

    fn disk_request(&mut self, device: DeviceId, request: Request) -> Result<(), DoorError> {
        self.inner.disk_request(device, request)
    }

    fn disk_completed(
        &mut self,
        device: DeviceId,
        completion: &Completion,
    ) -> Result<Option<OwnRead>, DoorError> {
        self.inner.disk_completed(device, completion)
    }

    fn change_disks(&mut self, changes: Vec<(DeviceId, Operation)>) -> Result<(), DoorError> {
        self.inner.change_disks(changes)
    }

    fn shares_disk(&self, device: DeviceId) -> bool {
        self.inner.shares_disk(device)
    }
}
