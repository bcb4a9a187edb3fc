//! Records that came over the channel, ready for the role machine: consecutive entries are one
//! batch.

use crate::replica::cpu::Carried;
use crate::replica::output_bytes;
use crate::replica::role::Batch;
use lockstep_logging_channel::{Body, Entry, Message, Record};
use std::iter::Peekable;

/// Something the peer sent.
#[derive(Debug)]
pub enum Received {
    /// It said this.
    Message(Message),
    /// It sent these entries.
    Entries(Batch<Carried>),
}

/// Converts `records` with their sizes in bytes into messages and batches, in order.
#[must_use]
pub fn together(records: Vec<(Record, u64)>) -> Vec<Received> {
    let mut records = records.into_iter().peekable();
    let mut received = Vec::new();
    while let Some((record, record_bytes)) = records.next() {
        received.push(match record {
            Record::Message(message) => Received::Message(message),
            Record::Entry(entry) => Received::Entries(batch(entry, record_bytes, &mut records)),
        });
    }
    received
}

/// `first` and the entries right behind it.
fn batch(
    first: Entry,
    record_bytes: u64,
    records: &mut Peekable<impl Iterator<Item = (Record, u64)>>,
) -> Batch<Carried> {
    let mut batch = Batch {
        first: first.sequence,
        last: first.sequence,
        exits: 0,
        ends: false,
        bytes: record_bytes,
        output_bytes: output_bytes(&first),
        entries: Carried::Decoded(Vec::new()),
    };
    let mut entries = vec![first];
    while let Some((Record::Entry(entry), record_bytes)) =
        records.next_if(|(record, _)| matches!(record, Record::Entry(_)))
    {
        batch.bytes += record_bytes;
        batch.output_bytes += output_bytes(&entry);
        entries.push(entry);
    }
    if let Some(last) = entries.last() {
        batch.last = last.sequence;
        batch.exits = last.point.exits;
        batch.ends = matches!(last.body, Body::End(_));
    }
    batch.entries = Carried::Decoded(entries);
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::batcher::OUTPUT_BYTES_MIN;
    use lockstep_logging_channel::message::Goodbye;
    use lockstep_logging_channel::{
        DeviceId, Digest, ExecutionPoint, Generation, OutputDigest, OutputTarget, Sequence, Value,
    };

    fn entry(sequence: u64) -> (Record, u64) {
        let point = ExecutionPoint {
            exits: 10 * sequence,
            ..ExecutionPoint::default()
        };
        let entry = Entry {
            generation: Generation(1),
            sequence: Sequence(sequence),
            point,
            body: Body::Value(Value::Monotonic(sequence)),
        };
        (Record::Entry(entry), 60)
    }

    fn with_number(sequence: u64) -> (Record, u64) {
        let (mut record, bytes) = entry(0);
        if let Record::Entry(entry) = &mut record {
            entry.sequence = Sequence(sequence);
        }
        (record, bytes)
    }

    fn message() -> (Record, u64) {
        let reason = "enough".to_owned();
        (Record::Message(Message::Goodbye(Goodbye { reason })), 70)
    }

    /// Shape of the result: the first and last entry, exits and bytes of each batch; none for a
    /// message.
    fn shape(records: Vec<(Record, u64)>) -> Vec<Option<(u64, u64, u64, u64)>> {
        let batches = together(records).into_iter().map(|received| match received {
            Received::Message(_) => None,
            Received::Entries(batch) => Some((batch.first.0, batch.last.0, batch.exits, batch.bytes)),
        });
        batches.collect()
    }

    #[test]
    fn entries_that_lie_together_are_one_batch() {
        assert_eq!(shape(vec![entry(3), entry(4), entry(5)]), [Some((3, 5, 50, 180))]);
    }

    #[test]
    fn a_batch_counts_its_entries_whatever_their_numbers() {
        for (records, count) in [
            (vec![entry(3), entry(4)], 2),
            (vec![with_number(u64::MAX)], 1),
            (vec![with_number(u64::MAX), with_number(u64::MAX)], 1),
        ] {
            let received = together(records);
            assert!(
                matches!(&received[..], [Received::Entries(batch)] if batch.count() == count),
                "{received:?}"
            );
        }
    }

    #[test]
    fn a_batch_counts_what_its_outputs_take() {
        let output = |sequence, length| {
            let (mut record, bytes) = entry(sequence);
            if let Record::Entry(entry) = &mut record {
                let (target, digest) = (OutputTarget::network(DeviceId(4)), Digest::of(&[]));
                entry.body = Body::Output(OutputDigest {
                    target,
                    length,
                    digest,
                });
            }
            (record, bytes)
        };
        let records = vec![output(3, 1_000), entry(4), output(5, 500)];
        assert!(matches!(
            &together(records)[..],
            [Received::Entries(Batch { output_bytes, .. })] if *output_bytes == 1_500 + 2 * OUTPUT_BYTES_MIN
        ));
    }

    #[test]
    fn a_message_parts_them_and_the_order_stays() {
        assert_eq!(
            shape(vec![message(), entry(3), message(), entry(4), entry(5)]),
            [None, Some((3, 3, 30, 60)), None, Some((4, 5, 50, 120))]
        );
    }
}
