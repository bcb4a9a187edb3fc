//! The log as it comes to a replayer, and what that tells of its replay.

use crate::machine::disk::{Operation, Request};
use crate::machine::door::{DoorError, NotFollowed};
use lockstep_logging_channel::{Completion, DeviceId, Entry, OutputTarget, Sequence};

/// Bytes that one's own disk has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRead {
    /// Their place on the disk.
    pub offset_bytes: u64,
    /// They themselves.
    pub bytes: Vec<u8>,
}

/// The next item of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fed {
    /// The next entry.
    Entry(Box<Entry>),
    /// No entry yet, but there is none at exits up to this one.
    Passed(u64),
    /// No entry will come any more.
    Exhausted,
}

/// The log as it comes, and what is told of the replay. The shell's.
pub trait Feed {
    /// The next entry. Waits until there is one, or none at exits up to `exits`, or none at all.
    ///
    /// # Errors
    /// [`DoorError`]: the log is damaged, or the replay is to stop.
    fn next(&mut self, exits: u64) -> Result<Fed, DoorError>;

    /// The replay has met entry `sequence`, at exit `exits`.
    ///
    /// # Errors
    /// [`DoorError`].
    fn replayed(&mut self, sequence: Sequence, exits: u64) -> Result<(), DoorError>;

    /// An output that the replay produced as the log says.
    ///
    /// # Errors
    /// [`DoorError`].
    fn output(&mut self, sequence: Sequence, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError>;

    /// Takes what the guest asks of a disk. Where the disk is shared, nothing is done but keeping it.
    ///
    /// # Errors
    /// [`DoorError`].
    fn disk_request(&mut self, device: DeviceId, _request: Request) -> Result<(), DoorError> {
        Err(DoorError::no_disk(device))
    }

    /// The log says that a request is done here. Waits for one's own disk to have done it, and gives
    /// what that has read; nothing where the disk is shared, where the request is forgotten.
    ///
    /// # Errors
    /// [`DoorError`]: also where the replay is to stop.
    fn disk_completed(
        &mut self,
        device: DeviceId,
        _completion: &Completion,
    ) -> Result<Option<OwnRead>, DoorError> {
        Err(DoorError::no_disk(device))
    }

    /// Has the machine's own disks do what those of the followed machine have done, in this order,
    /// and waits until it is done.
    ///
    /// # Errors
    /// [`DoorError`]: also where the machine is to stop.
    fn change_disks(&mut self, _changes: Vec<(DeviceId, Operation)>) -> Result<(), DoorError> {
        Err(NotFollowed.into())
    }

    /// True where another machine reaches the same disk.
    fn shares_disk(&self, _device: DeviceId) -> bool {
        false
    }

    /// Nothing follows any more: the replay has met the end of the log.
    ///
    /// # Errors
    /// [`DoorError`].
    fn finish(&mut self) -> Result<(), DoorError>;

    /// A kick: whether the replay is to stop.
    ///
    /// # Errors
    /// [`DoorError::Stopped`] or [`DoorError::Fenced`].
    fn kicked(&mut self) -> Result<(), DoorError>;
}
