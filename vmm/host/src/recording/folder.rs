//! The folder with the snapshots of a recording: `LOG.snapshots` beside the log `LOG`.
//!
//! | name | content |
//! | --- | --- |
//! | `snapshot-0000001234` | a snapshot; a replay from it begins with entry 1234 |
//! | `disks-0000001234` | blocks that its machine's disks got since the snapshot before |
//! | `snapshot.partial`, `disks.partial` | one that is being written |

use crate::error::RunError;
use lockstep_core::replica::snapshot::{Header, Recording, SnapshotError, read, read_header};
use lockstep_core::replica::transfer::Received;
use lockstep_logging_channel::{Existing, LogError};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

/// Digits of a number in a name, at least: so that names are in order up to 10^10 entries.
const DIGITS: usize = 10;
/// Bytes asked of the system at once.
const BUFFER_BYTES: usize = 256 << 10;

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    log: PathBuf,
}

/// Kind of a file in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A machine.
    Machine,
    /// What its disks got since the one before.
    Disks,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Machine, Self::Disks];

    fn prefix(self) -> &'static str {
        match self {
            Self::Machine => "snapshot-",
            Self::Disks => "disks-",
        }
    }

    fn partial(self) -> &'static str {
        match self {
            Self::Machine => "snapshot.partial",
            Self::Disks => "disks.partial",
        }
    }
}

/// A snapshot by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Number of its first entry.
    pub entry: u64,
    /// Its file.
    pub path: PathBuf,
}

/// A snapshot whose header was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its file.
    pub path: PathBuf,
    /// Its header.
    pub header: Header,
}

impl Folder {
    /// The folder of the recording `log`.
    #[must_use]
    pub fn of(log: &Path) -> Self {
        let mut name = OsString::from(log);
        name.push(".snapshots");
        Self {
            path: name.into(),
            log: log.to_owned(),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Path of the file of this kind that belongs to the snapshot that begins with `entry`.
    #[must_use]
    pub fn path_of(&self, kind: Kind, entry: u64) -> PathBuf {
        self.path.join(format!("{}{entry:0DIGITS$}", kind.prefix()))
    }

    /// All snapshots, in the order of their entries. Other files are not looked at.
    ///
    /// # Errors
    /// [`RunError::File`].
    pub fn list(&self) -> Result<Vec<Named>, RunError> {
        self.list_of(Kind::Machine)
    }

    /// All files of a kind, in the order of their entries.
    fn list_of(&self, kind: Kind) -> Result<Vec<Named>, RunError> {
        let failed = |source| RunError::File {
            action: "read the folder",
            path: self.path.clone(),
            source,
        };
        let listed = match fs::read_dir(&self.path) {
            Ok(listed) => listed,
            Err(why) if is_none(&why) => return Ok(Vec::new()),
            Err(why) => return Err(failed(why)),
        };
        let mut named = Vec::new();
        for found in listed {
            let path = found.map_err(failed)?.path();
            named.extend(entry_of(kind, &path).map(|entry| Named { entry, path }));
        }
        named.sort_by_key(|named| named.entry);
        Ok(named)
    }

    /// Refuses to begin a recording that would mix its snapshots with those of another.
    ///
    /// # Errors
    /// [`LogError::Exists`].
    pub fn check_free(&self, existing: Existing) -> Result<(), RunError> {
        // Where the log exists too, that is the error.
        if existing == Existing::Refuse && !self.log.exists() {
            for kind in Kind::ALL {
                if !self.list_of(kind)?.is_empty() {
                    let path = self.path.clone();
                    return Err(LogError::Exists { path }.into());
                }
            }
        }
        Ok(())
    }

    /// Removes the snapshots of a recording that is overwritten.
    ///
    /// # Errors
    /// [`RunError::File`].
    pub fn clear(&self) -> Result<(), RunError> {
        for kind in Kind::ALL {
            let partial = self.path.join(kind.partial());
            let paths = self.list_of(kind)?.into_iter().map(|named| named.path);
            for path in paths.chain(partial.exists().then_some(partial)) {
                fs::remove_file(&path).map_err(|source| RunError::File {
                    action: "remove",
                    path,
                    source,
                })?;
            }
        }
        self.remove_if_empty();
        Ok(())
    }

    /// Creates the folder, where it is not there.
    ///
    /// # Errors
    /// [`RunError::File`].
    pub fn create(&self) -> Result<(), RunError> {
        match fs::create_dir(&self.path) {
            Err(source) if !self.path.is_dir() => Err(RunError::File {
                action: "create the folder",
                path: self.path.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Removes the folder, where nothing is in it.
    pub fn remove_if_empty(&self) {
        // It is not empty, or not there: both are well.
        let _ = fs::remove_dir(&self.path);
    }

    /// Begins a file, which is removed with the value unless it is kept.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(&self, kind: Kind) -> io::Result<(File, Partial)> {
        let path = self.path.join(kind.partial());
        let file = lockstep_regular_file::create_or_empty(&path)?;
        let folder = self.clone();
        Ok((file, Partial { kind, path, folder }))
    }
}

/// A file that is no snapshot yet.
#[derive(Debug)]
pub struct Partial {
    kind: Kind,
    path: PathBuf,
    folder: Folder,
}

impl Partial {
    /// Makes it the file of the snapshot that begins with `entry`. The log is on disk first: a snapshot
    /// does not outlive the entries before it.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(self, file: &File, entry: u64) -> io::Result<()> {
        File::open(&self.folder.log)?.sync_data()?;
        file.sync_all()?;
        fs::rename(&self.path, self.folder.path_of(self.kind, entry))?;
        File::open(&self.folder.path)?.sync_all()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Where it was kept, it has another name.
        let _ = fs::remove_file(&self.path);
    }
}

impl Named {
    /// Reads the header, of a snapshot of `recording`.
    ///
    /// # Errors
    /// [`RunError::Snapshot`].
    pub fn open(self, recording: &Recording) -> Result<Snapshot, RunError> {
        let header = self.header().and_then(|header| {
            recording.check(&header)?;
            Ok(header)
        });
        match header {
            Ok(header) => Ok(Snapshot {
                path: self.path,
                header,
            }),
            Err(source) => Err(RunError::Snapshot {
                path: self.path,
                source,
            }),
        }
    }

    /// The header. Its machine is not looked at.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn header(&self) -> Result<Header, SnapshotError> {
        let mut file = lockstep_regular_file::open(&self.path).map_err(SnapshotError::Read)?;
        let header = read_header(&mut file)?;
        let entry = header.place.entry;
        if entry != self.entry {
            return Err(SnapshotError::Misnamed { entry });
        }
        Ok(header)
    }
}

impl Snapshot {
    /// Reads the machine, of a snapshot of `recording`.
    ///
    /// # Errors
    /// [`RunError::Snapshot`]; it is another file now than when its header was read, is one.
    pub fn read(&self, recording: &Recording) -> Result<Received, RunError> {
        let file = lockstep_regular_file::open(&self.path).map_err(SnapshotError::Read);
        let machine = file.and_then(|file| {
            let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
            let (header, machine) = read(&mut file, recording)?;
            if header != self.header {
                return Err(SnapshotError::Misnamed {
                    entry: header.place.entry,
                });
            }
            Ok(machine)
        });
        machine.map_err(|source| RunError::Snapshot {
            path: self.path.clone(),
            source,
        })
    }
}

/// True where there is no folder, or something else of its name.
fn is_none(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Number in the name of a snapshot.
fn entry_of(kind: Kind, path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix(kind.prefix())?;
    let is_number = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_known_by_their_names_and_come_in_order() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::of(&scratch.path().join("log"));
        assert_eq!(folder.list().unwrap(), []);
        folder.create().unwrap();
        let names = [
            "snapshot-0000000012",
            "snapshot-0000000003",
            "snapshot-10000000000",
            "snapshot-7",
            "snapshot-000000001x",
            "snapshot-+000000001",
            "snapshot.partial",
            "disks-0000000012",
            "disks-12",
            "disks.partial",
            "notes",
        ];
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let entries = |folder: &Folder| {
            folder
                .list()
                .unwrap()
                .iter()
                .map(|named| named.entry)
                .collect::<Vec<_>>()
        };
        assert_eq!(entries(&folder), [3, 12, 10_000_000_000]);
        folder.clear().unwrap();
        assert!(entries(&folder).is_empty());
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|found| found.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "disks-12",
                "notes",
                "snapshot-+000000001",
                "snapshot-000000001x",
                "snapshot-7"
            ]
        );
    }

    #[test]
    fn what_is_not_kept_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let log = scratch.path().join("log");
        let folder = Folder::of(&log);
        folder.create().unwrap();
        fs::write(&log, "").unwrap();
        let (_, partial) = folder.begin(Kind::Machine).unwrap();
        drop(partial);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let (file, partial) = folder.begin(Kind::Machine).unwrap();
        partial.keep(&file, 5).unwrap();
        assert!(folder.path().join("snapshot-0000000005").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_error_of_the_recording_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::of(&scratch.path().join("log"));
        fs::write(folder.path(), "").unwrap();
        assert_eq!(folder.list().unwrap(), []);
        let why = folder.create().unwrap_err().to_string();
        assert!(why.contains("log.snapshots"), "{why}");
    }
}
