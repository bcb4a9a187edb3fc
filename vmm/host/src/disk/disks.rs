//! The disks of a machine, as its vCPU thread has them: requests go out, completions come back.
//!
//! A live machine takes completions as arrivals, in the order in which they come. One that replays
//! takes each where the log has it, and keeps the others until then; those that are left when it
//! goes live are arrivals.

use super::changes::{KeptChanges, Reached};
use super::executor::Done;
use super::orders::{Command, Orders};
use super::shared::SharedImage;
use crate::error::RunError;
use crossbeam_channel::{Receiver, Select};
use lockstep_core::machine::MachineError;
use lockstep_core::machine::disk::{Operation, Request};
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::replayer::OwnRead;
use lockstep_logging_channel::{Completion, DeviceId, ReadData, Sequence};
use lockstep_process::causes::with_causes;
use lockstep_process::once_a_minute::Seldom;
use lockstep_shared_disk::image::Image;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time for which a shared image is expected to be given up by who has lost: it is tried often.
const OPEN_SOON: Duration = Duration::from_secs(1);
/// Pause between two tries in that time.
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// The disks, by their devices.
#[derive(Clone, Debug, Default)]
pub struct Disks(BTreeMap<DeviceId, Disk>);

/// One of them.
#[derive(Clone, Debug)]
struct Disk {
    commands: Orders,
    done: Receiver<Done>,
    known: Arc<Mutex<Known>>,
    /// Its image, where both sides have it.
    shared: Option<Arc<SharedImage>>,
    /// Blocks that may differ from the other side's, where it has an image of its own.
    changes: Option<Arc<KeptChanges>>,
}

/// What is known of the requests of a disk: its device bounds how many are outstanding.
#[derive(Debug, Default)]
struct Known {
    /// Numbers below this one were given.
    next: u64,
    /// Requests whose completion the machine does not have.
    asked: BTreeSet<u64>,
    /// Completions that came before their time.
    kept: BTreeMap<u64, Done>,
}

impl Known {
    fn ask(&mut self, number: u64) {
        if number >= self.next {
            self.next = number.saturating_add(1);
            self.asked.insert(number);
        }
    }

    fn take(&mut self, number: u64) -> Option<Done> {
        let done = self.kept.remove(&number)?;
        self.asked.remove(&number);
        Some(done)
    }

    fn take_oldest(&mut self) -> Option<Done> {
        let (number, _) = self.kept.first_key_value()?;
        self.take(*number)
    }
}

impl Disk {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what has come, and gives what `take` does with all of it.
    fn with_kept<T>(&self, take: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known();
        let come = self.done.try_iter().map(|done| (done.number, done));
        known.kept.extend(come);
        take(&mut known)
    }

    fn has_completion(&self) -> bool {
        !self.with_kept(|known| known.kept.is_empty())
    }

    fn oldest(&self) -> Option<Done> {
        self.with_kept(Known::take_oldest)
    }

    /// The states of its image, where request `number` reaches one that the other side may not have.
    fn awaits(&self, number: u64) -> Option<&KeptChanges> {
        self.changes.as_deref().filter(|changes| changes.awaits(number))
    }

    fn give(&self, command: Command) -> Result<(), DoorError> {
        self.commands.send(command).map_err(|_| gone())
    }
}

impl Disks {
    /// The same with one more.
    pub(super) fn add(
        &mut self,
        device: DeviceId,
        commands: Orders,
        done: Receiver<Done>,
        shared: Option<Arc<SharedImage>>,
        changes: Option<Arc<KeptChanges>>,
    ) {
        let disk = Disk {
            commands,
            done,
            known: Arc::default(),
            shared,
            changes,
        };
        self.0.insert(device, disk);
    }

    fn disk(&self, device: DeviceId) -> Result<&Disk, DoorError> {
        self.0.get(&device).ok_or_else(gone)
    }

    /// Gives a request to its disk, which ignores a number that it was given before.
    ///
    /// # Errors
    /// [`DoorError::Host`]: the machine has no such disk here.
    pub fn issue(&self, device: DeviceId, request: Request) -> Result<(), DoorError> {
        let disk = self.disk(device)?;
        disk.known().ask(request.number);
        disk.give(Command::Issue(request))
    }

    /// The log of this side says, at `sequence`, that request `number` is done.
    pub fn logged(&self, device: DeviceId, number: u64, sequence: Sequence) {
        if let Some(changes) = self.0.get(&device).and_then(|disk| disk.awaits(number)) {
            changes.logged(number, sequence);
        }
    }

    /// Carries out, in this order, what the disks of a machine have done that this side follows
    /// without running it, and waits until all of it is done. `woken` and `obey` as in
    /// [`Disks::wait`].
    ///
    /// # Errors
    /// As [`Disks::wait`].
    pub fn change(
        &self,
        changes: Vec<(DeviceId, Operation)>,
        woken: &Receiver<()>,
        mut obey: impl FnMut() -> Result<(), DoorError>,
    ) -> Result<(), DoorError> {
        // The numbers of the guest are no order here: a later request may have been done first.
        let mut counts = BTreeMap::<DeviceId, u64>::new();
        for (device, operation) in changes {
            let count = counts.entry(device).or_default();
            let number = *count;
            if number == 0 {
                // Nor do they name states that the other side has, too.
                self.disk(device)?.give(Command::Alone)?;
            }
            *count += 1;
            self.issue(device, Request { number, operation })?;
        }
        for (device, count) in counts {
            for number in 0..count {
                self.wait(device, number, woken, &mut obey)?;
            }
            let disk = self.disk(device)?;
            disk.known().next = 0;
            disk.give(Command::Renumber)?;
        }
        Ok(())
    }

    /// True where both sides have this disk.
    #[must_use]
    pub fn shares(&self, device: DeviceId) -> bool {
        self.0.get(&device).is_some_and(|disk| disk.shared.is_some())
    }

    /// A request of a shared disk, and all before it, may leave.
    ///
    /// # Errors
    /// As [`Disks::issue`].
    pub fn release(&self, device: DeviceId, number: u64) -> Result<(), DoorError> {
        self.disk(device)?.give(Command::Release(number))
    }

    /// Opens the shared images, if `may` be so, and has what was asked of them carried out: this
    /// side acts from now on.
    ///
    /// # Errors
    /// As [`SharedImage::open`].
    pub fn act(&self, may: &dyn Fn(&Image) -> Result<(), RunError>) -> Result<(), RunError> {
        self.try_to_act(true, may)
    }

    fn try_to_act(&self, waits: bool, may: &dyn Fn(&Image) -> Result<(), RunError>) -> Result<(), RunError> {
        for disk in self.0.values() {
            if let Some(shared) = &disk.shared {
                shared.open(waits, may)?;
                disk.give(Command::GoLive).map_err(MachineError::from)?;
            }
        }
        Ok(())
    }

    /// The same, again and again until it works: the side that has lost may still have the images,
    /// and gives them up with its end.
    ///
    /// # Errors
    /// Those of `obey`.
    pub fn act_when_possible(
        &self,
        may: &dyn Fn(&Image) -> Result<(), RunError>,
        woken: &Receiver<()>,
        mut obey: impl FnMut() -> Result<(), DoorError>,
    ) -> Result<(), DoorError> {
        let begun = Instant::now();
        let mut told = Seldom::default();
        // In short attempts: it obeys between them.
        while let Err(why) = self.try_to_act(false, may) {
            obey()?;
            let waits = begun.elapsed();
            if waits >= OPEN_SOON && told.may(Instant::now()) {
                let why = with_causes(&why);
                tracing::error!("the guest waits for a shared disk, which is tried again each second: {why}");
            }
            let pause = if waits < OPEN_SOON { OPEN_PAUSE } else { OPEN_SOON };
            crossbeam_channel::select! {
                recv(woken) -> _ => {}
                default(pause) => {}
            }
        }
        Ok(())
    }

    /// True where a completion waits.
    #[must_use]
    pub fn has_completion(&self, device: DeviceId) -> bool {
        self.0.get(&device).is_some_and(Disk::has_completion)
    }

    /// True where no completion waits for the machine. For other threads than the vCPU's: takes
    /// nothing out of a channel that the vCPU may be waiting for.
    #[must_use]
    pub fn are_quiet(&self) -> bool {
        let is_quiet = |disk: &Disk| {
            let known = disk.known();
            disk.done.is_empty() && known.kept.is_empty()
        };
        self.0.values().all(is_quiet)
    }

    /// Takes the completion of the oldest request that has one.
    #[must_use]
    pub fn take(&self, device: DeviceId) -> Option<Completion> {
        let Done { number, read } = self.0.get(&device)?.oldest()?;
        let read = read.map_or(ReadData::Nothing, |read| ReadData::Bytes(read.bytes));
        Some(Completion { number, read })
    }

    /// Has `select` become ready with a completion for `device`.
    pub fn select<'a>(&'a self, device: DeviceId, select: &mut Select<'a>) {
        if let Some(disk) = self.0.get(&device) {
            select.recv(&disk.done);
        }
    }

    /// True where request `number` has been carried out.
    #[must_use]
    pub fn is_done(&self, device: DeviceId, number: u64) -> bool {
        let disk = self.0.get(&device).filter(|disk| disk.shared.is_none());
        disk.is_none_or(|disk| disk.with_kept(|known| known.kept.contains_key(&number)))
    }

    /// Waits until request `number` has been carried out, which of a shared disk is so: the log says
    /// it, and so is a request that was not made, which the machine refuses. Gives the bytes that
    /// this side's own disk has read. Between two looks `woken` may become ready, and `obey` says
    /// whether to go on.
    ///
    /// # Errors
    /// Those of `obey`; [`DoorError::Host`] where nothing can come any more.
    pub fn wait(
        &self,
        device: DeviceId,
        number: u64,
        woken: &Receiver<()>,
        mut obey: impl FnMut() -> Result<(), DoorError>,
    ) -> Result<Option<OwnRead>, DoorError> {
        let disk = self.disk(device)?;
        if disk.shared.is_some() {
            disk.known().asked.remove(&number);
            return disk.give(Command::Replayed(number)).map(|()| None);
        }
        loop {
            obey()?;
            if let Some(done) = disk.with_kept(|known| known.take(number)) {
                if disk.awaits(number).is_some() {
                    disk.give(Command::BothHave(Reached::Completed(number)))?;
                }
                return Ok(done.read);
            }
            if !disk.known().asked.contains(&number) {
                return Ok(None);
            }
            crossbeam_channel::select! {
                recv(disk.done) -> done => {
                    let done = done.map_err(|_| gone())?;
                    disk.with_kept(|known| known.kept.insert(done.number, done));
                }
                recv(woken) -> _ => {}
            }
        }
    }
}

fn gone() -> DoorError {
    DoorError::Host {
        what: "disk",
        why: "it is not there".to_owned(),
    }
}
