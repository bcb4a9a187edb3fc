//! Steps of common points, with the feature `crash-points`. Which batches have parts and common
//! points is looked up only where one of these steps is armed.

use super::Step;
use super::on::{is_armed_at, pass_several};
use crate::pair::Carried;
use lockstep_core::replica::role::Batch;
use lockstep_logging_channel::{Body, Entry, Sequence, codec};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

const STEPS: [Step; 5] = [
    Step::PartSent,
    Step::CommonPointSent,
    Step::CommonPointAcknowledged,
    Step::CommonPointReceived,
    Step::CommonPointMet,
];

static UNDER_WAY: Mutex<UnderWay> = Mutex::new(UnderWay::new());

/// Parts and common points on their way, within the window of the log.
#[derive(Debug)]
struct UnderWay {
    /// Parts and common points that are queued.
    queued: [u64; 2],
    /// Common points that are not acknowledged.
    unacknowledged: VecDeque<Sequence>,
    /// Common points that are not met.
    unmet: VecDeque<Sequence>,
}

impl UnderWay {
    const fn new() -> Self {
        Self {
            queued: [0; 2],
            unacknowledged: VecDeque::new(),
            unmet: VecDeque::new(),
        }
    }

    fn queue(&mut self, entry: &Entry) {
        match entry.body {
            Body::Part(_) => self.queued[0] += 1,
            Body::CommonPoint(_) => {
                self.queued[1] += 1;
                self.unacknowledged.push_back(entry.sequence);
            }
            _ => {}
        }
    }
}

/// Takes those up to `last`, and says how many that were.
fn take(waiting: &mut VecDeque<Sequence>, last: Sequence) -> u64 {
    let before = waiting.len();
    waiting.retain(|sequence| *sequence > last);
    (before - waiting.len()) as u64
}

/// State where one of the steps is armed.
fn watched() -> Option<MutexGuard<'static, UnderWay>> {
    is_armed_at(&STEPS).then(|| UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Entries were given to the connection.
pub fn queued(records: &[u8]) {
    let Some(mut under_way) = watched() else { return };
    let mut rest = records;
    while let Ok((entry, length)) = codec::decode_entry(rest) {
        under_way.queue(&entry);
        rest = &rest[length..];
    }
}

/// All that was queued is with the system.
pub fn sent() {
    let Some(mut under_way) = watched() else { return };
    let [parts, points] = std::mem::take(&mut under_way.queued);
    drop(under_way);
    pass_several(Step::PartSent, parts);
    pass_several(Step::CommonPointSent, points);
}

/// An acknowledgement of everything up to `last` was read.
pub fn acknowledged(last: Sequence) {
    let Some(mut under_way) = watched() else { return };
    let points = take(&mut under_way.unacknowledged, last);
    drop(under_way);
    pass_several(Step::CommonPointAcknowledged, points);
}

/// Entries were read.
pub fn received(batch: &Batch<Carried>) {
    let Some(mut under_way) = watched() else { return };
    let Carried::Decoded(entries) = &batch.entries else {
        return;
    };
    let is_common_point = |entry: &&Entry| matches!(entry.body, Body::CommonPoint(_));
    let points = entries.iter().filter(is_common_point);
    let before = under_way.unmet.len();
    under_way.unmet.extend(points.map(|entry| entry.sequence));
    let points = (under_way.unmet.len() - before) as u64;
    drop(under_way);
    pass_several(Step::CommonPointReceived, points);
}

/// The vCPU has used everything up to `last`.
pub fn met(last: Sequence) {
    let Some(mut under_way) = watched() else { return };
    let points = take(&mut under_way.unmet, last);
    drop(under_way);
    pass_several(Step::CommonPointMet, points);
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::{CommonPoint, Digest, ExecutionPoint, Generation, Part};

    fn entry(sequence: u64, body: Body) -> Entry {
        Entry {
            generation: Generation(1),
            sequence: Sequence(sequence),
            point: ExecutionPoint::default(),
            body,
        }
    }

    #[test]
    fn parts_and_common_points_are_counted_and_a_common_point_is_acknowledged_once() {
        let mut under_way = UnderWay::new();
        let part = Part {
            raw_bytes: 1,
            block: vec![0],
        };
        let point = CommonPoint {
            first: Sequence(1),
            pages: 0,
            sections: Digest::of(&[]),
        };
        under_way.queue(&entry(1, Body::Part(part.clone())));
        under_way.queue(&entry(2, Body::Part(part)));
        under_way.queue(&entry(3, Body::CommonPoint(point)));
        under_way.queue(&entry(4, Body::Digests(Vec::new())));
        assert_eq!(under_way.queued, [2, 1]);
        assert_eq!(take(&mut under_way.unacknowledged, Sequence(2)), 0);
        assert_eq!(take(&mut under_way.unacknowledged, Sequence(4)), 1);
        assert_eq!(take(&mut under_way.unacknowledged, Sequence(4)), 0);
    }
}
