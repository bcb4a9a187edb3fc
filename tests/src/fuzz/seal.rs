//! Makes bytes into records that are sound from outside, so that their bodies are really looked at.

use crc_fast::{CrcAlgorithm, checksum};
use lockstep_logging_channel::codec::{COMPACT_FRAME_BYTES, COMPACT_MARK, MAGIC, RECORD_BYTES_MIN};
use lockstep_logging_channel::{FORMAT_VERSION, HEADER_BYTES, Kind};

/// `bytes` as records one after the other: fields that only say "this is a record" are made right,
/// lengths are kept within what is there, checksums are computed. Sound records stay as they are;
/// fewer bytes than a header do too.
#[must_use]
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    let mut at = 0;
    loop {
        at += match sealed[at..].first() {
            Some(&COMPACT_MARK) if sealed.len() - at >= RECORD_BYTES_MIN => seal_compact(&mut sealed[at..]),
            Some(_) if sealed.len() - at >= HEADER_BYTES => seal_first(&mut sealed[at..]),
            _ => return sealed,
        };
    }
}

/// Seals the compact record at the front of `bytes`; its length.
fn seal_compact(bytes: &mut [u8]) -> usize {
    let claimed = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], 0]) as usize;
    let frame = COMPACT_FRAME_BYTES;
    let length = claimed.clamp(RECORD_BYTES_MIN - frame, bytes.len() - frame);
    let record = &mut bytes[..frame + length];
    record[1..frame].copy_from_slice(&(length as u32).to_le_bytes()[..3]);
    let (content, sum) = record.split_at_mut(length);
    sum.copy_from_slice(&(checksum(CrcAlgorithm::Crc32Iscsi, content) as u32).to_le_bytes());
    record.len()
}

/// Seals the record at the front of `bytes`, which hold a header at least; its length.
fn seal_first(bytes: &mut [u8]) -> usize {
    let claimed = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize;
    let length = claimed.min(bytes.len() - HEADER_BYTES);
    let record = &mut bytes[..HEADER_BYTES + length];
    let number = u16::from_le_bytes([record[6], record[7]]);
    let any = Kind::ALL[usize::from(number) % Kind::ALL.len()];
    let kind = Kind::from_number(number).unwrap_or(any);
    record[..4].copy_from_slice(&MAGIC);
    record[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    record[6..8].copy_from_slice(&kind.number().to_le_bytes());
    record[8..12].fill(0);
    record[12..16].copy_from_slice(&(length as u32).to_le_bytes());
    record[52..56].fill(0);
    let sum = checksum(CrcAlgorithm::Crc32Iscsi, record) as u32;
    record[52..56].copy_from_slice(&sum.to_le_bytes());
    record.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::message::Goodbye;
    use lockstep_logging_channel::{
        Body, Entry, ExecutionPoint, Generation, Message, Sequence, Value, codec,
    };

    fn goodbyes(reasons: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for reason in reasons {
            let goodbye = Goodbye {
                reason: (*reason).to_owned(),
            };
            codec::encode_message(&Message::Goodbye(goodbye), &mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn sound_records_stay_as_they_are() {
        let records = goodbyes(&["one", "two"]);
        assert_eq!(sealed(&records), records);
    }

    #[test]
    fn a_compact_record_is_sealed_too() {
        let entry = Entry {
            generation: Generation(1),
            sequence: Sequence(300),
            point: ExecutionPoint::default(),
            body: Body::Value(Value::Tsc(7)),
        };
        let mut bytes = Vec::new();
        codec::encode_entry(&entry, &mut bytes).unwrap();
        assert_eq!(sealed(&bytes), bytes);
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        changed[1] = 0xff;
        assert!(codec::decode(&changed).is_err());
        assert_eq!(sealed(&changed), bytes);
    }

    #[test]
    fn a_changed_body_is_decoded() {
        let mut records = goodbyes(&["one"]);
        records[HEADER_BYTES + 1] = b'O';
        assert!(codec::decode(&records).is_err());
        let (record, _) = codec::decode(&sealed(&records)).unwrap();
        assert_eq!(record, codec::decode(&goodbyes(&["One"])).unwrap().0);
    }

    #[test]
    fn a_length_beyond_the_end_is_kept_within() {
        let mut records = goodbyes(&["one"]);
        records[12..16].fill(0xff);
        assert_eq!(sealed(&records), goodbyes(&["one"]));
    }
}
