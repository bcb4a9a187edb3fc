//! What an entry costs: to encode, to decode, to append to a log file.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may fail")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lockstep_logging_channel::{
    Body, DeviceId, Digest, Entry, Environment, Event, EventKind, ExecutionPoint, Existing, Generation,
    LogWriter, OutputDigest, OutputTarget, Sequence, Value, codec,
};

/// Entries in one log of the append benchmark.
const LOG_ENTRIES: u64 = 1000;

/// The largest frame of an Ethernet without jumbo frames.
const FRAME_BYTES: usize = 1514;

fn entry(sequence: u64, body: Body) -> Entry {
    let point = ExecutionPoint {
        exits: sequence,
        instructions: 0,
        rip: 0x40_1000,
    };
    Entry {
        generation: Generation(0),
        sequence: Sequence(sequence),
        point,
        body,
    }
}

fn output() -> Body {
    let (target, length) = (OutputTarget::network(DeviceId(4)), FRAME_BYTES as u32);
    Body::Output(OutputDigest {
        target,
        length,
        digest: Digest([7; 16]),
    })
}

fn frame() -> Body {
    Body::Event(Event {
        device: DeviceId(4),
        monotonic_ns: 1_000_000_000,
        kind: EventKind::Frame(vec![0x5a; FRAME_BYTES]),
    })
}

/// The entries a guest that serves requests makes most of.
fn samples() -> [(&'static str, Entry); 3] {
    let value = Body::Value(Value::Monotonic(1_000_000_000));
    [
        ("value", entry(1, value)),
        ("output", entry(2, output())),
        ("frame", entry(3, frame())),
    ]
}

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_entry(entry, &mut bytes).unwrap();
    bytes
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for (name, entry) in samples() {
        let mut out = encoded(&entry);
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                codec::encode_entry(black_box(&entry), &mut out).unwrap();
            });
        });
    }
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, entry) in samples() {
        let bytes = encoded(&entry);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| codec::decode_entry(black_box(&bytes)).unwrap());
        });
    }
}

/// A log of entries with this body, which the system has when the iteration ends.
fn append(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bench.log");
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(LOG_ENTRIES));
    for (name, body) in [("output", output()), ("frame", frame())] {
        let first = entry(0, Body::Environment(Environment::default()));
        let rest = (1..LOG_ENTRIES).map(|sequence| entry(sequence, body.clone()));
        let entries: Vec<_> = std::iter::once(first).chain(rest).collect();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || LogWriter::create(&path, Existing::Overwrite).unwrap(),
                |mut log| {
                    entries.iter().for_each(|entry| log.append(entry).unwrap());
                    log.flush().unwrap();
                    log
                },
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(benches, encode, decode, append);
criterion_main!(benches);
