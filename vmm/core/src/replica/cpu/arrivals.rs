//! The choice among what has arrived for a live guest: each timer once an execution point, then
//! what else there is for each device, in turn, so that none keeps another out.

use crate::machine::door::{Readiness, Taker, Takes};
use crate::replica::mutant::{self, Mutant};
use lockstep_logging_channel::{Completion, DeviceId, EventKind};
use std::collections::BTreeMap;

/// Proposals of the host.
pub trait Proposals {
    /// Guest monotonic time, in nanoseconds.
    fn monotonic_ns(&self) -> u64;

    /// The oldest frame for a network device, or the oldest bytes typed at a console.
    fn take(&mut self, device: DeviceId) -> Option<Vec<u8>>;

    /// The oldest request that a disk has done.
    fn completion(&mut self, _device: DeviceId) -> Option<Completion> {
        None
    }
}

/// The state of the choice.
#[derive(Debug, Default)]
pub struct Taking {
    /// Console bytes that did not fit.
    typed: BTreeMap<DeviceId, Vec<u8>>,
    /// The device that is asked first.
    first: DeviceId,
}

impl Taking {
    /// Takes the next event that is there now and that the guest can take, and its device.
    pub fn next(
        &mut self,
        readiness: Readiness<'_>,
        proposals: &mut impl Proposals,
    ) -> Option<(DeviceId, EventKind)> {
        let takers = readiness.takers;
        if let Some(due) = takers.iter().find(|taker| is_due(taker, proposals)) {
            return Some((due.device, EventKind::Timer));
        }
        let behind = takers.partition_point(|taker| taker.device < self.first);
        let (later, sooner) = takers.split_at(behind);
        let taken = sooner.iter().chain(later).find_map(|taker| {
            let kind = self.take(taker, proposals)?;
            Some((taker.device, kind))
        });
        if let Some((device, kind)) = &taken {
            let keeps_turn = mutant::is(Mutant::FramesFirst) && matches!(kind, EventKind::Frame(_));
            self.first = DeviceId(if keeps_turn {
                device.0
            } else {
                device.0.saturating_add(1)
            });
        }
        taken
    }

    fn take(&mut self, taker: &Taker, proposals: &mut impl Proposals) -> Option<EventKind> {
        let device = taker.device;
        match taker.takes {
            Takes::Frames { max } if max > 0 => proposals.take(device).map(EventKind::Frame),
            Takes::Completions { outstanding } if outstanding > 0 => {
                proposals.completion(device).map(EventKind::Completion)
            }
            Takes::ConsoleInput { bytes_max, .. } if bytes_max > 0 => {
                self.typed(device, bytes_max, proposals)
            }
            _ => None,
        }
    }

    fn typed(
        &mut self,
        device: DeviceId,
        bytes_max: usize,
        proposals: &mut impl Proposals,
    ) -> Option<EventKind> {
        let mut typed = self.typed.remove(&device).or_else(|| proposals.take(device))?;
        let rest = typed.split_off(typed.len().min(bytes_max));
        if !rest.is_empty() {
            self.typed.insert(device, rest);
        }
        (!typed.is_empty()).then_some(EventKind::ConsoleInput(typed))
    }
}

/// True if the timer of this device has expired, and may at this execution point.
fn is_due(taker: &Taker, proposals: &impl Proposals) -> bool {
    match taker.takes {
        Takes::Expiry {
            deadline_ns: Some(deadline_ns),
            entered: false,
        } => deadline_ns <= proposals.monotonic_ns(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMERS: [DeviceId; 2] = [DeviceId(0), DeviceId(3)];
    const CONSOLES: [DeviceId; 2] = [DeviceId(1), DeviceId(5)];
    const NETWORK: DeviceId = DeviceId(4);

    /// Frames and typed bytes without end for every device, two bytes each.
    struct Flood;

    impl Proposals for Flood {
        fn monotonic_ns(&self) -> u64 {
            10
        }

        fn take(&mut self, device: DeviceId) -> Option<Vec<u8>> {
            Some(vec![device.0, device.0])
        }
    }

    /// Two timers that are due, two consoles with room for a byte, a network device.
    fn takers(entered: [bool; 2]) -> [Taker; 5] {
        let expiry = |index: usize| Takes::Expiry {
            deadline_ns: Some(10),
            entered: entered[index],
        };
        let console = Takes::ConsoleInput {
            bytes_max: 1,
            listens: true,
        };
        let taker = |device, takes| Taker { device, takes };
        [
            taker(TIMERS[0], expiry(0)),
            taker(CONSOLES[0], console),
            taker(TIMERS[1], expiry(1)),
            taker(NETWORK, Takes::Frames { max: 8 }),
            taker(CONSOLES[1], console),
        ]
    }

    fn next(taking: &mut Taking, entered: [bool; 2]) -> Option<(DeviceId, EventKind)> {
        let readiness = Readiness {
            closed: false,
            idle: false,
            takers: &takers(entered),
        };
        taking.next(readiness, &mut Flood)
    }

    #[test]
    fn each_timer_comes_once_and_the_other_devices_in_turn() {
        let mut taking = Taking::default();
        let timer = |device| Some((device, EventKind::Timer));
        assert_eq!(next(&mut taking, [false, false]), timer(TIMERS[0]));
        assert_eq!(next(&mut taking, [true, false]), timer(TIMERS[1]));
        let typed = |device: DeviceId| Some((device, EventKind::ConsoleInput(vec![device.0])));
        for _ in 0..3 {
            assert_eq!(next(&mut taking, [true; 2]), typed(CONSOLES[0]), "one byte fits");
            let frame = EventKind::Frame(vec![NETWORK.0; 2]);
            assert_eq!(next(&mut taking, [true; 2]), Some((NETWORK, frame)));
            assert_eq!(next(&mut taking, [true; 2]), typed(CONSOLES[1]));
        }
    }
}
