//! Logs to test with.
#![allow(dead_code, reason = "each test file uses its part of this")]

use lockstep_logging_channel::message::{
    Acknowledge, Armed, Beginning, Diverged, FollowsBy, Goodbye, Handover, Heartbeat, Hello, Measured, Piece,
    Probe, Refused, Welcome,
};
use lockstep_logging_channel::{
    Body, Change, CommonPoint, Completion, DeviceId, Digest, DiskChange, DiskWrite, End, EndReason, Entry,
    Environment, EnvironmentField, Event, EventKind, ExecutionPoint, Generation, HeldOutput, Message,
    OutputDigest, OutputTarget, Part, PartDigest, ReadData, Sequence, Value, codec,
};

pub fn field(name: &str, value: &str) -> EnvironmentField {
    EnvironmentField {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

pub fn environment() -> Environment {
    Environment {
        pair: *b"0123456789abcdef",
        compared: vec![field("guest image digest", "00ff"), field("memory", "64 MiB")],
        informative: vec![field("host", "first")],
    }
}

pub fn part(name: &str) -> PartDigest {
    PartDigest {
        part: name.to_owned(),
        digest: Digest([7; 16]),
    }
}

pub fn entry(sequence: u64, exits: u64, body: Body) -> Entry {
    Entry {
        generation: Generation(1),
        sequence: Sequence(sequence),
        point: ExecutionPoint {
            exits,
            instructions: 0,
            rip: 0x40_1000,
        },
        body,
    }
}

pub fn event(kind: EventKind) -> Body {
    Body::Event(Event {
        device: DeviceId(4),
        monotonic_ns: 2_000_000,
        kind,
    })
}

pub fn output(target: OutputTarget) -> Body {
    Body::Output(OutputDigest {
        target,
        length: 3,
        digest: Digest([9; 16]),
    })
}

pub fn end(reason: EndReason) -> Body {
    Body::End(End {
        reason,
        parts: vec![part("memory")],
    })
}

/// A complete log with every early kind of entry and every variant of each but the ends.
pub fn entries() -> Vec<Entry> {
    let bodies = [
        Body::Environment(environment()),
        Body::Value(Value::Tsc(u64::MAX)),
        Body::Value(Value::Monotonic(1_000_000)),
        Body::Value(Value::Wall(1_800_000_000_000_000_000)),
        Body::Value(Value::Random(vec![1, 2, 0xff])),
        event(EventKind::Frame(vec![0xaa; 20])),
        event(EventKind::Timer),
        event(EventKind::ConsoleInput(b"hi\n".to_vec())),
        output(OutputTarget::network(DeviceId(4))),
        output(OutputTarget::console(DeviceId(3))),
        Body::Digests(vec![part("registers"), part("serial")]),
        end(EndReason::PoweredOff(3)),
    ];
    bodies
        .into_iter()
        .zip(0..)
        .map(|(body, sequence)| entry(sequence, 10 * sequence, body))
        .collect()
}

/// Entries of the kinds that came later: with them among the others, those would have other bytes.
pub fn later_entries() -> Vec<Entry> {
    let part = Body::Part(Part {
        raw_bytes: 3,
        block: vec![0x30, 1, 2, 3],
    });
    let common = Body::CommonPoint(CommonPoint {
        first: Sequence(11),
        pages: 2,
        sections: Digest([5; 16]),
    });
    let held = Body::HeldOutput(HeldOutput {
        target: OutputTarget::console(DeviceId(3)),
        bytes: b"text\n".to_vec(),
    });
    let done = |read| event(EventKind::Completion(Completion { number: 300, read }));
    let write = Body::DiskWrite(DiskWrite {
        device: DeviceId(6),
        number: 300,
        digest: Digest([8; 16]),
    });
    let (offset_bytes, length_bytes) = (300, 512);
    let change = |change| {
        Body::DiskChange(DiskChange {
            device: DeviceId(6),
            number: 300,
            change,
        })
    };
    let bytes = vec![1, 2, 255];
    let zeroed = |may_unmap| Change::Zeroed {
        offset_bytes,
        length_bytes,
        may_unmap,
    };
    let discarded = Change::Discarded {
        offset_bytes,
        length_bytes,
    };
    vec![
        entry(11, 110, part),
        entry(12, 120, common),
        entry(13, 130, held),
        entry(14, 140, done(ReadData::Nothing)),
        entry(15, 150, done(ReadData::Digest(Digest([6; 16])))),
        entry(16, 160, done(ReadData::Bytes(vec![1, 2, 255]))),
        entry(17, 170, write),
        entry(18, 180, change(Change::Written { offset_bytes, bytes })),
        entry(19, 190, change(Change::Flushed)),
        entry(20, 200, change(discarded)),
        entry(21, 210, change(zeroed(false))),
        entry(22, 220, change(zeroed(true))),
    ]
}

/// Every kind of message.
pub fn messages() -> Vec<Message> {
    let hello = Hello {
        software_version: "0.1.0".to_owned(),
        format_version: 1,
        environment: environment(),
    };
    let (primary, backup) = (Some("64 MiB".to_owned()), None);
    vec![
        Message::Hello(hello),
        Message::Welcome(Welcome {
            environment: environment(),
        }),
        Message::Refused(Refused::Differs {
            field: "memory".to_owned(),
            primary,
            backup,
        }),
        Message::Refused(Refused::Other("no".to_owned())),
        Message::Acknowledge(Acknowledge {
            received: Sequence(300),
            replayed: Sequence(2),
        }),
        Message::Heartbeat(Heartbeat {
            sent_at_ns: 1,
            echo_ns: 2,
            exits: 300,
            released: Sequence(4),
        }),
        Message::Goodbye(Goodbye {
            reason: "done".to_owned(),
        }),
        Message::Probe(Probe { number: 300 }),
        Message::Measured(Measured {
            round_trip_ns: 1_000_000,
        }),
        Message::Beginning(Beginning::joining(Generation(300), FollowsBy::Checkpoints)),
        Message::Piece(Piece {
            bytes: vec![1, 2, 255],
        }),
        Message::Loaded,
        Message::Armed(Armed { from: Sequence(300) }),
        Message::Handover(Handover { after: Sequence(300) }),
        Message::Diverged(Diverged {
            sequence: Sequence(300),
            part: "registers".to_owned(),
            again: true,
        }),
        Message::Refused(Refused::Later("full".to_owned())),
    ]
}

pub fn encoded(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_entry(entry, &mut bytes).unwrap();
    bytes
}

pub fn encoded_message(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_message(message, &mut bytes).unwrap();
    bytes
}

/// Each entry's bytes.
pub fn records(entries: &[Entry]) -> Vec<Vec<u8>> {
    entries.iter().map(encoded).collect()
}

/// Gives the record at the start of `bytes` the checksum it should have.
pub fn seal(bytes: &mut [u8]) {
    bytes[52..56].fill(0);
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    bytes[52..56].copy_from_slice(&checksum.to_le_bytes());
}

/// Numbers that look random, from a seed that is printed and can be given as `LOCKSTEP_SEED`.
pub struct Random(u64);

impl Random {
    pub fn seeded() -> Self {
        use std::hash::{BuildHasher, Hasher};
        let fresh = || std::hash::RandomState::new().build_hasher().finish();
        let seed = std::env::var("LOCKSTEP_SEED").map_or_else(|_| fresh(), |seed| seed.parse().unwrap());
        println!("LOCKSTEP_SEED={seed}");
        Self(seed)
    }

    /// The next number (SplitMix64).
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
