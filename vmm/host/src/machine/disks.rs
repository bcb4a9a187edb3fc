//! The disks of a piece of a recording, to be compared at its boundaries.

use crate::disk::{Contents, Disks, Watch};
use crate::live::control::Ordered;
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::snapshot::DiskBlock;
use lockstep_logging_channel::PartDigest;
use std::collections::BTreeSet;

/// The disks of a piece.
pub struct PieceDisks {
    disks: Disks,
    contents: Contents,
    watch: Watch,
    /// Blocks that may differ from the base.
    written: BTreeSet<DiskBlock>,
}

impl PieceDisks {
    /// Disks that are watched since nothing was asked of them. What is `written` differs from the
    /// base already.
    #[must_use]
    pub fn new(disks: Disks, contents: Contents, watch: Watch, written: BTreeSet<DiskBlock>) -> Self {
        Self {
            disks,
            contents,
            watch,
            written,
        }
    }

    /// The vCPU thread's end.
    #[must_use]
    pub fn disks(&self) -> &Disks {
        &self.disks
    }

    /// Carries out what the machine has asked for, and gives digests of everything that differs from
    /// the base.
    ///
    /// # Errors
    /// [`DoorError`]: the disks cannot be read, or the machine is stopped.
    pub fn digests(&mut self, ordered: &Ordered) -> Result<Vec<PartDigest>, DoorError> {
        self.watch.settle(|| ordered.obey())?;
        self.written.extend(self.watch.take_blocks());
        self.contents
            .digests(&self.written)
            .map_err(|why| DoorError::Host {
                what: "disk",
                why: why.to_string(),
            })
    }
}
