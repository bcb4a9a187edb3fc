//! The disks of snapshots, while they are taken: what was written since the snapshot before is
//! copied from the overlays into a file beside it.
//!
//! ```text
//!   rounds: blocks that were written   the guest runs, and its disks too
//!   the machine is captured            the disks stand still
//!   the blocks of the last round       the guest runs; its requests wait
//!   the disks go on
//! ```
//!
//! The disks have then what is complete in the captured machine. What is outstanding there is in the
//! machine, and is asked again by whoever begins with it.

use super::folder::{Folder, Kind, Partial};
use super::not_taken::{BUFFER_BYTES, Look, NotTaken};
use crate::disk::{Contents, Watch};
use lockstep_core::replica::snapshot::{Before, DiskBlock, DisksWriter, Recording};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

/// Rounds before the machine is captured. Each has what was written during the one before, which is
/// less where disks are read faster than their guest writes.
const ROUNDS_MAX: u32 = 4;
/// Blocks that are left for the time in which the disks stand still: 4 MiB.
const LEFT_MAX: usize = 64;

/// The disks of a machine that is recorded.
pub struct RecordedDisks {
    contents: Contents,
    watch: Arc<Watch>,
    /// Blocks that were written since the newest file.
    written: BTreeSet<DiskBlock>,
    /// The newest file.
    newest: Option<Before>,
}

/// A file that is being written.
pub struct Part {
    partial: Partial,
    writer: DisksWriter<BufWriter<File>>,
    look: Look,
}

impl RecordedDisks {
    /// Disks that are watched since the beginning of the recording.
    #[must_use]
    pub fn new(contents: Contents, watch: Watch) -> Self {
        Self {
            contents,
            watch: Arc::new(watch),
            written: BTreeSet::new(),
            newest: None,
        }
    }

    /// The watch, by which they stand still for a capture.
    #[must_use]
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Begins a file in `folder`: copies while the guest writes on.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn begin(&mut self, folder: &Folder, is_over: &dyn Fn() -> bool) -> Result<Part, NotTaken> {
        let (file, partial) = folder.begin(Kind::Disks)?;
        let look = Look::at(&file)?;
        let writer = DisksWriter::new(BufWriter::with_capacity(BUFFER_BYTES, file))?;
        let mut part = Part {
            partial,
            writer,
            look,
        };
        // Also what was written before one that was given up.
        let _ = self.take();
        let mut blocks = self.written.clone();
        for _ in 0..ROUNDS_MAX {
            self.copy(&mut part, &blocks, is_over)?;
            blocks = self.take();
            if blocks.len() <= LEFT_MAX {
                break;
            }
        }
        self.copy(&mut part, &blocks, is_over)?;
        Ok(part)
    }

    /// Copies the rest, while the disks stand still.
    ///
    /// # Errors
    /// [`NotTaken`]; [`NotTaken::Over`] where they have gone on meanwhile.
    pub fn copy_rest(&mut self, part: &mut Part, is_over: &dyn Fn() -> bool) -> Result<(), NotTaken> {
        let blocks = self.take();
        self.copy(part, &blocks, is_over)?;
        if self.watch.is_over() {
            return Err(NotTaken::Over);
        }
        Ok(())
    }

    /// Makes `part` the disks of the snapshot of `recording` that begins with `entry`. Where there is
    /// a snapshot of that entry already, nothing was completed since then, and its disks are these.
    ///
    /// # Errors
    /// [`NotTaken::File`].
    pub fn keep(&mut self, part: Part, recording: &Recording, entry: u64) -> Result<u64, NotTaken> {
        if self.newest.is_some_and(|newest| newest.entry == entry) {
            return Ok(0);
        }
        let Part { partial, writer, .. } = part;
        let bytes = writer.bytes();
        let (file, header) = writer.finish(recording, entry, self.newest)?;
        partial.keep(file.get_ref(), entry)?;
        self.newest = Some(header.as_before());
        self.written.clear();
        Ok(bytes)
    }

    /// Takes the blocks that were written since the last time.
    fn take(&mut self) -> BTreeSet<DiskBlock> {
        let blocks: BTreeSet<_> = self.watch.take_blocks().into_iter().collect();
        self.written.extend(&blocks);
        blocks
    }

    fn copy(
        &self,
        part: &mut Part,
        blocks: &BTreeSet<DiskBlock>,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), NotTaken> {
        let mut buffer = Vec::new();
        for block in blocks {
            if is_over() {
                return Err(NotTaken::Over);
            }
            part.look.take(part.writer.bytes())?;
            self.contents
                .read(*block, &mut buffer)
                .map_err(NotTaken::Content)?;
            part.writer.put(*block, &buffer)?;
        }
        Ok(())
    }
}
