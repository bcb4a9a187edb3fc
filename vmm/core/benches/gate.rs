//! Cost of the output gate for each output: holding it, and releasing it on an acknowledgement.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may fail")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lockstep_core::replica::Gate;
use lockstep_logging_channel::Sequence;

/// Outputs of one iteration.
const OUTPUTS: u64 = 1024;
/// A reply of a few words in its TCP segment.
const FRAME_BYTES: usize = 134;

/// Holds outputs and acknowledges them `batch` at a time, each as an entry of its own.
fn hold_and_acknowledge(gate: &mut Gate<Vec<u8>>, first: u64, batch: u64) -> u64 {
    let mut released = 0;
    for start in (first..first + OUTPUTS).step_by(batch as usize) {
        for sequence in start..start + batch {
            let early = gate.hold(Sequence(sequence), FRAME_BYTES, Vec::new());
            assert!(early.is_none());
        }
        let acknowledged = Sequence(start + batch - 1);
        released += gate.acknowledge(acknowledged).map(black_box).count() as u64;
    }
    released
}

fn gate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gate");
    group.throughput(Throughput::Elements(OUTPUTS));
    for batch in [1, 16, OUTPUTS] {
        let mut gate = Gate::default();
        let mut first = 0;
        group.bench_function(BenchmarkId::new("outputs-an-acknowledgement", batch), |bencher| {
            bencher.iter(|| {
                let released = hold_and_acknowledge(&mut gate, first, batch);
                first += OUTPUTS;
                assert_eq!(released, OUTPUTS);
            });
        });
    }
}

criterion_group!(benches, gate);
criterion_main!(benches);
