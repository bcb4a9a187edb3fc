//! Reasons why a snapshot is given up, and the look at the room on the disk.

use crate::machine::transfer::NotSent;
use nix::sys::statvfs::fstatvfs;
use std::fs::File;
use std::io;

/// Bytes given to the system at once.
pub const BUFFER_BYTES: usize = 1 << 20;
/// Bytes that a snapshot leaves free on the disk: the log goes on, and needs them. At 4 MiB/s, far
/// more than a log of the key-value guest under full load, 4 s.
const LEFT_FREE_BYTES: u64 = 16 << 20;
/// Bytes of a file between two looks at what is free.
const LOOK_BYTES: u64 = 1 << 20;

/// Reason why there is no snapshot. The recording goes on.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The recording is over.
    #[error("the recording is over")]
    Over,
    /// The machine was not sent.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// The disk.
    #[error("its file cannot be written")]
    File(#[from] io::Error),
    /// A disk of the machine.
    #[error("a disk of its machine cannot be read")]
    Content(#[source] io::Error),
    /// The disk is nearly full.
    #[error("the disk has {free_bytes} bytes left, and {LEFT_FREE_BYTES} of them are kept for the log")]
    LittleRoom {
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// The capture and the log do not belong together.
    #[error("its place in the log is not known: this is a defect of Lockstep")]
    NoPlace,
}

/// Looks now and then at what is free on the disk.
pub struct Look {
    file: File,
    at_bytes: u64,
}

impl Look {
    /// Looks at the disk of `file`.
    ///
    /// # Errors
    /// The system's.
    pub fn at(file: &File) -> io::Result<Self> {
        Ok(Self {
            file: file.try_clone()?,
            at_bytes: 0,
        })
    }

    /// Refuses to go on from `bytes` where the log would have too little.
    ///
    /// # Errors
    /// [`NotTaken::LittleRoom`], [`NotTaken::File`].
    pub fn take(&mut self, bytes: u64) -> Result<(), NotTaken> {
        if bytes < self.at_bytes {
            return Ok(());
        }
        self.at_bytes = bytes + LOOK_BYTES;
        let disk = fstatvfs(&self.file).map_err(io::Error::from)?;
        let free_bytes = disk.blocks_available() * disk.fragment_size();
        if free_bytes < LEFT_FREE_BYTES + BUFFER_BYTES as u64 {
            return Err(NotTaken::LittleRoom { free_bytes });
        }
        Ok(())
    }
}
