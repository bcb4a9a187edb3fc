//! The completion of a disk's request as it lies in a record: an event of a kind of its own.

use crate::{Completion, DeviceId, Event, EventKind};
use serde::{Deserialize, Serialize};

/// An event of a disk, whose completion is owned or borrowed.
#[derive(Serialize, Deserialize)]
pub(crate) struct DoneEvent<C> {
    device: DeviceId,
    monotonic_ns: u64,
    completion: C,
}

impl<'a> DoneEvent<&'a Completion> {
    /// The event, if it is one of a disk.
    pub(crate) fn of(event: &'a Event) -> Option<Self> {
        let EventKind::Completion(completion) = &event.kind else {
            return None;
        };
        Some(Self {
            device: event.device,
            monotonic_ns: event.monotonic_ns,
            completion,
        })
    }
}

impl From<DoneEvent<Completion>> for Event {
    fn from(done: DoneEvent<Completion>) -> Self {
        let DoneEvent {
            device,
            monotonic_ns,
            completion,
        } = done;
        Self {
            device,
            monotonic_ns,
            kind: EventKind::Completion(completion),
        }
    }
}
