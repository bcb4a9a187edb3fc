//! A store that is a directory on a file system both machines reach.
//!
//! Its system calls block for as long as the storage does, for ever where it hangs. So each
//! question has a thread of its own, from the pool of the tokio runtime in which it is asked.

mod folder;
mod names;

use folder::Folder;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lockstep_generation::Generation;

use crate::publish::Step;
use crate::store::{Asked, MachineStore, Store};
use crate::{Backup, Claim, Ended, MachineName, Seen, StoreError, Switchover, Verdict};

/// Told of each system call of a claim when it has been made.
type Observer = Arc<dyn Fn(Step) + Send + Sync>;

/// A directory that all sides reach, with a folder for each machine.
#[derive(Clone)]
pub struct DirectoryStore {
    directory: PathBuf,
    observer: Observer,
}

/// A machine's folder, each question on a thread of its own.
struct Machine {
    directory: PathBuf,
    name: MachineName,
    /// Empty until the folder is there; from then on nothing makes it again.
    folder: Arc<OnceLock<Folder>>,
    absolute: Option<PathBuf>,
    observer: Observer,
    /// True once this side has ended. Held while something is prepared, so that nothing is prepared
    /// behind its end.
    over: Arc<Mutex<bool>>,
}

impl DirectoryStore {
    /// The store in `directory`, which is not accessed yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            observer: Arc::new(|_| ()),
        }
    }

    /// The same, which tells `observer` of each system call of a claim when it has been made.
    #[must_use]
    pub fn observed(self, observer: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self {
            observer: Arc::new(observer),
            ..self
        }
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Asked<T> {
        let directory = self.directory.clone();
        on_a_thread(&self.directory, move || question(&directory))
    }
}

impl Store for DirectoryStore {
    fn place(&self) -> String {
        self.directory.display().to_string()
    }

    fn identity(&self, fresh: [u8; 16]) -> Asked<[u8; 16]> {
        self.ask(move |directory| Folder::identity(directory, fresh))
    }

    fn names(&self) -> Asked<Vec<MachineName>> {
        self.ask(Folder::names)
    }

    fn open(&self, name: &MachineName) -> Asked<Arc<dyn MachineStore>> {
        let (name, observer) = (name.clone(), self.observer.clone());
        self.ask(move |directory| {
            let folder = Folder::open(directory, &name)?;
            Ok(Machine::shared(directory, name, Some(folder), observer))
        })
    }

    fn expect(&self, name: &MachineName) -> Arc<dyn MachineStore> {
        Machine::shared(&self.directory, name.clone(), None, self.observer.clone())
    }

    fn find(&self, name: &MachineName) -> Asked<Option<Arc<dyn MachineStore>>> {
        let (name, observer) = (name.clone(), self.observer.clone());
        self.ask(move |directory| {
            let found = Folder::find(directory, &name)?;
            Ok(found.map(|folder| Machine::shared(directory, name, Some(folder), observer)))
        })
    }
}

impl Machine {
    fn shared(
        directory: &Path,
        name: MachineName,
        folder: Option<Folder>,
        observer: Observer,
    ) -> Arc<dyn MachineStore> {
        let absolute = match &folder {
            Some(folder) => folder.path().canonicalize(),
            None => std::path::absolute(directory.join(name.as_str())),
        };
        Arc::new(Self {
            directory: directory.to_owned(),
            name,
            folder: Arc::new(folder.map(OnceLock::from).unwrap_or_default()),
            absolute: absolute.ok(),
            observer,
            over: Arc::default(),
        })
    }

    /// An answer of the folder, or `absent` where nobody has opened it; without one that is an error.
    fn ask<T: Send + 'static>(
        &self,
        absent: Option<T>,
        question: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Asked<T> {
        let (folder, directory, name) = (self.folder.clone(), self.directory.clone(), self.name.clone());
        on_a_thread(&self.directory, move || {
            if folder.get().is_none()
                && let Some(found) = Folder::find(&directory, &name)?
            {
                // Another question may have found it, too.
                let _ = folder.set(found);
            }
            match (folder.get(), absent) {
                (Some(folder), _) => question(folder),
                (None, Some(absent)) => Ok(absent),
                (None, None) => Folder::missing(&directory, &name),
            }
        })
    }
}

impl MachineStore for Machine {
    fn folder(&self) -> Option<PathBuf> {
        self.absolute.clone()
    }

    fn claim(&self, claim: &Claim) -> Asked<Verdict> {
        let (claim, observer) = (claim.clone(), self.observer.clone());
        self.ask(None, move |folder| {
            let mut probe = |step| {
                observer(step);
                Ok(())
            };
            folder.claim(&claim, &mut probe)
        })
    }

    fn prepare(&self, claim: &Claim) -> Asked<()> {
        let (claim, over) = (claim.clone(), self.over.clone());
        self.ask(None, move |folder| {
            let over = over.lock().unwrap_or_else(PoisonError::into_inner);
            if *over {
                return Ok(());
            }
            folder.prepare(&claim, &mut |_| Ok(()))
        })
    }

    fn forget_prepared(&self, party: [u8; 16]) -> Asked<()> {
        let over = self.over.clone();
        self.ask(Some(()), move |folder| {
            *over.lock().unwrap_or_else(PoisonError::into_inner) = true;
            folder.forget_prepared(party)
        })
    }

    fn newest(&self) -> Asked<Option<Claim>> {
        self.ask(Some(None), Folder::newest)
    }

    fn history(&self) -> Asked<Vec<Claim>> {
        self.ask(Some(Vec::new()), Folder::history)
    }

    fn put_seen(&self, seen: &Seen) -> Asked<()> {
        let seen = seen.clone();
        self.ask(None, move |folder| folder.put_seen(&seen))
    }

    fn seen(&self, generation: Generation) -> Asked<Option<Seen>> {
        self.ask(Some(None), move |folder| folder.seen(generation))
    }

    fn put_backup(&self, backup: &Backup) -> Asked<()> {
        let backup = backup.clone();
        self.ask(None, move |folder| folder.put_backup(&backup))
    }

    fn remove_backup(&self, generation: Generation, party: [u8; 16]) -> Asked<()> {
        self.ask(Some(()), move |folder| folder.remove_backup(generation, party))
    }

    fn backups(&self, generation: Generation) -> Asked<Vec<Backup>> {
        self.ask(Some(Vec::new()), move |folder| folder.backups(generation))
    }

    fn ask_switchover(&self, asked: &Switchover) -> Asked<Switchover> {
        let asked = asked.clone();
        self.ask(None, move |folder| folder.ask_switchover(&asked))
    }

    fn switchover(&self, generation: Generation) -> Asked<Option<Switchover>> {
        self.ask(Some(None), move |folder| folder.switchover(generation))
    }

    fn remove_switchover(&self, generation: Generation) -> Asked<()> {
        self.ask(Some(()), move |folder| folder.remove_switchover(generation))
    }

    fn put_ended(&self, ended: &Ended) -> Asked<()> {
        let ended = ended.clone();
        self.ask(None, move |folder| folder.put_ended(&ended))
    }

    fn ended(&self, generation: Generation) -> Asked<Option<Ended>> {
        self.ask(Some(None), move |folder| folder.ended(generation))
    }
}

/// The answer to a question about `path`, which blocks a thread of its own.
fn on_a_thread<T: Send + 'static>(
    path: &Path,
    question: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Asked<T> {
    let path = path.to_owned();
    let answer = tokio::task::spawn_blocking(question);
    Box::pin(async move {
        // Its thread has panicked, or the runtime ends.
        answer.await.unwrap_or_else(|gone| {
            Err(StoreError::Unreachable {
                path,
                doing: "ask on a thread",
                source: std::io::Error::other(gone),
            })
        })
    })
}

#[cfg(test)]
mod tests;
