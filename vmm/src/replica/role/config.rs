//! What a replica is told when it starts, and the times that follow from it.

use lockstep_logging_channel::transport::WINDOW_BYTES_MAX;
use lockstep_logging_channel::{Generation, RECORD_BYTES_MAX, Sequence};

/// The shortest timeout: its eighth, the time between heartbeats, is then over a millisecond.
pub const TIMEOUT_NS_MIN: u64 = 10_000_000;

/// The longest timeout: an hour. Beyond it a pair protects nothing, and sums of times stay far from overflow.
pub const TIMEOUT_NS_MAX: u64 = 3_600_000_000_000;

/// The smallest window: two records of the largest kind, so that one can travel while one is replayed.
pub const WINDOW_BYTES_MIN: u64 = 2 * RECORD_BYTES_MAX as u64;

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
            witnesses: 0,
        }
    }
}

/// A setting that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The timeout is out of bounds.
    #[error("a timeout of {found_ns} ns: give one from {TIMEOUT_NS_MIN} to {TIMEOUT_NS_MAX} ns")]
    Timeout {
        /// What was given.
        found_ns: u64,
    },
    /// There is no generation after it.
    #[error("generation {found}: give a smaller one, the next must be a number too")]
    Generation {
        /// What was given.
        found: u32,
    },
    /// The window holds too little, or more than the transport queues.
    #[error("a window of {found} bytes: give one from {WINDOW_BYTES_MIN} to {WINDOW_BYTES_MAX}")]
    Window {
        /// What was given.
        found: u64,
    },
    /// The lag limit is finer than lag is known.
    #[error("a lag limit of {found_ns} ns: give at least {min_ns} ns, half the timeout")]
    Lag {
        /// What was given.
        found_ns: u64,
        /// Half the timeout: the backup reports on its replay at least every eighth of it.
        min_ns: u64,
    },
}

impl Config {
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

    /// How long the primary may release outputs after it sent a heartbeat that the backup has echoed.
    /// See `docs/failover.md` for the argument and its margin.
    #[must_use]
    pub fn lease_ns(&self) -> u64 {
        self.timeout_ns / 2
    }

    /// Silence after which the primary claims: before the backup does, because going on costs clients less
    /// than moving.
    #[must_use]
    pub fn primary_timeout_ns(&self) -> u64 {
        self.timeout_ns / 8 * 7
    }

    /// The most silence the backup counts between two of its steps: a clock that jumps, or a process that was
    /// stopped, shortens the primary's lease by no more than this.
    #[must_use]
    pub fn credit_ns_max(&self) -> u64 {
        self.timeout_ns / 4
    }
}
