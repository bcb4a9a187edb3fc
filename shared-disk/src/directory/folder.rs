//! A machine's folder, with calls that block.
//!
//! ```text
//! <directory>/identity                     names this directory, so that two sides can compare
//! <directory>/<name>/machine               names the machine; made when a side opens its folder
//! <directory>/<name>/generation-0000000002 the claim of generation 2
//! <directory>/<name>/seen-0000000002       the newest sign of life of its holder; replaced, never synced
//! <directory>/<name>/backup-0000000002-<id, 32 digits>
//!                                          a newcomer that may have become that holder's backup
//! <directory>/<name>/switchover-0000000002 a request that its holder hands the machine over
//! <directory>/<name>/ended-0000000002      the end of the machine, if it ended in that generation
//! ```
//!
//! Opening makes the machine's folder; claiming never does. If the file system is unmounted while
//! the machine runs, the empty mount point has no such folder, and a claim finds the storage
//! unreachable instead of winning on a local disk that the other side does not see.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use lockstep_generation::Generation;

use super::names::{backup_name, claim_name, claim_number, ended_name, seen_name, switchover_name};
use crate::StoreError;
use crate::claim::{Backup, Claim, Ended, Seen, Switchover, Verdict};
use crate::name::{Hex, MachineName};
use crate::publish::{
    Probe, classify, exists, prepare, prepared_for, publish, read_bounded, replace, sync_directory,
};
use crate::record::{Identity, NotRead, Record, decode, encode};

/// Files of a machine's folder that are looked through. A machine that is taken over every minute
/// for a year has half as many claims.
const FILES_MAX: usize = 1 << 20;

/// Machines of a directory that are looked through.
const MACHINES_MAX: usize = 4096;

/// Newcomers that one generation may have recorded. Those that come to nothing are forgotten again;
/// what is left are processes that were killed between two steps.
const BACKUPS_MAX: usize = 256;

/// Folder of a machine in a directory.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens the folder of `name` in `directory`, which must exist. Does there what a claim does,
    /// so that a directory that will not do is refused now.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] where a person has to do something, [`StoreError::Unreachable`]
    /// where it may pass.
    pub fn open(directory: &Path, name: &MachineName) -> Result<Self, StoreError> {
        refuse_missing(directory)?;
        let path = directory.join(name.as_str());
        refuse_taken(&path)?;
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(classify(&path, "create a directory", error));
            }
            _ => sync_directory(directory, &mut |_| Ok(()))?,
        }
        publish(&path, "machine", None, &encode(name), &mut |_| Ok(()))?;
        Self { path }.named(name)
    }

    /// The folder of `name` in `directory`, if it is there.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn find(directory: &Path, name: &MachineName) -> Result<Option<Self>, StoreError> {
        refuse_missing(directory)?;
        let found = Self {
            path: directory.join(name.as_str()),
        };
        refuse_taken(&found.path)?;
        if exists(&found.path.join("machine"))? {
            found.named(name).map(Some)
        } else {
            Ok(None)
        }
    }

    /// This folder, if it says that it is the machine's.
    fn named(self, name: &MachineName) -> Result<Self, StoreError> {
        let path = self.path.join("machine");
        if decoded::<MachineName>(&path, &read_bounded(&path)?)? == *name {
            return Ok(self);
        }
        let detail = "it names another machine";
        Err(StoreError::Damaged { path, detail })
    }

    /// The machines that have a folder in `directory`, in order.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn names(directory: &Path) -> Result<Vec<MachineName>, StoreError> {
        refuse_missing(directory)?;
        let mut names = Vec::new();
        for name in file_names(directory, MACHINES_MAX)? {
            let Ok(name) = name.parse::<MachineName>() else {
                continue;
            };
            if exists(&directory.join(name.as_str()).join("machine")).unwrap_or(false) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// As [`crate::Store::identity`].
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn identity(directory: &Path, fresh: [u8; 16]) -> Result<[u8; 16], StoreError> {
        refuse_missing(directory)?;
        let content = encode(&Identity(fresh));
        let found = publish(directory, "identity", None, &content, &mut |_| Ok(()))?;
        decoded::<Identity>(&directory.join("identity"), &found).map(|identity| identity.0)
    }

    /// The folder of `name` in `directory`, where nobody has opened it yet, is an error of what is asked.
    pub fn missing<T>(directory: &Path, name: &MachineName) -> Result<T, StoreError> {
        let path = directory.join(name.as_str());
        Err(classify(&path, "look up", ErrorKind::NotFound.into()))
    }

    /// Path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes and syncs beforehand what `claim` needs, so that the claim itself waits for the disk
    /// once and not twice. Claims nothing; a claim that was not prepared, or whose preparation
    /// failed or was swept away, does it all.
    ///
    /// # Errors
    /// [`StoreError`]: there is nothing prepared.
    pub fn prepare(&self, claim: &Claim, probe: Probe<'_>) -> Result<(), StoreError> {
        let (name, owner) = (claim_name(claim.generation), owner(claim));
        prepare(&self.path, &name, &owner, &encode(claim), probe)
    }

    /// As [`crate::MachineStore::forget_prepared`].
    ///
    /// # Errors
    /// [`StoreError`]. What cannot be removed is in nobody's way.
    pub fn forget_prepared(&self, party: [u8; 16]) -> Result<(), StoreError> {
        let (names, own) = (file_names(&self.path, FILES_MAX)?, Hex(&party).to_string());
        let newest = names.iter().filter_map(|name| claim_number(name)).max();
        for file in &names {
            let Some((name, owner)) = prepared_for(file) else {
                continue;
            };
            let decided = claim_number(name).is_some_and(|generation| Some(generation) <= newest);
            if owner == own || decided {
                let _ = fs::remove_file(self.path.join(file));
            }
        }
        Ok(())
    }

    /// As [`crate::MachineStore::claim`].
    ///
    /// # Errors
    /// [`StoreError`] where there is no verdict. The claim may have been made all the same.
    pub fn claim(&self, claim: &Claim, probe: Probe<'_>) -> Result<Verdict, StoreError> {
        let name = claim_name(claim.generation);
        let found = publish(&self.path, &name, Some(&owner(claim)), &encode(claim), probe)?;
        let winner = decoded_of(
            &self.path.join(name),
            &found,
            claim.generation,
            |found: &Claim| found.generation,
        )?;
        Ok(claim.verdict(winner))
    }

    /// As [`crate::MachineStore::newest`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn newest(&self) -> Result<Option<Claim>, StoreError> {
        let newest = self.claimed()?.last().copied();
        newest.map(|generation| self.claim_of(generation)).transpose()
    }

    /// As [`crate::MachineStore::history`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn history(&self) -> Result<Vec<Claim>, StoreError> {
        let claimed = self.claimed()?;
        claimed
            .into_iter()
            .map(|generation| self.claim_of(generation))
            .collect()
    }

    fn claim_of(&self, generation: Generation) -> Result<Claim, StoreError> {
        let path = self.path.join(claim_name(generation));
        let found = read_of(&path, generation, |claim: &Claim| claim.generation)?;
        found.ok_or_else(|| missing(&path))
    }

    /// The generations that are claimed, in order. Claims are kept for ever: one that is missing
    /// between two others was removed.
    fn claimed(&self) -> Result<Vec<Generation>, StoreError> {
        let names = file_names(&self.path, FILES_MAX)?;
        let mut claimed: Vec<_> = names.iter().filter_map(|name| claim_number(name)).collect();
        claimed.sort();
        for pair in claimed.windows(2) {
            if let [earlier, later] = pair
                && let Some(next) = earlier.next()
                && next != *later
                // Made while the folder was read.
                && !exists(&self.path.join(claim_name(next)))?
            {
                return Err(missing(&self.path.join(claim_name(next))));
            }
        }
        Ok(claimed)
    }

    /// As [`crate::MachineStore::put_seen`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_seen(&self, seen: &Seen) -> Result<(), StoreError> {
        replace(&self.path, &seen_name(seen.generation()), &encode(seen))?;
        if seen.counter() <= 1 {
            self.sweep_before(seen.generation());
        }
        Ok(())
    }

    /// Removes the signs of life of earlier holders, and requests to them. What cannot be removed is
    /// in nobody's way.
    fn sweep_before(&self, newest: Generation) {
        for name in file_names(&self.path, FILES_MAX).unwrap_or_default() {
            let visible = name.trim_start_matches('.');
            let rest = visible
                .strip_prefix("seen-")
                .or_else(|| visible.strip_prefix("switchover-"));
            let number = rest.and_then(|rest| rest.get(..10)?.parse().ok());
            if number.is_some_and(|number: u32| number < newest.0) {
                let _ = fs::remove_file(self.path.join(name));
            }
        }
    }

    /// As [`crate::MachineStore::seen`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn seen(&self, generation: Generation) -> Result<Option<Seen>, StoreError> {
        let path = self.path.join(seen_name(generation));
        // It is not synced: after a loss of power it may be there without its content.
        let text = read(&path)?.filter(|text| !text.is_empty());
        text.map(|text| decoded_of(&path, &text, generation, Seen::generation))
            .transpose()
    }

    /// As [`crate::MachineStore::put_backup`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_backup(&self, backup: &Backup) -> Result<(), StoreError> {
        let name = backup_name(backup.generation, backup.party.id);
        publish(&self.path, &name, None, &encode(backup), &mut |_| Ok(())).map(drop)
    }

    /// As [`crate::MachineStore::remove_backup`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_backup(&self, generation: Generation, party: [u8; 16]) -> Result<(), StoreError> {
        self.remove(&backup_name(generation, party))
    }

    /// As [`crate::MachineStore::backups`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn backups(&self, generation: Generation) -> Result<Vec<Backup>, StoreError> {
        let mut backups = Vec::new();
        let prefix = format!("backup-{:010}-", generation.0);
        for name in file_names(&self.path, FILES_MAX)? {
            if !name.starts_with(&prefix) {
                continue;
            }
            let path = self.path.join(&name);
            if backups.len() == BACKUPS_MAX {
                let detail = "it is one of more than 256 backups of one generation";
                return Err(StoreError::Damaged { path, detail });
            }
            // It may be forgotten meanwhile.
            backups.extend(read_of(&path, generation, |backup: &Backup| backup.generation)?);
        }
        backups.sort_by_key(|backup| backup.party.id);
        Ok(backups)
    }

    /// As [`crate::MachineStore::ask_switchover`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn ask_switchover(&self, asked: &Switchover) -> Result<Switchover, StoreError> {
        let name = switchover_name(asked.generation);
        let found = publish(&self.path, &name, None, &encode(asked), &mut |_| Ok(()))?;
        let path = self.path.join(name);
        decoded_of(&path, &found, asked.generation, |asked: &Switchover| {
            asked.generation
        })
    }

    /// As [`crate::MachineStore::switchover`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn switchover(&self, generation: Generation) -> Result<Option<Switchover>, StoreError> {
        let name = switchover_name(generation);
        // A network file system may remember for a minute that the file was not there.
        if !file_names(&self.path, FILES_MAX)?.contains(&name) {
            return Ok(None);
        }
        let path = self.path.join(name);
        read_of(&path, generation, |asked: &Switchover| asked.generation)
    }

    /// As [`crate::MachineStore::remove_switchover`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_switchover(&self, generation: Generation) -> Result<(), StoreError> {
        self.remove(&switchover_name(generation))
    }

    /// Removes the file `name`, if it is there.
    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(classify(&path, "remove", error)),
            _ => Ok(()),
        }
    }

    /// As [`crate::MachineStore::put_ended`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_ended(&self, ended: &Ended) -> Result<(), StoreError> {
        let name = ended_name(ended.generation);
        publish(&self.path, &name, None, &encode(ended), &mut |_| Ok(())).map(drop)
    }

    /// As [`crate::MachineStore::ended`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn ended(&self, generation: Generation) -> Result<Option<Ended>, StoreError> {
        let path = self.path.join(ended_name(generation));
        read_of(&path, generation, |ended: &Ended| ended.generation)
    }
}

/// The name of a machine may be that of a socket, or of a file of somebody else's.
fn refuse_taken(path: &Path) -> Result<(), StoreError> {
    let Ok(kind) = fs::metadata(path).map(|found| found.file_type()) else {
        // Nothing is there, or what is asked next says what is wrong.
        return Ok(());
    };
    let what = match kind {
        kind if kind.is_dir() => return Ok(()),
        kind if kind.is_socket() => "a socket",
        kind if kind.is_file() => "a file",
        kind if kind.is_fifo() => "a FIFO",
        _ => "a device",
    };
    Err(StoreError::Taken {
        path: path.to_owned(),
        what,
    })
}

/// While a machine runs a missing directory may come back; at the start it is a mistake.
fn refuse_missing(directory: &Path) -> Result<(), StoreError> {
    let doing = "look up";
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(classify(directory, doing, ErrorKind::NotADirectory.into())),
        Err(source) if source.kind() == ErrorKind::NotFound => {
            let hint = "create it, or mount the file system it is on";
            Err(StoreError::Unusable {
                path: directory.to_owned(),
                doing,
                hint,
                source,
            })
        }
        Err(error) => Err(classify(directory, doing, error)),
    }
}

/// Names of the files in `directory`, which may have `files_max` files. Reading a directory makes a
/// network file system look at it anew.
fn file_names(directory: &Path, files_max: usize) -> Result<Vec<String>, StoreError> {
    let failed = |error| classify(directory, "list", error);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if names.len() == files_max {
            let detail = "it has more files than any store has";
            return Err(StoreError::Damaged {
                path: directory.to_owned(),
                detail,
            });
        }
        // A name that is not text is not ours.
        names.extend(name.into_string());
    }
    Ok(names)
}

fn missing(path: &Path) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        detail: "it is missing, and claims are kept for ever",
    }
}

fn decoded<R: Record>(path: &Path, text: &str) -> Result<R, StoreError> {
    let path = path.to_owned();
    decode(text).map_err(|why| match why {
        NotRead::Damaged(detail) => StoreError::Damaged { path, detail },
        NotRead::Version { found, known } => StoreError::Version { path, found, known },
    })
}

/// The record that `text` is, which must be of `generation`.
fn decoded_of<R: Record>(
    path: &Path,
    text: &str,
    generation: Generation,
    of: fn(&R) -> Generation,
) -> Result<R, StoreError> {
    let record = decoded(path, text)?;
    if of(&record) == generation {
        return Ok(record);
    }
    Err(StoreError::Damaged {
        path: path.to_owned(),
        detail: "it is of another generation than its name",
    })
}

/// The text of the file `path`, if there is one. A folder that is not there any more is an error.
fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match read_bounded(path) {
        Err(why) if why.is_missing() && path.parent().is_some_and(|folder| folder.is_dir()) => Ok(None),
        text => text.map(Some),
    }
}

/// The record in the file `path`, if there is one, which must be of `generation`.
fn read_of<R: Record>(
    path: &Path,
    generation: Generation,
    of: fn(&R) -> Generation,
) -> Result<Option<R>, StoreError> {
    let text = read(path)?;
    text.map(|text| decoded_of(path, &text, generation, of))
        .transpose()
}

fn owner(claim: &Claim) -> String {
    Hex(&claim.party.id).to_string()
}
