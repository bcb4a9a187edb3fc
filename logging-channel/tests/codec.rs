//! Records as bytes and back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use common::{
    Random, encoded, encoded_message, entries, entry, event, later_entries, messages, output, seal,
};
use lockstep_logging_channel::message::{Beginning, FollowsBy};
use lockstep_logging_channel::{
    BODY_BYTES_MAX, Body, DeviceId, Event, EventKind, FORMAT_VERSION, Generation, HEADER_BYTES, Kind,
    LogError, Message, OutputTarget, RECORD_BYTES_MAX, Record, codec, message,
};
use std::collections::BTreeSet;

/// The bytes of every record of [`entries`] and [`messages`] in version 1, one a line, and of what
/// was only read there.
const GOLDEN_1: &str = include_str!("golden/records-1.hex");
/// The same in version 2, without the latter.
const GOLDEN_2: &str = include_str!("golden/records-2.hex");

fn error(bytes: &[u8]) -> LogError {
    codec::decode(bytes).unwrap_err()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The golden records of version 1, each with its kind.
fn golden() -> impl Iterator<Item = (Kind, Vec<u8>)> {
    GOLDEN_1.lines().map(|line| {
        let record = hex::decode(line).unwrap();
        let number = u16::from_le_bytes([record[6], record[7]]);
        (Kind::from_number(number).unwrap(), record)
    })
}

fn all_records() -> Vec<Vec<u8>> {
    let messages = messages();
    [entries(), later_entries()]
        .concat()
        .iter()
        .map(encoded)
        .chain(messages.iter().map(encoded_message))
        .collect()
}

#[test]
fn every_entry_and_message_comes_back() {
    for entry in [entries(), later_entries()].concat() {
        let bytes = encoded(&entry);
        assert_eq!(
            codec::decode(&bytes).unwrap(),
            (Record::Entry(entry), bytes.len())
        );
    }
    for message in messages() {
        let bytes = encoded_message(&message);
        assert_eq!(
            codec::decode(&bytes).unwrap(),
            (Record::Message(message), bytes.len())
        );
    }
}

/// A difference here is a change of the format: it needs a new kind or a new format version, and
/// the golden bytes that are there stay.
#[test]
fn the_bytes_of_every_kind_are_what_they_were() {
    let golden: BTreeSet<_> = GOLDEN_2.lines().map(str::to_owned).collect();
    let found: BTreeSet<_> = all_records().iter().map(|record| hex(record)).collect();
    assert_eq!(golden, found);
}

#[test]
fn records_of_the_first_version_say_what_those_of_this_one_say() {
    let said = |record: Vec<u8>| format!("{:?}", codec::decode(&record).unwrap().0);
    let mut first: Vec<_> = golden().collect();
    first.retain(|(kind, _)| kind.read_as() == *kind);
    let first: BTreeSet<_> = first.into_iter().map(|(_, record)| said(record)).collect();
    let now: BTreeSet<_> = GOLDEN_2
        .lines()
        .map(|line| said(hex::decode(line).unwrap()))
        .collect();
    assert_eq!(first, now);
}

#[test]
fn an_entry_is_less_than_half_as_long_as_it_was() {
    let with_header = golden().find(|(kind, _)| *kind == Kind::DiskCompletion);
    let compact = encoded(&later_entries()[3]);
    assert!(
        2 * compact.len() < with_header.unwrap().1.len(),
        "{} bytes",
        compact.len()
    );
}

#[test]
fn events_and_outputs_without_a_device_are_read_as_those_of_the_only_board_there_was() {
    let bodies = golden().filter(|(kind, _)| kind.read_as() != *kind && kind.is_entry());
    let bodies: Vec<_> = bodies
        .map(|(_, record)| codec::decode_entry(&record).unwrap().0.body)
        .collect();
    let event = |device, kind| {
        Body::Event(Event {
            device: DeviceId(device),
            monotonic_ns: 2_000_000,
            kind,
        })
    };
    let expected = [
        event(4, EventKind::Frame(vec![0xaa; 20])),
        event(1, EventKind::Timer),
        event(3, EventKind::ConsoleInput(b"hi\n".to_vec())),
        output(OutputTarget::network(DeviceId(4))),
        output(OutputTarget::console(DeviceId(3))),
    ];
    assert_eq!(bodies, expected);
}

#[test]
fn a_beginning_that_does_not_say_how_it_is_followed_is_followed_by_replay() {
    let short = golden().find(|(kind, _)| *kind == Kind::ShortBeginning);
    let (_, record) = short.unwrap();
    let expected = Message::Beginning(Beginning::joining(Generation(300), FollowsBy::Replay));
    let length = record.len();
    assert_eq!(
        codec::decode(&record).unwrap(),
        (Record::Message(expected), length)
    );
}

#[test]
fn the_samples_show_every_kind() {
    let kinds: Vec<_> = golden().map(|(kind, _)| kind).collect();
    assert!(Kind::ALL.iter().all(|kind| kinds.contains(kind)));
}

#[test]
fn every_flipped_bit_is_noticed() {
    for record in all_records() {
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(codec::decode(&damaged).is_err(), "bit {bit} of {}", hex(&record));
        }
    }
}

#[test]
fn every_cut_is_a_truncation() {
    for record in all_records() {
        for length in 0..record.len() {
            let cut = error(&record[..length]);
            assert!(
                matches!(cut, LogError::Truncated { available, .. } if available == length),
                "{cut}"
            );
        }
    }
}

#[test]
fn a_record_is_taken_from_the_front() {
    let (first, second) = (encoded(&entries()[0]), encoded(&entries()[1]));
    let both = [first.clone(), second].concat();
    assert_eq!(codec::decode(&both).unwrap().1, first.len());
}

#[test]
fn foreign_bytes_are_named_from_the_first_one_on() {
    assert!(matches!(error(b"GET / HTTP/1.1"), LogError::NotALog { found } if &found == b"GET "));
    assert!(matches!(error(b"G"), LogError::NotALog { found } if &found == b"G\0\0\0"));
}

#[test]
fn another_format_version_is_named() {
    let mut record = encoded(&entries()[0]);
    record[4] += 1;
    let (found, supported) = (FORMAT_VERSION + 1, FORMAT_VERSION);
    assert!(
        matches!(error(&record), LogError::FormatVersion { found: f, supported: s } if (f, s) == (found, supported))
    );
}

#[test]
fn an_oversized_body_is_refused_by_its_header() {
    let mut header = encoded(&entries()[0])[..HEADER_BYTES].to_vec();
    header[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        error(&header),
        LogError::Oversized {
            length: 0xffff_ffff,
            max: BODY_BYTES_MAX
        }
    ));
}

#[test]
fn unknown_flags_and_kinds_are_refused_in_sound_records() {
    let mut flagged = encoded(&entries()[0]);
    flagged[8] = 1;
    seal(&mut flagged);
    assert!(matches!(
        error(&flagged),
        LogError::UnknownFlags {
            flags: 1,
            reserved: 0
        }
    ));

    let mut reserved = encoded(&entries()[0]);
    reserved[11] = 1;
    seal(&mut reserved);
    assert!(matches!(
        error(&reserved),
        LogError::UnknownFlags {
            flags: 0,
            reserved: 0x100
        }
    ));

    let mut strange = encoded(&entries()[0]);
    strange[6] = 200;
    seal(&mut strange);
    assert!(matches!(error(&strange), LogError::UnknownKind { kind: 200 }));
}

#[test]
fn a_body_longer_than_its_structure_is_malformed() {
    let mut record = encoded(&entries()[0]);
    record.push(0);
    record[12] += 1;
    seal(&mut record);
    assert!(matches!(
        error(&record),
        LogError::Malformed {
            kind: Kind::Environment
        }
    ));
}

#[test]
fn a_message_has_no_place_in_a_log() {
    let mut record = encoded_message(&messages()[4]);
    record[16] = 1;
    seal(&mut record);
    assert!(matches!(
        error(&record),
        LogError::Malformed {
            kind: Kind::Acknowledge
        }
    ));
    let misplaced = codec::decode_entry(&encoded_message(&messages()[4])).unwrap_err();
    assert!(matches!(
        misplaced,
        LogError::Misplaced {
            found: Kind::Acknowledge,
            ..
        }
    ));
}

#[test]
fn what_is_too_large_is_not_encoded_and_leaves_nothing() {
    let mut out = vec![1, 2, 3];
    let large = entry(1, 1, event(EventKind::Frame(vec![0; BODY_BYTES_MAX])));
    assert!(matches!(
        codec::encode_entry(&large, &mut out),
        Err(LogError::Oversized { .. })
    ));
    let words = Message::Goodbye(message::Goodbye {
        reason: "x".repeat(BODY_BYTES_MAX),
    });
    assert!(matches!(
        codec::encode_message(&words, &mut out),
        Err(LogError::Oversized { .. })
    ));
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn the_largest_frame_fits() {
    let largest = entry(1, 1, event(EventKind::Frame(vec![0xee; 65_550])));
    let bytes = encoded(&largest);
    assert_eq!(codec::decode_entry(&bytes).unwrap(), (largest, bytes.len()));
}

#[test]
fn random_bytes_give_errors_and_never_a_panic() {
    let mut random = Random::seeded();
    for _ in 0..20_000 {
        let length = random.below(200);
        let mut bytes = random.bytes(length);
        for (to, from) in bytes.iter_mut().zip(b"LSTP\x01\0") {
            *to = *from;
        }
        assert!(codec::decode(&bytes).is_err());
    }
}

/// The checksum is right, so that the bodies are really looked at.
#[test]
fn random_bodies_never_panic_and_are_never_longer_than_said() {
    let mut random = Random::seeded();
    for _ in 0..20_000 {
        let kind = Kind::ALL[random.below(Kind::ALL.len())];
        let length = random.below(64);
        let mut bytes = [vec![0; HEADER_BYTES], random.bytes(length)].concat();
        bytes[..6].copy_from_slice(b"LSTP\x01\0");
        bytes[6..8].copy_from_slice(&kind.number().to_le_bytes());
        bytes[12..16].copy_from_slice(&(length as u32).to_le_bytes());
        seal(&mut bytes);
        match codec::decode(&bytes) {
            Ok((record, taken)) => assert_eq!((record.kind(), taken), (kind.read_as(), bytes.len())),
            Err(error) => assert!(matches!(error, LogError::Malformed { kind: found } if found == kind)),
        }
    }
}

#[test]
fn the_longest_piece_fills_a_record() {
    let piece = |length| {
        let mut out = Vec::new();
        let bytes = vec![7; length];
        codec::encode_message(&Message::Piece(message::Piece { bytes }), &mut out).map(|()| out)
    };
    let longest = piece(message::PIECE_BYTES_MAX).unwrap();
    assert_eq!(longest.len(), RECORD_BYTES_MAX);
    assert!(matches!(
        codec::decode(&longest),
        Ok((Record::Message(Message::Piece(piece)), RECORD_BYTES_MAX)) if piece.bytes.len() == message::PIECE_BYTES_MAX
    ));
    assert!(piece(message::PIECE_BYTES_MAX + 1).is_err());
}

/// Variant 3 of an event is that of no record of kind 7, and variant 2 of a target of none of kind 8.
#[test]
fn what_disks_do_is_in_no_record_of_an_earlier_kind() {
    let completion = golden().find(|(kind, _)| *kind == Kind::DiskCompletion);
    let (_, completion) = completion.unwrap();
    for (kind, variant) in [(Kind::Event, 3_u8), (Kind::Output, 2)] {
        let mut record = completion.clone();
        record[6..8].copy_from_slice(&kind.number().to_le_bytes());
        // A device, and for an event the time; then the variant, and for an event what follows it.
        let body = match kind {
            Kind::Event => vec![4, 0, variant, 0, 0],
            _ => [vec![4, variant, 3], vec![9; 16]].concat(),
        };
        record.truncate(HEADER_BYTES);
        record.extend(&body);
        record[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
        seal(&mut record);
        assert!(matches!(error(&record), LogError::Malformed { kind: found } if found == kind));
    }
}

/// `content` as a compact record whose length and checksum are right.
fn compact(content: &[u8]) -> Vec<u8> {
    let length = (content.len() + 4) as u32;
    let mut record = [&[2], &length.to_le_bytes()[..3], content].concat();
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &record) as u32;
    record.extend(sum.to_le_bytes());
    record
}

/// A kind, and 0 for each number of its place.
fn placed(kind: Kind) -> Vec<u8> {
    vec![u8::try_from(kind.number()).unwrap(), 0, 0, 0, 0, 0]
}

#[test]
fn what_a_compact_record_may_not_be_is_refused_by_name() {
    let value = [placed(Kind::Value), vec![0, 7]].concat();
    assert!(codec::decode(&compact(&value)).is_ok());
    let longer = [value, vec![0]].concat();
    assert!(matches!(
        error(&compact(&longer)),
        LogError::Malformed { kind: Kind::Value }
    ));
    let environment = [placed(Kind::Environment), vec![0; 16], vec![0, 0]].concat();
    assert!(matches!(
        error(&compact(&environment)),
        LogError::Malformed {
            kind: Kind::Environment
        }
    ));
    let strange = [200, 0, 0, 0, 0, 0];
    assert!(matches!(
        error(&compact(&strange)),
        LogError::UnknownKind { kind: 200 }
    ));
    let without_end = [[2].as_slice(), &[0xff; 10]].concat();
    assert!(matches!(
        error(&compact(&without_end)),
        LogError::Malformed { kind: Kind::Value }
    ));
}

#[test]
fn the_length_of_a_compact_record_is_bounded_by_its_first_bytes() {
    assert!(matches!(
        error(&[2, 0xff, 0xff, 0xff]),
        LogError::Oversized {
            length: 0xff_ffff,
            ..
        }
    ));
    assert!(matches!(
        error(&[2, 9, 0, 0]),
        LogError::Undersized { length: 9, min: 10 }
    ));
    let large = [placed(Kind::HeldOutput), vec![0; BODY_BYTES_MAX + 1]].concat();
    assert!(matches!(
        error(&compact(&large)),
        LogError::Oversized {
            max: BODY_BYTES_MAX,
            ..
        }
    ));
}

#[test]
fn random_compact_records_never_panic_and_are_never_longer_than_said() {
    let mut random = Random::seeded();
    for _ in 0..20_000 {
        let kind = Kind::ALL[random.below(Kind::ALL.len())];
        let length = random.below(64) + 5;
        let bytes = compact(&[vec![kind.number() as u8], random.bytes(length)].concat());
        match codec::decode(&bytes) {
            Ok((Record::Entry(_), taken)) => assert_eq!(taken, bytes.len()),
            Ok((record, _)) => panic!("{record:?}"),
            Err(error) => assert!(
                matches!(error, LogError::Malformed { .. } | LogError::UnknownKind { .. }),
                "{error}"
            ),
        }
    }
}
