//! Output of a replica for people and programs: messages on standard error, and JSON lines in the
//! report file.
//!
//! A report line has `at_ns` (CLOCK_MONOTONIC), `event`, and the event's own fields. `statistics`
//! is written now and then, and `summary` last, with the same fields.

use super::clock;
use crate::error::RunError;
use hdrhistogram::Histogram;
use lockstep_core::replica::role::{Lease, Statistics};
use lockstep_logging_channel::message::FollowsBy;
use lockstep_network::NetworkCounts;
use lockstep_process::writing::{Writer, standard};
use nix::fcntl::OFlag;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Statistics are written this often, when anything happens.
const STATISTICS_INTERVAL: Duration = Duration::from_millis(100);
const NS_PER_US: u64 = 1_000;
/// Times are counted up to a minute, to three digits; longer ones as a minute.
const TIME_US_MAX: u64 = 60_000_000;

/// Counters of a replica.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Entries of the log, sent or received.
    pub log_entries: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Outputs released.
    pub outputs: u64,
    /// Divergences found here.
    pub divergences: u64,
    /// Divergences that the other sides have reported to this one.
    pub peer_divergences: u64,
    /// Tries of requests of this side's disks that have failed.
    pub disk_failures: u64,
    /// Time that outputs waited, in microseconds.
    pub held_us: Histogram<u64>,
    /// Time by which the backup was behind, in microseconds, sampled.
    pub lag_us: Histogram<u64>,
    /// Round trip of the channel, in microseconds, sampled.
    pub round_trip_us: Histogram<u64>,
    /// Renewals of the primary's lease; zero on a backup.
    pub lease: Lease,
    /// A witness is reached; none where no witness was named.
    pub witness_reached: Option<bool>,
}

fn histogram() -> Result<Histogram<u64>, RunError> {
    Histogram::new_with_max(TIME_US_MAX, 3).map_err(|why| RunError::Other {
        what: "the statistics cannot be kept".to_owned(),
        source: Box::new(why),
    })
}

impl Counters {
    /// All zero.
    ///
    /// # Errors
    /// Never for these constant bounds; the library's signature.
    pub fn new() -> Result<Self, RunError> {
        Ok(Self {
            log_entries: 0,
            log_bytes: 0,
            outputs: 0,
            divergences: 0,
            peer_divergences: 0,
            disk_failures: 0,
            held_us: histogram()?,
            lag_us: histogram()?,
            round_trip_us: histogram()?,
            lease: Lease::default(),
            witness_reached: None,
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "log_entries": self.log_entries,
            "log_bytes": self.log_bytes,
            "outputs": self.outputs,
            "divergences": self.divergences,
            "peer_divergences": self.peer_divergences,
            "held_us_p50": self.held_us.value_at_quantile(0.5),
            "held_us_p99": self.held_us.value_at_quantile(0.99),
            "lag_us_p50": self.lag_us.value_at_quantile(0.5),
            "lag_us_p99": self.lag_us.value_at_quantile(0.99),
            "round_trip_us_p50": self.round_trip_us.value_at_quantile(0.5),
            "round_trip_us_p99": self.round_trip_us.value_at_quantile(0.99),
            "lease_gap_us_max": self.lease.gap_ns_max / NS_PER_US,
            "lease_age_us_max": self.lease.age_ns_max / NS_PER_US,
            "lease_lapses": self.lease.lapses,
            "witness_reached": self.witness_reached,
            "disk_failures": self.disk_failures,
        })
    }

    /// Takes the role machine's figures.
    pub fn sample(&mut self, figures: &Statistics) {
        self.lag_us.saturating_record(figures.lag_ns / NS_PER_US);
        self.witness_reached = figures.witness_reached;
        if figures.round_trip_ns > 0 {
            self.round_trip_us
                .saturating_record(figures.round_trip_ns / NS_PER_US);
            // Only a primary that protects knows of a lease; what it knew is kept.
            self.lease = figures.lease;
        }
    }

    /// An output left after waiting.
    pub fn held(&mut self, held_ns: u64) {
        self.outputs += 1;
        self.held_us.saturating_record(held_ns / NS_PER_US);
    }
}

/// A writer of report lines: a report that cannot be written stops no failover.
fn to_file(file: File) -> Writer {
    let mark = |bytes| {
        let line = json!({ "at_ns": clock::monotonic_ns(), "event": "dropped", "bytes": bytes });
        format!("{line}\n")
    };
    let writer = Writer::start("report", file, mark, |why| {
        tracing::warn!("the report file cannot be written, reports are dropped: {why}");
    });
    standard::keep(writer.clone());
    writer
}

/// Schedule of a complaint that goes on and on: at once, then after pauses that double.
#[derive(Debug)]
pub(super) struct Complaints {
    pause: Duration,
    next: Option<Instant>,
}

impl Complaints {
    const PAUSE_MIN: Duration = Duration::from_secs(1);
    const PAUSE_MAX: Duration = Duration::from_secs(60);

    fn new() -> Self {
        Self {
            pause: Self::PAUSE_MIN,
            next: None,
        }
    }

    /// True if a complaint is due `now`.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.next.is_none_or(|next| now >= next);
        if due {
            self.next = Some(now + self.pause);
            self.pause = (self.pause * 2).min(Self::PAUSE_MAX);
        }
        due
    }
}

/// Writes reports.
pub struct Reporter {
    file: Option<Writer>,
    written: Instant,
    /// Of a storage that gives no verdict.
    pub(super) storage: Complaints,
    /// The counters.
    pub counters: Counters,
    /// Names of the witnesses, in the order in which the role machine counts them.
    pub witnesses: Vec<String>,
    /// Counts of the network, where it is known.
    pub network: Option<NetworkCounts>,
    /// Method by which the backup follows.
    pub follows_by: FollowsBy,
    /// A newcomer has been joining since then.
    pub(super) joining: Option<Instant>,
}

impl Reporter {
    /// Reports to `path`, if there is one, appending.
    ///
    /// # Errors
    /// [`RunError::File`].
    pub fn open(path: Option<&Path>) -> Result<Self, RunError> {
        let open = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                // A FIFO that nobody reads is refused, and not waited for.
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(path)
                .map(to_file)
                .map_err(|source| RunError::File {
                    action: "write the report file",
                    path: path.to_owned(),
                    source,
                })
        };
        let file = path.map(open).transpose()?;
        Ok(Self {
            file,
            written: Instant::now(),
            storage: Complaints::new(),
            counters: Counters::new()?,
            witnesses: Vec::new(),
            network: None,
            follows_by: FollowsBy::default(),
            joining: None,
        })
    }

    /// A newcomer begins to join, or this side does.
    pub fn joins(&mut self) {
        self.joining = Some(Instant::now());
    }

    /// Writes an event.
    pub fn event(&mut self, event: &str, fields: Value) {
        let Some(file) = &self.file else { return };
        let mut line = json!({ "at_ns": clock::monotonic_ns(), "event": event });
        if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
            line.extend(fields);
        }
        file.push(format!("{line}\n").as_bytes());
    }

    /// Writes statistics, if it is time.
    pub fn statistics(&mut self) {
        if self.file.is_some() && self.written.elapsed() >= STATISTICS_INTERVAL {
            self.written = Instant::now();
            let counters = self.numbers();
            self.event("statistics", counters);
        }
    }

    /// Writes the last line.
    pub fn summary(&mut self) {
        let counters = self.numbers();
        self.event("summary", counters);
    }

    /// The counters, what the network has lost, and what could not be written for people.
    fn numbers(&self) -> Value {
        let mut numbers = self.counters.to_json();
        let network = |count: fn(&NetworkCounts) -> u64| self.network.as_ref().map_or(0, count);
        let dropped = json!({
            "frames_dropped": network(NetworkCounts::dropped_frames),
            "frames_dropped_detached": network(NetworkCounts::detached_frames),
            "network_reattachments": network(NetworkCounts::reattachments),
            "console_bytes_dropped": standard::console().dropped_bytes(),
            "message_bytes_dropped": standard::messages().dropped_bytes(),
            "report_bytes_dropped": self.file.as_ref().map_or(0, Writer::dropped_bytes),
        });
        if let (Some(numbers), Value::Object(dropped)) = (numbers.as_object_mut(), dropped) {
            numbers.extend(dropped);
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_repeated_after_growing_pauses() {
        let mut complaints = Complaints::new();
        let begun = Instant::now();
        let said: Vec<u64> = (0..300)
            .filter(|second| complaints.is_due(begun + Duration::from_secs(*second)))
            .collect();
        assert_eq!(said, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
    }
}
