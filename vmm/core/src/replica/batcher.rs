//! Log entries on their way to the role machine, in batches.
//!
//! A batch is cut by bytes, also between entries of one execution point: a guest that says or is given much at one exit
//! must not make a batch that fills the channel, or more than the window. What is in a batch of its own is one record
//! that is larger than that.

use lockstep_logging_channel::{Body, Entry, LogError, RECORD_BYTES_MAX, Sequence, codec};

use super::mutant::{self, Mutant};
use super::role::{Batch, Input, Output, WINDOW_BYTES_MIN};

/// The most bytes of several entries in a batch.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

// A batch always fits the window, whichever of the two it is.
const _: () =
    assert!(BATCH_BYTES_MAX as u64 <= WINDOW_BYTES_MIN && RECORD_BYTES_MAX as u64 <= WINDOW_BYTES_MIN);

/// Entries, and the outputs among them, that are not handed over yet.
#[derive(Debug)]
pub struct Batcher<O> {
    encoded: Vec<u8>,
    first: Option<Sequence>,
    last: Sequence,
    exits: u64,
    ends: bool,
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
        let cut = start > 0 && self.encoded.len() > BATCH_BYTES_MAX && !mutant::is(Mutant::NeverCutBatches);
        let full = cut.then(|| {
            let entry = self.encoded.split_off(start);
            let full = self.take();
            self.encoded = entry;
            full
        });
        self.first.get_or_insert(entry.sequence);
        self.last = entry.sequence;
        self.exits = entry.point.exits;
        self.ends = matches!(entry.body, Body::End(_));
        Ok(full.flatten())
    }

    /// Takes the output of the entry that was appended last.
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
            entries,
        };
        let outputs = std::mem::take(&mut self.outputs);
        Some(Input::Appended { batch, outputs })
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether there is an output, or as much as a batch may have.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.outputs.is_empty() || self.encoded.len() >= BATCH_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::{Event, EventKind, ExecutionPoint, Generation};

    fn frame(sequence: u64, bytes: usize) -> Entry {
        Entry {
            generation: Generation(1),
            sequence: Sequence(sequence),
            point: ExecutionPoint {
                exits: 7,
                ..ExecutionPoint::default()
            },
            body: Body::Event(Event {
                monotonic_ns: 0,
                kind: EventKind::Frame(vec![0; bytes]),
            }),
        }
    }

    /// First and last entry, bytes, and outputs of each batch that comes of `entries` of one execution point.
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

    #[test]
    fn outputs_stay_with_their_entries() {
        let entries: Vec<_> = (1..=100).map(|sequence| frame(sequence, 1_500)).collect();
        for (first, last, _, outputs) in batches(&entries) {
            assert_eq!(outputs, (first..=last).collect::<Vec<_>>());
        }
    }
}
