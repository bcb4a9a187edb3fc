//! Log entries on their way to the role machine, in batches.
//!
//! A batch is cut by bytes, also between entries of one execution point: a guest that says or is
//! given much at one exit must not make a batch that fills the channel, or more than the window.
//! A record that is larger than that has a batch of its own. A batch is cut by what its outputs
//! take too: the backup keeps them until they have left.

use lockstep_logging_channel::{Body, Entry, LogError, RECORD_BYTES_MAX, Sequence, codec};

use super::mutant::{self, Mutant};
use super::role::{Batch, Input, Output, WINDOW_BYTES_MIN};
use crate::machine::devices::virtio::net::FRAME_BYTES_MAX;

/// The most bytes of several entries in a batch.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

// A batch always fits the window, whichever of the two it is.
const _: () =
    assert!(BATCH_BYTES_MAX as u64 <= WINDOW_BYTES_MIN && RECORD_BYTES_MAX as u64 <= WINDOW_BYTES_MIN);

/// Bytes that an output takes in a gate beside its own, at most: its place in the queue (72 bytes)
/// and what an allocation is rounded up to. So many small outputs count for what they are.
pub const OUTPUT_BYTES_MIN: u64 = 128;

/// Bytes of the number by which a request for a shared disk goes through a gate.
const DISK_NUMBER_BYTES: u64 = 8;

/// The most bytes of outputs in a batch, as counted by [`output_bytes`].
pub const BATCH_OUTPUT_BYTES_MAX: usize = 128 * 1024;

// The longest output is a frame: one alone is never more than what a batch may have.
const _: () = assert!(FRAME_BYTES_MAX as u64 + OUTPUT_BYTES_MIN <= BATCH_OUTPUT_BYTES_MAX as u64);

/// Bytes that the output of this entry takes in a gate; 0 where it has none.
#[must_use]
pub fn output_bytes(entry: &Entry) -> u64 {
    match &entry.body {
        Body::Output(output) => OUTPUT_BYTES_MIN + u64::from(output.length),
        Body::HeldOutput(output) => OUTPUT_BYTES_MIN + output.bytes.len() as u64,
        Body::DiskWrite(_) => OUTPUT_BYTES_MIN + DISK_NUMBER_BYTES,
        _ => 0,
    }
}

/// Entries, and the outputs among them, that are not handed over yet.
#[derive(Debug)]
pub struct Batcher<O> {
    encoded: Vec<u8>,
    first: Option<Sequence>,
    last: Sequence,
    exits: u64,
    ends: bool,
    /// It has a common point, behind which the guest may run for long.
    has_common_point: bool,
    output_bytes: u64,
    outputs: Vec<Output<O>>,
}

impl<O> Default for Batcher<O> {
    fn default() -> Self {
        Self {
            encoded: Vec::new(),
            first: None,
            last: Sequence(0),
            exits: 0,
            ends: false,
            has_common_point: false,
            output_bytes: 0,
            outputs: Vec::new(),
        }
    }
}

impl<O> Batcher<O> {
    /// Takes an entry. Gives what was there before, where both are too much for one batch.
    ///
    /// `encodes`: there is a peer to send it to; else the batch has no bytes.
    ///
    /// # Errors
    /// [`LogError::Oversized`].
    pub fn append(&mut self, entry: &Entry, encodes: bool) -> Result<Option<Input<Vec<u8>, O>>, LogError> {
        let start = self.encoded.len();
        if encodes {
            codec::encode_entry(entry, &mut self.encoded)?;
        }
        let output_bytes = output_bytes(entry);
        let is_much = self.encoded.len() > BATCH_BYTES_MAX
            || self.output_bytes + output_bytes > BATCH_OUTPUT_BYTES_MAX as u64;
        let cut = !self.is_empty() && is_much && !mutant::is(Mutant::NeverCutBatches);
        let full = cut.then(|| {
            let mut entry = self.encoded.split_off(start);
            if mutant::is(Mutant::RepeatAtBorder) {
                self.encoded.extend_from_slice(&entry);
            }
            let full = self.take();
            if mutant::is(Mutant::LoseAtBorder) {
                entry.clear();
            }
            self.encoded = entry;
            full
        });
        self.first.get_or_insert(entry.sequence);
        self.last = entry.sequence;
        self.exits = entry.point.exits;
        self.ends = matches!(entry.body, Body::End(_));
        self.has_common_point |= matches!(entry.body, Body::CommonPoint(_));
        self.output_bytes += output_bytes;
        Ok(full.flatten())
    }

    /// Takes an output of the entry that was appended last.
    pub fn output(&mut self, output: Output<O>) {
        self.outputs.push(output);
    }

    /// Everything there is, for the role machine; `None` where there is nothing.
    pub fn take(&mut self) -> Option<Input<Vec<u8>, O>> {
        let first = self.first.take()?;
        let capacity = self.encoded.capacity().min(BATCH_BYTES_MAX);
        let entries = std::mem::replace(&mut self.encoded, Vec::with_capacity(capacity));
        let batch = Batch {
            first,
            last: self.last,
            exits: self.exits,
            ends: self.ends,
            bytes: entries.len() as u64,
            output_bytes: std::mem::take(&mut self.output_bytes),
            entries,
        };
        let outputs = std::mem::take(&mut self.outputs);
        self.has_common_point = false;
        Some(Input::Appended { batch, outputs })
    }

    /// True where there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// True where there is an output, a common point, or as much as a batch may have.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.outputs.is_empty() || self.has_common_point || self.encoded.len() >= BATCH_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::{
        DeviceId, Digest, Event, EventKind, ExecutionPoint, Generation, OutputDigest, OutputTarget,
    };

    fn frame(sequence: u64, bytes: usize) -> Entry {
        Entry {
            generation: Generation(1),
            sequence: Sequence(sequence),
            point: ExecutionPoint {
                exits: 7,
                ..ExecutionPoint::default()
            },
            body: Body::Event(Event {
                device: DeviceId(4),
                monotonic_ns: 0,
                kind: EventKind::Frame(vec![0; bytes]),
            }),
        }
    }

    /// First and last entry, bytes, and outputs of each batch that comes of `entries` of one
    /// execution point.
    fn batches(entries: &[Entry]) -> Vec<(u64, u64, u64, Vec<u64>)> {
        let mut batcher = Batcher::default();
        let mut given = Vec::new();
        for entry in entries {
            given.extend(batcher.append(entry, true).unwrap());
            batcher.output(Output {
                sequence: entry.sequence,
                bytes: 1,
                payload: entry.sequence.0,
            });
        }
        given.extend(batcher.take());
        let shape = |input| match input {
            Input::Appended { batch, outputs } => {
                let outputs = outputs.into_iter().map(|output| output.payload).collect();
                (batch.first.0, batch.last.0, batch.bytes, outputs)
            }
            other => panic!("{other:?}"),
        };
        given.into_iter().map(shape).collect()
    }

    #[test]
    fn small_entries_of_one_point_are_one_batch() {
        let found = batches(&[frame(1, 10), frame(2, 10), frame(3, 10)]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1), (1, 3));
        assert_eq!(found[0].3, [1, 2, 3]);
    }

    #[test]
    fn a_batch_is_cut_within_one_execution_point() {
        let entries: Vec<_> = (1..=256).map(|sequence| frame(sequence, 65_550)).collect();
        let found = batches(&entries);
        assert_eq!(found.len(), 256);
        let largest = found.iter().map(|(_, _, bytes, _)| *bytes).max().unwrap();
        assert!(largest <= RECORD_BYTES_MAX as u64, "{largest}");
    }

    #[test]
    fn no_batch_of_several_entries_is_larger_than_it_may_be() {
        let entries: Vec<_> = (1..=100).map(|sequence| frame(sequence, 1_500)).collect();
        let found = batches(&entries);
        assert!(
            found
                .iter()
                .all(|(_, _, bytes, _)| *bytes <= BATCH_BYTES_MAX as u64)
        );
        assert!(found.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
        let outputs: Vec<_> = found.iter().flat_map(|batch| batch.3.clone()).collect();
        assert_eq!(outputs, (1..=100).collect::<Vec<_>>());
    }

    /// The last entry of each batch that comes of outputs of such lengths, and what its outputs
    /// take.
    fn batches_of_outputs(lengths: &[u32]) -> Vec<(u64, u64)> {
        let mut batcher = Batcher::<()>::default();
        let mut given = Vec::new();
        for (sequence, length) in (1..).zip(lengths) {
            let output = OutputDigest {
                target: OutputTarget::network(DeviceId(4)),
                length: *length,
                digest: Digest::of(&[]),
            };
            let entry = Entry {
                body: Body::Output(output),
                ..frame(sequence, 0)
            };
            given.extend(batcher.append(&entry, true).unwrap());
        }
        given.extend(batcher.take());
        let shape = |input| match input {
            Input::Appended { batch, .. } => (batch.last.0, batch.output_bytes),
            other => panic!("{other:?}"),
        };
        given.into_iter().map(shape).collect()
    }

    #[test]
    fn a_batch_is_cut_by_what_its_outputs_take() {
        let (most, own) = (BATCH_OUTPUT_BYTES_MAX as u64, OUTPUT_BYTES_MIN);
        let half = (most / 2 - own) as u32;
        assert_eq!(batches_of_outputs(&[half, half]), [(2, most)]);
        assert_eq!(
            batches_of_outputs(&[half, half, 0]),
            [(2, most), (3, own)],
            "one without a byte takes room too"
        );
        let (left, right) = (most / 2, most / 2 + 1);
        assert_eq!(batches_of_outputs(&[half, half + 1]), [(1, left), (2, right)]);
    }

    #[test]
    fn outputs_stay_with_their_entries() {
        let entries: Vec<_> = (1..=100).map(|sequence| frame(sequence, 1_500)).collect();
        for (first, last, _, outputs) in batches(&entries) {
            assert_eq!(outputs, (first..=last).collect::<Vec<_>>());
        }
    }
}
