//! Readiness of a machine to take arrivals.

use lockstep_logging_channel::{DeviceId, Event, EventKind};

/// Arrivals that a device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Frames.
    Frames {
        /// Receive buffers that it has.
        max: usize,
    },
    /// Typed bytes.
    ConsoleInput {
        /// Bytes that it has room for.
        bytes_max: usize,
        /// The guest has it open: somebody reads what is typed.
        listens: bool,
    },
    /// The expiry of its timer.
    Expiry {
        /// Guest monotonic time of the next, in nanoseconds.
        deadline_ns: Option<u64>,
        /// It has expired at this execution point already: it may not again before the guest runs
        /// on, however short its period is.
        entered: bool,
    },
    /// What its disk has done.
    Completions {
        /// Requests that are not done.
        outstanding: usize,
    },
}

impl Takes {
    /// True if this is a thing that the device takes, whether or not it has room for it now.
    #[must_use]
    pub fn fits(self, kind: &EventKind) -> bool {
        matches!(
            (self, kind),
            (Self::Frames { .. }, EventKind::Frame(_))
                | (Self::ConsoleInput { .. }, EventKind::ConsoleInput(_))
                | (Self::Expiry { .. }, EventKind::Timer)
                | (Self::Completions { .. }, EventKind::Completion(_))
        )
    }
}

/// A device that takes arrivals, and what it takes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taker {
    /// The device.
    pub device: DeviceId,
    /// Its arrivals.
    pub takes: Takes,
}

/// Readiness of the machine to take arrivals, reported when it asks what has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness<'a> {
    /// Between exits, and the guest cannot take an interrupt here: nothing may enter.
    pub closed: bool,
    /// The guest is halted and only an event can wake it: the door waits.
    pub idle: bool,
    /// Every device of the board that takes arrivals, by their numbers.
    pub takers: &'a [Taker],
}

impl Readiness<'_> {
    /// Timers: guest time at which each expires next, and whether it may at this execution point.
    fn expiries(self) -> impl Iterator<Item = (u64, bool)> {
        self.takers.iter().filter_map(|taker| match taker.takes {
            Takes::Expiry {
                deadline_ns: Some(deadline_ns),
                entered,
            } => Some((deadline_ns, !entered)),
            _ => None,
        })
    }

    /// Guest time at which the next timer expires, in nanoseconds.
    #[must_use]
    pub fn next_deadline_ns(self) -> Option<u64> {
        self.expiries().map(|(deadline_ns, _)| deadline_ns).min()
    }

    /// Guest time at which the next timer may expire that has not at this execution point.
    #[must_use]
    pub fn waits_until_ns(self) -> Option<u64> {
        let open = self.expiries().filter(|(_, may)| *may);
        open.map(|(deadline_ns, _)| deadline_ns).min()
    }

    /// True if the guest has a console open.
    #[must_use]
    pub fn listens(self) -> bool {
        let listens = |taker: &Taker| matches!(taker.takes, Takes::ConsoleInput { listens: true, .. });
        self.takers.iter().any(listens)
    }

    /// True if the event is of a sort that its device takes.
    #[must_use]
    pub fn fits(self, event: &Event) -> bool {
        let mut takers = self.takers.iter();
        takers.any(|taker| taker.device == event.device && taker.takes.fits(&event.kind))
    }
}
