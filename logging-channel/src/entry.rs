//! Log entries: what one record of the log says.
//!
//! An [`Entry`] is the decoded form; [`crate::codec`] gives its bytes. Kinds are append-only: a
//! number never changes its meaning, and the fields of a body are only ever added to by a new kind.

use lockstep_generation::Generation;
use serde::{Deserialize, Serialize};

/// Ordinal of an entry in its log, from 0 (the environment entry).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The sequence number after this one. The last there is stays: no log gets there, but a peer
    /// may say so.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Where in the execution something happens: exits so far, then instructions retired since the last
/// exit. `rip` is a check, not a coordinate: 0 where it was not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExecutionPoint {
    /// Exits of the guest's own making so far.
    pub exits: u64,
    /// Instructions retired since that exit.
    pub instructions: u64,
    /// Guest instruction pointer there, or 0 where it was not taken.
    pub rip: u64,
}

impl ExecutionPoint {
    /// The coordinates, which order points; `rip` is left out.
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        (self.exits, self.instructions)
    }
}

/// A device of a machine: its place on the machine's board, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId(pub u8);

impl std::fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "device {}", self.0)
    }
}

/// First 16 bytes of a BLAKE3 hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&blake3::hash(bytes))
    }

    /// The first half of a BLAKE3 hash computed elsewhere.
    #[must_use]
    pub fn from_hash(hash: &blake3::Hash) -> Self {
        let mut digest = [0; 16];
        for (to, from) in digest.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
        Self(digest)
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

/// One thing that must be the same on both sides, as text: its name and what it is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentField {
    /// Stable name, for example `guest image digest`.
    pub name: String,
    /// Its value here.
    pub value: String,
}

/// The first entry of every log: what the recording depends on. Compared field by field, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Random name of the pair (or of the recording), 16 bytes: names its claims on shared storage.
    pub pair: [u8; 16],
    /// Must be the same on the replaying side.
    pub compared: Vec<EnvironmentField>,
    /// Said for the reader of the log; never compared.
    pub informative: Vec<EnvironmentField>,
}

/// A field of the environment in which two sides differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentDifference {
    /// Name of the first differing field.
    pub name: String,
    /// Its value in the log, if it is there.
    pub recorded: Option<String>,
    /// Its value on this side, if it is there.
    pub here: Option<String>,
}

impl Environment {
    /// The first compared field in which `self` (the log) and `here` differ, in the order of the
    /// log.
    #[must_use]
    pub fn first_difference(&self, here: &Self) -> Option<EnvironmentDifference> {
        let value = |fields: &[EnvironmentField], name: &str| {
            fields
                .iter()
                .find(|field| field.name == name)
                .map(|field| field.value.clone())
        };
        let names = self
            .compared
            .iter()
            .chain(&here.compared)
            .map(|field| field.name.as_str());
        names
            .map(|name| EnvironmentDifference {
                name: name.to_owned(),
                recorded: value(&self.compared, name),
                here: value(&here.compared, name),
            })
            .find(|difference| difference.recorded != difference.here)
    }
}

/// An answer from outside to something the guest asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Time-stamp counter, in ticks.
    Tsc(u64),
    /// Guest monotonic time, in nanoseconds since the machine started.
    Monotonic(u64),
    /// Wall time, in nanoseconds since 1970-01-01 UTC.
    Wall(u64),
    /// Random bytes.
    Random(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// Something from outside that the guest did not ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// An Ethernet frame arrived.
    Frame(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A timer expired.
    Timer,
    /// Bytes were typed at a console.
    ConsoleInput(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A disk has done what it was asked. Never in a record of kind 7: it has kind 12.
    #[serde(skip)]
    Completion(Completion),
}

/// Request of a disk that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Ordinal of the request among those of its disk, from 0.
    pub number: u64,
    /// Result of it, where it is a read.
    pub read: ReadData,
}

/// Bytes that a disk has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadData {
    /// The request was no read.
    Nothing,
    /// Who replays reads them from a disk of its own.
    Digest(Digest),
    /// The bytes: who replays has no disk to read.
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// An event, the device at which it enters, and the guest monotonic time at which it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The device that takes it.
    pub device: DeviceId,
    /// Guest monotonic time of the arrival, in nanoseconds.
    pub monotonic_ns: u64,
    /// What arrived.
    pub kind: EventKind,
}

/// Sort of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OutputKind {
    /// An Ethernet frame for the network.
    Frame,
    /// Text for a console.
    Text,
    /// A request that changes a disk which two machines share. Never in a record of kind 8: its
    /// entry has kind 13.
    #[serde(skip)]
    Disk,
}

/// The device by which an output leaves, and with its sort where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutputTarget {
    /// The device.
    pub device: DeviceId,
    /// The sort.
    pub kind: OutputKind,
}

impl OutputTarget {
    /// The network behind this device.
    #[must_use]
    pub const fn network(device: DeviceId) -> Self {
        let kind = OutputKind::Frame;
        Self { device, kind }
    }

    /// The reader of this console.
    #[must_use]
    pub const fn console(device: DeviceId) -> Self {
        let kind = OutputKind::Text;
        Self { device, kind }
    }

    /// The shared disk behind this device.
    #[must_use]
    pub const fn disk(device: DeviceId) -> Self {
        let kind = OutputKind::Disk;
        Self { device, kind }
    }
}

/// What left the guest, without its bytes: a backup computes those itself, and compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputDigest {
    /// Its destination.
    pub target: OutputTarget,
    /// Bytes in it.
    pub length: u32,
    /// Digest of those bytes.
    pub digest: Digest,
}

/// A part of the machine and the digest of its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartDigest {
    /// Stable name: `registers`, `memory`, or a device's name.
    pub part: String,
    /// Digest of its saved form.
    pub digest: Digest,
}

/// A part of a common point that is being made: a piece of the sections of docs/saved-state.md.
/// Parts may come at any time, and change nothing before the [`CommonPoint`] that they belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Bytes of the piece before compression.
    pub raw_bytes: u32,
    /// The piece, as an LZ4 block.
    #[serde(with = "serde_bytes")]
    pub block: Vec<u8>,
}

/// A point of the execution that is no exit of the guest's own, at which the machine is what the
/// parts since the last one say. It counts as an exit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommonPoint {
    /// Number of the first part that the two below cover: who captured the machine in between has
    /// what earlier parts say.
    pub first: Sequence,
    /// Memory pages in parts from there on, each as often as it came.
    pub pages: u64,
    /// Digest of the digests of the sections in parts from there on, in their order.
    pub sections: Digest,
}

/// Something that left a guest whose backup does not replay it: the backup cannot compute its
/// bytes. It leaves with the next [`CommonPoint`], or with the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldOutput {
    /// Its destination.
    pub target: OutputTarget,
    /// The bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Request that is to leave for a disk which two machines share: a backup computes it itself, and
/// compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskWrite {
    /// The disk.
    pub device: DeviceId,
    /// Ordinal of the request among those of its disk, from 0.
    pub number: u64,
    /// Digest of the operation and its bytes.
    pub digest: Digest,
}

/// Request that a disk of the machine's own has done, whose backup does not run the guest and has an
/// image of its own. It counts with the next [`CommonPoint`], or with the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskChange {
    /// The disk.
    pub device: DeviceId,
    /// Ordinal of the request among those of its disk, from 0.
    pub number: u64,
    /// What was done.
    pub change: Change,
}

/// What a request has changed on a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Bytes were written.
    Written {
        /// Place of the first.
        offset_bytes: u64,
        /// They themselves.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// What was done before was made durable.
    Flushed,
    /// Bytes were discarded, and are zeros.
    Discarded {
        /// Place of the first.
        offset_bytes: u64,
        /// Their number.
        length_bytes: u64,
    },
    /// Bytes were made zeros.
    Zeroed {
        /// Place of the first.
        offset_bytes: u64,
        /// Their number.
        length_bytes: u64,
        /// They need no room on the medium.
        may_unmap: bool,
    },
}

/// Why a log ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The guest powered off with this status.
    PoweredOff(u32),
    /// The recording was stopped from outside (a signal, a limit).
    Stopped,
    /// The guest did what a machine cannot go on from: the text says what.
    GuestFault(String),
}

/// The last entry of a complete log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Why it ended.
    pub reason: EndReason,
    /// Digests of every part at the end, memory among them.
    pub parts: Vec<PartDigest>,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Kind 1.
    Environment(Environment),
    /// Kind 2.
    Value(Value),
    /// Kind 7; kind 12 where a disk has done something.
    Event(Event),
    /// Kind 8.
    Output(OutputDigest),
    /// Kind 5: digests of registers and devices at an interval.
    Digests(Vec<PartDigest>),
    /// Kind 6.
    End(End),
    /// Kind 9.
    Part(Part),
    /// Kind 10.
    CommonPoint(CommonPoint),
    /// Kind 11.
    HeldOutput(HeldOutput),
    /// Kind 13.
    DiskWrite(DiskWrite),
    /// Kind 14.
    DiskChange(DiskChange),
}

impl Body {
    /// The device at which an event entered, or by which an output left.
    #[must_use]
    pub fn device(&self) -> Option<DeviceId> {
        match self {
            Self::Event(event) => Some(event.device),
            Self::Output(output) => Some(output.target.device),
            Self::HeldOutput(output) => Some(output.target.device),
            Self::DiskWrite(write) => Some(write.device),
            Self::DiskChange(change) => Some(change.device),
            Self::Environment(_)
            | Self::Value(_)
            | Self::Digests(_)
            | Self::End(_)
            | Self::Part(_)
            | Self::CommonPoint(_) => None,
        }
    }
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The regime it was written in.
    pub generation: Generation,
    /// Its place in the log.
    pub sequence: Sequence,
    /// Its place in the execution.
    pub point: ExecutionPoint,
    /// What it says.
    pub body: Body,
}
