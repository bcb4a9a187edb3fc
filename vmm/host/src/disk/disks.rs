//! The disks of a machine, as its vCPU thread has them: requests go out, completions come back.
//!
//! A live machine takes completions as arrivals, in the order in which they come. One that replays
//! takes each where the log has it, and keeps the others until then; those that are left when it
//! goes live are arrivals.

use super::executor::{Command, Done};
use crossbeam_channel::{Receiver, Select, Sender};
use lockstep_core::machine::disk::Request;
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::replayer::OwnRead;
use lockstep_logging_channel::{Completion, DeviceId, ReadData};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The disks, by their devices.
#[derive(Clone, Debug, Default)]
pub struct Disks(BTreeMap<DeviceId, Disk>);

/// One of them.
#[derive(Clone, Debug)]
struct Disk {
    commands: Sender<Command>,
    done: Receiver<Done>,
    /// Completions that came before their time: as many as requests are outstanding.
    kept: Arc<Mutex<BTreeMap<u64, Done>>>,
}

impl Disk {
    /// Keeps what has come, and gives what `take` does with all of it.
    fn with_kept<T>(&self, take: impl FnOnce(&mut BTreeMap<u64, Done>) -> T) -> T {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(self.done.try_iter().map(|done| (done.number, done)));
        take(&mut kept)
    }

    fn has_completion(&self) -> bool {
        !self.with_kept(|kept| kept.is_empty())
    }

    fn oldest(&self) -> Option<Done> {
        self.with_kept(|kept| kept.pop_first().map(|(_, done)| done))
    }

    fn give(&self, command: Command) -> Result<(), DoorError> {
        self.commands.send(command).map_err(|_| gone())
    }
}

impl Disks {
    /// The same with one more.
    pub(super) fn add(&mut self, device: DeviceId, commands: Sender<Command>, done: Receiver<Done>) {
        let kept = Arc::default();
        let disk = Disk { commands, done, kept };
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
        self.disk(device)?.give(Command::Issue(request))
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
            let kept = disk.kept.lock().unwrap_or_else(PoisonError::into_inner);
            disk.done.is_empty() && kept.is_empty()
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
        let disk = self.0.get(&device);
        disk.is_none_or(|disk| disk.with_kept(|kept| kept.contains_key(&number)))
    }

    /// Waits until request `number` has been carried out. Gives the bytes that it has read. Between
    /// two looks `woken` may become ready, and `obey` says whether to go on.
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
        loop {
            obey()?;
            if let Some(done) = disk.with_kept(|kept| kept.remove(&number)) {
                return Ok(done.read);
            }
            crossbeam_channel::select! {
                recv(disk.done) -> done => {
                    let done = done.map_err(|_| gone())?;
                    disk.with_kept(|kept| kept.insert(done.number, done));
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
