//! Frames, logs and claims that unit tests of the checkers are built from.

use super::web::Claimed;
use crate::harness::proxy::{Passing, Traffic};
use crate::harness::switch::Frame;
use lockstep_logging_channel::{
    Body, DeviceId, Digest, Entry, ExecutionPoint, Generation, OutputDigest, OutputTarget, Sequence,
};
use std::collections::BTreeSet;
use std::fmt::{Debug, Display};
use std::str::FromStr;

/// Port of the switch's own station.
pub const HOST: u32 = 0;

/// A frame of 60 bytes with this text.
pub fn frame(interface: u32, at_us: u64, text: &str) -> Frame {
    let mut bytes = vec![0; 60];
    bytes[14..14 + text.len()].copy_from_slice(text.as_bytes());
    Frame {
        interface,
        at_us,
        bytes,
        is_from_host: interface == HOST,
    }
}

/// The announcement of a generation.
pub fn announcement(interface: u32, at_us: u64, generation: u32) -> Frame {
    let mut frame = frame(interface, at_us, "LSGN");
    frame.bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame.bytes[34..38].copy_from_slice(&generation.to_le_bytes());
    frame
}

/// A log whose entry N, from 1 on, is that of a [`frame`] with the N-th text; each was passed at N
/// times 100, acknowledged 50 later.
pub fn traffic(texts: &[&str]) -> Traffic {
    let mut traffic = Traffic::default();
    for (text, number) in texts.iter().zip(1..) {
        let output = OutputDigest {
            target: OutputTarget::network(DeviceId(4)),
            length: 60,
            digest: Digest::of(&frame(HOST, 0, text).bytes),
        };
        traffic.entries.push(Entry {
            generation: Generation(1),
            sequence: Sequence(number),
            point: ExecutionPoint::default(),
            body: Body::Output(output),
        });
        let passed = [
            (number * 100, Passing::Entry(Sequence(number))),
            (number * 100 + 50, Passing::Acknowledged(Sequence(number))),
        ];
        traffic.passed.extend(passed);
    }
    traffic
}

/// The claim of a generation of this machine.
pub fn claim(generation: u32, machine: &str) -> Claimed {
    Claimed {
        generation,
        machine: machine.to_owned(),
        process: 1,
    }
}

/// Fails unless each has a name of its own, by which it is found.
pub fn expect_names<T>(all: Vec<T>)
where
    T: Copy + Debug + Display + FromStr<Err = String> + PartialEq,
{
    let names: BTreeSet<String> = all.iter().map(T::to_string).collect();
    assert_eq!(names.len(), all.len());
    for one in all {
        assert_eq!(one.to_string().parse(), Ok(one));
    }
}
