//! Reading a snapshot.

use super::{HEADER_BYTES, Header, LENGTH_BYTES, SnapshotError, machine_digest};
use crate::replica::transfer::{RECORD_BYTES_MAX, Received, Receiver, Taken};
use lockstep_logging_channel::{Digest, Environment};
use std::io::{self, Read};

/// Names of parts, in messages.
pub(super) const HEADER: &str = "header";
pub(super) const BODY: &str = "body";

/// The recording that a snapshot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Its name.
    pub name: [u8; 16],
    /// Digest of its machine.
    pub machine: Digest,
    /// Bytes of guest memory.
    pub memory_bytes: u64,
}

impl Recording {
    /// The recording that begins with `environment`, of a machine with so much memory.
    #[must_use]
    pub fn of(environment: &Environment, memory_bytes: u64) -> Self {
        Self {
            name: environment.pair,
            machine: machine_digest(environment),
            memory_bytes,
        }
    }

    /// Refuses a snapshot of another recording.
    ///
    /// # Errors
    /// [`SnapshotError`] naming what differs.
    pub fn check(&self, header: &Header) -> Result<(), SnapshotError> {
        self.check_name(&header.recording)?;
        if header.memory_bytes != self.memory_bytes {
            return Err(SnapshotError::MemorySize {
                found: header.memory_bytes,
                expected: self.memory_bytes,
            });
        }
        self.check_machine(header.machine)
    }

    /// The same of a file that does not say the size of its machine's memory.
    pub(super) fn check_name_and_machine(
        &self,
        name: &[u8; 16],
        machine: Digest,
    ) -> Result<(), SnapshotError> {
        self.check_name(name)?;
        self.check_machine(machine)
    }

    fn check_name(&self, name: &[u8; 16]) -> Result<(), SnapshotError> {
        if *name == self.name {
            return Ok(());
        }
        Err(SnapshotError::OtherRecording {
            found: Digest(*name).to_string(),
            expected: Digest(self.name).to_string(),
        })
    }

    fn check_machine(&self, machine: Digest) -> Result<(), SnapshotError> {
        if machine == self.machine {
            Ok(())
        } else {
            Err(SnapshotError::OtherMachine)
        }
    }
}

/// Reads the header of a snapshot. Its machine is not looked at.
///
/// # Errors
/// [`SnapshotError`].
pub fn read_header(source: &mut impl Read) -> Result<Header, SnapshotError> {
    let mut bytes = [0; HEADER_BYTES];
    fill(source, &mut bytes, HEADER)?;
    Header::decode(&bytes)
}

/// Reads a snapshot of `recording`.
///
/// # Errors
/// [`SnapshotError`]: whatever is not exactly one whole snapshot of it.
pub fn read(source: &mut impl Read, recording: &Recording) -> Result<(Header, Received), SnapshotError> {
    let header = read_header(source)?;
    recording.check(&header)?;
    let received = read_body(source, &header)?;
    if !is_over(source)? {
        return Err(SnapshotError::BehindEnd);
    }
    check_place(&header, &received)?;
    Ok((header, *received))
}

fn read_body(source: &mut impl Read, header: &Header) -> Result<Box<Received>, SnapshotError> {
    let mut receiver = Receiver::new(header.recording, header.memory_bytes);
    let mut digest = blake3::Hasher::new();
    let mut left = header.body_bytes;
    let mut received = None;
    let mut record = Vec::new();
    while left > 0 {
        let mut length = [0; LENGTH_BYTES];
        fill(source, &mut length, BODY)?;
        let bytes = u64::from(u32::from_le_bytes(length));
        let bytes_max = left
            .saturating_sub(LENGTH_BYTES as u64)
            .min(RECORD_BYTES_MAX as u64);
        if bytes == 0 || bytes > bytes_max {
            return Err(SnapshotError::Frame { bytes, bytes_max });
        }
        record.resize(bytes as usize, 0);
        fill(source, &mut record, BODY)?;
        digest.update(&length).update(&record);
        left -= LENGTH_BYTES as u64 + bytes;
        if let Taken::All(all) = receiver.take(&record)? {
            received = Some(all);
        }
    }
    if Digest::from_hash(&digest.finalize()) != header.body {
        return Err(SnapshotError::Damaged { part: BODY });
    }
    received.ok_or_else(|| receiver.cut().into())
}

/// The header says where the machine is; the machine has to say the same.
fn check_place(header: &Header, received: &Received) -> Result<(), SnapshotError> {
    let Received {
        machine, position, ..
    } = received;
    let place = header.place;
    let fields = [
        ("entry", place.entry, position.sequence.saturating_add(1)),
        ("exit", place.exits, machine.position.exits),
        ("instruction", place.instructions, machine.position.instructions),
        ("guest time", place.guest_ns, position.monotonic_ns),
    ];
    match fields.into_iter().find(|(_, header, machine)| header != machine) {
        None => Ok(()),
        Some((field, header, machine)) => Err(SnapshotError::Contradiction {
            field,
            header,
            machine,
        }),
    }
}

/// Fills `bytes`, which are in the `part` of the snapshot.
pub(super) fn fill(
    source: &mut impl Read,
    bytes: &mut [u8],
    part: &'static str,
) -> Result<(), SnapshotError> {
    source.read_exact(bytes).map_err(|why| match why.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotError::Cut { part },
        _ => SnapshotError::Read(why),
    })
}

/// True where nothing is left.
pub(super) fn is_over(source: &mut impl Read) -> Result<bool, SnapshotError> {
    match fill(source, &mut [0], BODY) {
        Ok(()) => Ok(false),
        Err(SnapshotError::Cut { .. }) => Ok(true),
        Err(why) => Err(why),
    }
}
