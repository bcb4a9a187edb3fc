//! Settings that a replica is given when it starts, and the times that follow from it.

use lockstep_logging_channel::transport::WINDOW_BYTES_MAX;
use lockstep_logging_channel::{Generation, RECORD_BYTES_MAX, Sequence};

/// The shortest timeout: its eighth, the time between heartbeats, is then over a millisecond.
pub const TIMEOUT_NS_MIN: u64 = 10_000_000;

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_US: u64 = 1_000;

/// A timeout that is named to people is a multiple of this.
const TIMEOUT_STEP_NS: u64 = 10_000_000;

/// The longest timeout: an hour. Beyond it a pair protects nothing, and sums of times stay far from
/// overflow.
pub const TIMEOUT_NS_MAX: u64 = 3_600_000_000_000;

/// The smallest window: two records of the largest kind, so that one can travel while one is
/// replayed.
pub const WINDOW_BYTES_MIN: u64 = 2 * RECORD_BYTES_MAX as u64;

/// The most log that is kept for a newcomer, with what its batches take beside their bytes: 40 s at
/// 100 Mbit/s of log, in which a transfer at 1 Gbit/s moves 5 GiB; 3.5 million batches of one entry.
pub const KEPT_BYTES_MAX: u64 = 512 << 20;

/// Bytes of memory that a kept batch takes beside those of its entries: its place in the queue, and
/// its allocation.
pub const KEPT_BATCH_BYTES: u64 = 130;

/// Settings of a replica. The same on both sides: they are part of what the handshake compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The regime in which the pair starts.
    pub generation: Generation,
    /// The newest log entry that both sides have when they start.
    pub common: Sequence,
    /// Silence after which the peer counts as gone, in nanoseconds.
    pub timeout_ns: u64,
    /// Most bytes of log that are sent and not yet replayed.
    pub window_bytes_max: u64,
    /// Most bytes of output that wait in the gate before the guest has to.
    pub held_bytes_max: usize,
    /// Most nanoseconds the backup may be behind before the guest has to wait.
    pub lag_ns_max: u64,
    /// Most bytes of log that are kept for a newcomer, and not sent yet, with
    /// [`KEPT_BATCH_BYTES`] for each batch.
    pub kept_bytes_max: u64,
    /// Witnesses this side asks whether clients can reach it, at most [`super::WITNESSES_MAX`]. The
    /// one setting that is each side's own.
    pub witnesses: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            generation: Generation(1),
            common: Sequence(0),
            timeout_ns: 200_000_000,
            window_bytes_max: WINDOW_BYTES_MAX,
            held_bytes_max: 16 << 20,
            lag_ns_max: 500_000_000,
            kept_bytes_max: KEPT_BYTES_MAX,
            witnesses: 0,
        }
    }
}

/// Whole milliseconds, in which settings are given.
const fn ms(ns: u64) -> u64 {
    ns.div_ceil(1_000_000)
}

/// A setting that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The timeout is out of bounds.
    #[error("a timeout of {} ms: give one from {} to {} ms", ms(*found_ns), ms(TIMEOUT_NS_MIN), ms(TIMEOUT_NS_MAX))]
    Timeout {
        /// The timeout that was given.
        found_ns: u64,
    },
    /// There is no generation after it.
    #[error("generation {found}: give a smaller one, the next must be a number too")]
    Generation {
        /// The generation that was given.
        found: u32,
    },
    /// The window holds too little, or more than the transport queues.
    #[error("a window of {found} bytes: give one from {WINDOW_BYTES_MIN} to {WINDOW_BYTES_MAX}")]
    Window {
        /// The window that was given.
        found: u64,
    },
    /// The lag limit is finer than lag is known.
    #[error("a lag limit of {} ms: give at least {} ms, half the timeout", ms(*found_ns), ms(*min_ns))]
    Lag {
        /// The lag limit that was given.
        found_ns: u64,
        /// Half the timeout: the backup reports on its replay at least every eighth of it.
        min_ns: u64,
    },
}

/// A channel that is too slow for the timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a round trip of the logging channel takes {}.{:03} ms, and a timeout of {} ms bears at most {} ms: start both sides with a timeout of at least {} ms (--timeout-ms)",
    round_trip_ns / NS_PER_MS, round_trip_ns / NS_PER_US % 1_000, timeout_ns / NS_PER_MS, round_trip_ns_max / NS_PER_MS, timeout_ns_min / NS_PER_MS
)]
pub struct RoundTripError {
    /// The round trip that was measured.
    pub round_trip_ns: u64,
    /// The timeout.
    pub timeout_ns: u64,
    /// The longest that it bears.
    pub round_trip_ns_max: u64,
    /// The smallest timeout that would do.
    pub timeout_ns_min: u64,
}

impl Config {
    /// Refuses a channel on which outputs would wait for ever.
    ///
    /// # Errors
    /// [`RoundTripError`] names the smallest timeout that would do.
    pub fn check_round_trip(&self, round_trip_ns: u64) -> Result<(), RoundTripError> {
        let round_trip_ns_max = self.round_trip_ns_max();
        if round_trip_ns <= round_trip_ns_max {
            return Ok(());
        }
        Err(RoundTripError {
            round_trip_ns,
            timeout_ns: self.timeout_ns,
            round_trip_ns_max,
            timeout_ns_min: Self::timeout_ns_for(round_trip_ns),
        })
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(TIMEOUT_NS_MIN..=TIMEOUT_NS_MAX).contains(&self.timeout_ns) {
            return Err(ConfigError::Timeout {
                found_ns: self.timeout_ns,
            });
        }
        if self.generation.0 == u32::MAX {
            return Err(ConfigError::Generation {
                found: self.generation.0,
            });
        }
        if !(WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX).contains(&self.window_bytes_max) {
            return Err(ConfigError::Window {
                found: self.window_bytes_max,
            });
        }
        let min_ns = self.timeout_ns / 2;
        if self.lag_ns_max < min_ns {
            return Err(ConfigError::Lag {
                found_ns: self.lag_ns_max,
                min_ns,
            });
        }
        Ok(())
    }

    /// Time between heartbeats.
    #[must_use]
    pub fn heartbeat_ns(&self) -> u64 {
        self.timeout_ns / 8
    }

    /// Time for which the primary may release outputs after it sent a heartbeat that the backup has
    /// echoed. See `docs/failover.md` for the argument and its margin.
    #[must_use]
    pub fn lease_ns(&self) -> u64 {
        self.timeout_ns / 2
    }

    /// The longest round trip with which a pair can work. The lease must be renewed before it is
    /// over: an echo renews it for half a timeout from the heartbeat it answers, and the next comes
    /// an eighth later. That leaves three eighths; a third leaves a little for what varies.
    #[must_use]
    pub fn round_trip_ns_max(&self) -> u64 {
        self.timeout_ns / 3
    }

    /// The smallest timeout that bears this round trip, rounded up to 10 ms, so that it bears the
    /// next measurement too.
    #[must_use]
    pub fn timeout_ns_for(round_trip_ns: u64) -> u64 {
        let timeout_ns = round_trip_ns.saturating_mul(3).max(TIMEOUT_NS_MIN);
        timeout_ns
            .div_ceil(TIMEOUT_STEP_NS)
            .saturating_mul(TIMEOUT_STEP_NS)
    }

    /// Time for which the lease may be over, while the backup is heard, before the primary goes on
    /// without it. Longer than the backup's timeout: if it is the primary that is no longer heard,
    /// the backup acts first.
    #[must_use]
    pub fn unleased_ns_max(&self) -> u64 {
        self.timeout_ns * 2
    }

    /// Silence after which the primary claims: before the backup does, because going on costs
    /// clients less than moving.
    #[must_use]
    pub fn primary_timeout_ns(&self) -> u64 {
        self.timeout_ns / 8 * 7
    }

    /// The most silence the backup counts between two of its steps: a clock that jumps, or a
    /// process that was stopped, shortens the primary's lease by no more than this.
    #[must_use]
    pub fn credit_ns_max(&self) -> u64 {
        self.timeout_ns / 4
    }
}
