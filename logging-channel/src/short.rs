//! Records as they were before they said more: read, and no longer written.
//!
//! Events and outputs named no device (kinds 3 and 4): there was one board, with one device for
//! each of them, and its number is what the entry leaves out. A beginning did not say how the
//! backup follows (kind 264).

use crate::message::{Beginning, FollowsBy};
use crate::{DeviceId, Digest, Event, EventKind, Generation, OutputDigest, OutputTarget};
use serde::Deserialize;

const TIMER: DeviceId = DeviceId(1);
const CONSOLE: DeviceId = DeviceId(3);
const NETWORK: DeviceId = DeviceId(4);

/// An event that names no device.
#[derive(Deserialize)]
pub(crate) struct ShortEvent {
    monotonic_ns: u64,
    kind: EventKind,
}

impl From<ShortEvent> for Event {
    fn from(short: ShortEvent) -> Self {
        let ShortEvent { monotonic_ns, kind } = short;
        let device = match kind {
            // A completion is in no such record.
            EventKind::Frame(_) | EventKind::Completion(_) => NETWORK,
            EventKind::Timer => TIMER,
            EventKind::ConsoleInput(_) => CONSOLE,
        };
        Self {
            device,
            monotonic_ns,
            kind,
        }
    }
}

/// An output that names no device.
#[derive(Deserialize)]
pub(crate) struct ShortOutput {
    target: ShortTarget,
    length: u32,
    digest: Digest,
}

#[derive(Deserialize)]
enum ShortTarget {
    Network,
    Console,
}

impl From<ShortOutput> for OutputDigest {
    fn from(short: ShortOutput) -> Self {
        let ShortOutput {
            target,
            length,
            digest,
        } = short;
        let target = match target {
            ShortTarget::Network => OutputTarget::network(NETWORK),
            ShortTarget::Console => OutputTarget::console(CONSOLE),
        };
        Self {
            target,
            length,
            digest,
        }
    }
}

/// A beginning that does not say how the backup follows: by replay, which was the only way.
#[derive(Deserialize)]
pub(crate) struct ShortBeginning {
    generation: Generation,
    saved_state: bool,
}

impl From<ShortBeginning> for Beginning {
    fn from(short: ShortBeginning) -> Self {
        let ShortBeginning {
            generation,
            saved_state,
        } = short;
        Self {
            generation,
            saved_state,
            follows_by: FollowsBy::Replay,
        }
    }
}
