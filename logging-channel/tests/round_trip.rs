//! Whatever an entry or a message says comes back as it was.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use lockstep_logging_channel::message::{
    Acknowledge, Armed, Beginning, Diverged, FollowsBy, Goodbye, Handover, Heartbeat, Hello, Measured, Piece,
    Probe, Refused, Welcome,
};
use lockstep_logging_channel::{
    Body, Change, CommonPoint, DeviceId, Digest, DiskChange, End, EndReason, Entry, Environment,
    EnvironmentField, Event, EventKind, ExecutionPoint, Generation, HeldOutput, Message, OutputDigest,
    OutputTarget, Part, PartDigest, Record, Sequence, Value, codec,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn environments() -> impl Strategy<Value = Environment> {
    let fields = || {
        vec(
            any::<(String, String)>().prop_map(|(name, value)| EnvironmentField { name, value }),
            0..4,
        )
    };
    (any::<[u8; 16]>(), fields(), fields()).prop_map(|(pair, compared, informative)| Environment {
        pair,
        compared,
        informative,
    })
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::Tsc),
        any::<u64>().prop_map(Value::Monotonic),
        any::<u64>().prop_map(Value::Wall),
        vec(any::<u8>(), 0..65).prop_map(Value::Random),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let kinds = prop_oneof![
        vec(any::<u8>(), 0..2000).prop_map(EventKind::Frame),
        Just(EventKind::Timer),
        vec(any::<u8>(), 0..100).prop_map(EventKind::ConsoleInput),
    ];
    (any::<u8>(), any::<u64>(), kinds).prop_map(|(device, monotonic_ns, kind)| Event {
        device: DeviceId(device),
        monotonic_ns,
        kind,
    })
}

fn outputs() -> impl Strategy<Value = OutputDigest> {
    let device = || any::<u8>().prop_map(DeviceId);
    let targets = prop_oneof![
        device().prop_map(OutputTarget::network),
        device().prop_map(OutputTarget::console)
    ];
    (targets, any::<u32>(), any::<[u8; 16]>()).prop_map(|(target, length, digest)| OutputDigest {
        target,
        length,
        digest: Digest(digest),
    })
}

fn parts() -> impl Strategy<Value = Vec<PartDigest>> {
    let part = |(part, digest)| PartDigest {
        part,
        digest: Digest(digest),
    };
    vec(any::<(String, [u8; 16])>().prop_map(part), 0..6)
}

fn ends() -> impl Strategy<Value = End> {
    let reasons = prop_oneof![
        any::<u32>().prop_map(EndReason::PoweredOff),
        Just(EndReason::Stopped),
        any::<String>().prop_map(EndReason::GuestFault),
    ];
    (reasons, parts()).prop_map(|(reason, parts)| End { reason, parts })
}

fn entries() -> impl Strategy<Value = Entry> {
    let bodies = prop_oneof![
        environments().prop_map(Body::Environment),
        values().prop_map(Body::Value),
        events().prop_map(Body::Event),
        outputs().prop_map(Body::Output),
        parts().prop_map(Body::Digests),
        ends().prop_map(Body::End),
        any::<(u32, Vec<u8>)>().prop_map(|(raw_bytes, block)| Body::Part(Part { raw_bytes, block })),
        any::<(u64, u64, [u8; 16])>().prop_map(|(first, pages, digest)| {
            Body::CommonPoint(CommonPoint {
                first: Sequence(first),
                pages,
                sections: Digest(digest),
            })
        }),
        any::<(u8, Vec<u8>)>().prop_map(|(device, bytes)| {
            let target = OutputTarget::console(DeviceId(device));
            Body::HeldOutput(HeldOutput { target, bytes })
        }),
        any::<(u8, u64, u64, Vec<u8>)>().prop_map(|(device, number, offset_bytes, bytes)| {
            Body::DiskChange(DiskChange {
                device: DeviceId(device),
                number,
                change: Change::Written { offset_bytes, bytes },
            })
        }),
    ];
    (any::<(u32, u64, u64, u64, u64)>(), bodies).prop_map(|(header, body)| {
        let (generation, sequence, exits, instructions, rip) = header;
        let point = ExecutionPoint {
            exits,
            instructions,
            rip,
        };
        Entry {
            generation: Generation(generation),
            sequence: Sequence(sequence),
            point,
            body,
        }
    })
}

fn messages() -> impl Strategy<Value = Message> {
    let hellos =
        (any::<(String, u16)>(), environments()).prop_map(|((software_version, version), environment)| {
            Message::Hello(Hello {
                software_version,
                format_version: version,
                environment,
            })
        });
    let differs = any::<(String, Option<String>, Option<String>)>().prop_map(|(field, primary, backup)| {
        Message::Refused(Refused::Differs {
            field,
            primary,
            backup,
        })
    });
    let acknowledges = any::<(u64, u64)>().prop_map(|(received, replayed)| {
        let (received, replayed) = (Sequence(received), Sequence(replayed));
        Message::Acknowledge(Acknowledge { received, replayed })
    });
    let heartbeats = any::<(u64, u64, u64, u64)>().prop_map(|(sent_at_ns, echo_ns, exits, released)| {
        Message::Heartbeat(Heartbeat {
            sent_at_ns,
            echo_ns,
            exits,
            released: Sequence(released),
        })
    });
    prop_oneof![
        hellos,
        environments().prop_map(|environment| Message::Welcome(Welcome { environment })),
        differs,
        any::<String>().prop_map(|words| Message::Refused(Refused::Other(words))),
        any::<String>().prop_map(|words| Message::Refused(Refused::Later(words))),
        acknowledges,
        heartbeats,
        any::<String>().prop_map(|reason| Message::Goodbye(Goodbye { reason })),
        any::<u32>().prop_map(|number| Message::Probe(Probe { number })),
        any::<u64>().prop_map(|round_trip_ns| Message::Measured(Measured { round_trip_ns })),
        any::<(u32, bool, bool)>().prop_map(|(generation, saved_state, replays)| {
            let generation = Generation(generation);
            Message::Beginning(Beginning {
                generation,
                saved_state,
                follows_by: if replays {
                    FollowsBy::Replay
                } else {
                    FollowsBy::Checkpoints
                },
            })
        }),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Message::Piece(Piece { bytes })),
        Just(Message::Loaded),
        any::<u64>().prop_map(|from| Message::Armed(Armed { from: Sequence(from) })),
        any::<u64>().prop_map(|after| Message::Handover(Handover {
            after: Sequence(after)
        })),
        any::<(u64, String, bool)>().prop_map(|(sequence, part, again)| {
            let sequence = Sequence(sequence);
            Message::Diverged(Diverged {
                sequence,
                part,
                again,
            })
        }),
    ]
}

proptest! {
    #[test]
    fn an_entry_comes_back(entry in entries(), before in vec(any::<u8>(), 0..9), after in vec(any::<u8>(), 0..9)) {
        let mut bytes = before.clone();
        codec::encode_entry(&entry, &mut bytes).unwrap();
        let length = bytes.len() - before.len();
        bytes.extend(&after);
        prop_assert_eq!(codec::decode(&bytes[before.len()..]).unwrap(), (Record::Entry(entry), length));
    }

    #[test]
    fn a_message_comes_back(message in messages()) {
        let mut bytes = Vec::new();
        codec::encode_message(&message, &mut bytes).unwrap();
        prop_assert_eq!(codec::decode(&bytes).unwrap(), (Record::Message(message), bytes.len()));
    }
}
