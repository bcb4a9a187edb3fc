//! The guest times that a machine has been told, below which it is told none.

use crate::machine::saved::format::LogPosition;
use lockstep_logging_channel::{Body, Value};

/// The latest guest times that the log has told: nothing that follows may be earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeFloor {
    /// Guest monotonic time, in nanoseconds.
    pub monotonic_ns: u64,
    /// Time-stamp counter, in ticks.
    pub tsc: u64,
    /// Wall time, in nanoseconds.
    pub wall_ns: u64,
}

impl From<LogPosition> for TimeFloor {
    fn from(position: LogPosition) -> Self {
        let LogPosition {
            sequence: _,
            monotonic_ns,
            tsc,
            wall_ns,
        } = position;
        Self {
            monotonic_ns,
            tsc,
            wall_ns,
        }
    }
}

impl TimeFloor {
    /// The times as answers, for a log that does not have those that the guest was given.
    #[must_use]
    pub fn values(&self) -> [Value; 3] {
        let Self {
            monotonic_ns,
            tsc,
            wall_ns,
        } = *self;
        [
            Value::Monotonic(monotonic_ns),
            Value::Tsc(tsc),
            Value::Wall(wall_ns),
        ]
    }

    /// Takes in what an entry tells.
    pub fn raise(&mut self, body: &Body) {
        match body {
            Body::Event(event) => self.monotonic_ns = self.monotonic_ns.max(event.monotonic_ns),
            Body::Value(Value::Monotonic(time_ns)) => self.monotonic_ns = self.monotonic_ns.max(*time_ns),
            Body::Value(Value::Tsc(ticks)) => self.tsc = self.tsc.max(*ticks),
            Body::Value(Value::Wall(time_ns)) => self.wall_ns = self.wall_ns.max(*time_ns),
            _ => {}
        }
    }
}
