//! The disks of a snapshot, put into overlays over their bases: from the newest file back to the
//! first, each block once.

use super::folder::{Folder, Kind};
use crate::disk::Contents;
use crate::error::RunError;
use crate::progress::Lines;
use lockstep_core::machine::MachineError;
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::snapshot::{
    Before, DISK_BLOCK_BYTES, DiskBlock, DisksHeader, Recording, SnapshotError, read_bytes,
    read_disks_header, scan,
};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

/// Bytes asked of the system at once: heads are far between.
const BUFFER_BYTES: usize = 4 << 10;

/// The disks of a machine that is to begin at a snapshot.
pub struct Restoring<'a> {
    /// Its snapshots.
    pub folder: &'a Folder,
    /// The recording.
    pub recording: &'a Recording,
    /// Its disks, which hold what the bases have.
    pub contents: &'a Contents,
}

impl Restoring<'_> {
    /// Makes them what they were at the snapshot that begins with `entry`. Between two blocks `obey`
    /// says whether to go on. Gives the blocks that were written.
    ///
    /// # Errors
    /// [`RunError::SnapshotDisks`] naming a file that cannot be used; [`RunError::Other`] where a
    /// disk cannot be written.
    pub fn restore(
        &self,
        entry: u64,
        mut obey: impl FnMut() -> Result<(), DoorError>,
    ) -> Result<BTreeSet<DiskBlock>, RunError> {
        let mut written = BTreeSet::new();
        let mut lines = Lines::begin();
        let snapshot = entry;
        let mut obey = |blocks: usize| {
            if lines.is_due() {
                let bytes = blocks as u64 * DISK_BLOCK_BYTES;
                tracing::info!(
                    entry = snapshot,
                    bytes,
                    "the disks are made what they were at the snapshot"
                );
            }
            obey()
        };
        let mut next = Some((entry, None));
        while let Some((entry, needed)) = next {
            let path = self.folder.path_of(Kind::Disks, entry);
            let header = self.put_back(&path, entry, needed, &mut written, &mut obey)?;
            next = header
                .before
                .map(|before| (before.entry, Some(Needed { by: entry, before })));
        }
        Ok(written)
    }

    /// Puts back what the file `path` has and `written` does not.
    fn put_back(
        &self,
        path: &Path,
        entry: u64,
        needed: Option<Needed>,
        written: &mut BTreeSet<DiskBlock>,
        obey: &mut impl FnMut(usize) -> Result<(), DoorError>,
    ) -> Result<DisksHeader, RunError> {
        let refused = |source| RunError::SnapshotDisks {
            path: path.to_owned(),
            source,
        };
        let (mut file, header) = self.open(path, entry, needed).map_err(refused)?;
        let found = scan(&mut file, &header, &self.contents.sizes_bytes()).map_err(refused)?;
        let mut buffer = Vec::new();
        for (block, found) in found {
            if !written.insert(block) {
                continue;
            }
            obey(written.len()).map_err(MachineError::from)?;
            read_bytes(file.get_mut(), &found, &mut buffer).map_err(refused)?;
            self.contents.write(block, &buffer).map_err(RunError::other(
                "a disk cannot be made what it was at the snapshot",
            ))?;
        }
        Ok(header)
    }

    fn open(
        &self,
        path: &Path,
        entry: u64,
        needed: Option<Needed>,
    ) -> Result<(BufReader<File>, DisksHeader), SnapshotError> {
        let needed_by = needed.map_or(entry, |needed| needed.by);
        let file = lockstep_regular_file::open(path).map_err(|why| match why.kind() {
            io::ErrorKind::NotFound => SnapshotError::Missing { needed_by },
            _ => SnapshotError::Read(why),
        })?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let header = read_disks_header(&mut file)?;
        header.check(self.recording)?;
        if header.entry != entry {
            return Err(SnapshotError::Misnamed { entry: header.entry });
        }
        if needed.is_some_and(|needed| needed.before != header.as_before()) {
            return Err(SnapshotError::OtherBefore { needed_by });
        }
        Ok((file, header))
    }
}

/// The file that another one names as the one before it.
#[derive(Clone, Copy)]
struct Needed {
    /// Entry of the other.
    by: u64,
    before: Before,
}
