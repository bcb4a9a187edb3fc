//! Output of a replica for people and programs: messages on standard error, and JSON lines in the
//! report file.
//!
//! A report line has `at_ns` (CLOCK_MONOTONIC), `event`, and the event's own fields. `statistics`
//! is written now and then, and `summary` last, with the same fields.

use super::{clock, flowing, witness};
use crate::error::RunError;
use hdrhistogram::Histogram;
use lockstep_core::replica::role::{Cause, Lease, Report, Statistics};
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
    /// Divergences found.
    pub divergences: u64,
    /// How long outputs waited, in microseconds.
    pub held_us: Histogram<u64>,
    /// How far the backup was behind, in microseconds, sampled.
    pub lag_us: Histogram<u64>,
    /// Round trip of the channel, in microseconds, sampled.
    pub round_trip_us: Histogram<u64>,
    /// How the primary's lease was renewed; zero on a backup.
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

/// When a complaint that goes on and on is repeated: at once, then after pauses that double.
#[derive(Debug)]
struct Complaints {
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

    /// Whether to complain `now`.
    fn is_due(&mut self, now: Instant) -> bool {
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
    storage: Complaints,
    /// What is counted.
    pub counters: Counters,
    /// Names of the witnesses, in the order in which the role machine counts them.
    pub witnesses: Vec<String>,
    /// Counts of the network, where it is known.
    pub network: Option<NetworkCounts>,
    /// A newcomer has been joining since then.
    joining: Option<Instant>,
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

    /// Tells what the role machine says.
    pub fn role(&mut self, report: &Report) {
        match report {
            Report::Noticed { cause } => {
                let cause = cause_text(cause);
                tracing::warn!("the peer is gone: {cause}");
                self.event("noticed", json!({ "cause": cause }));
            }
            Report::RoundTripTooLong { .. } | Report::Held { .. } | Report::Flows { .. } => {
                flowing::tell(self, report);
            }
            Report::WaitingOutLease => {
                tracing::warn!("waiting until the peer can no longer speak");
                self.event("waiting_out_lease", json!({}));
            }
            Report::WaitingForWitness { .. } | Report::WitnessLost { .. } | Report::WitnessBack { .. } => {
                witness::tell(self, report);
            }
            Report::Claiming { generation } => {
                tracing::info!(
                    generation = generation.0,
                    "asking the shared storage for the right to go on alone"
                );
                self.event("claiming", json!({ "generation": generation.0 }));
            }
            Report::StorageUnreachable { attempts, why } => {
                if self.storage.is_due(Instant::now()) {
                    tracing::warn!(
                        attempts,
                        "the shared storage gives no verdict, output is held: {why}"
                    );
                }
                self.event("storage_unreachable", json!({ "attempts": attempts, "why": why }));
            }
            Report::StorageSilent { waited_ns, open } => {
                if self.storage.is_due(Instant::now()) {
                    tracing::warn!(
                        waited_ms = waited_ns / 1_000_000,
                        open,
                        "the shared storage does not answer, output is held"
                    );
                }
                self.event("storage_silent", json!({ "waited_ns": waited_ns, "open": open }));
            }
            Report::Won { generation } => {
                tracing::info!(generation = generation.0, "won the test-and-set");
                self.event("won", json!({ "generation": generation.0 }));
            }
            Report::Lost {
                generation,
                discarded,
            } => {
                tracing::error!(
                    generation = generation.0,
                    discarded,
                    "lost the test-and-set: fenced"
                );
                self.event(
                    "fenced",
                    json!({ "generation": generation.0, "discarded": discarded }),
                );
            }
            Report::Saved { .. }
            | Report::CatchingUp { .. }
            | Report::Armed { .. }
            | Report::NewcomerLost { .. }
            | Report::Overtaken { .. } => self.joining(report),
            Report::Replayed { sequence } => {
                tracing::info!(entry = sequence.0, "replayed everything received");
                self.event("replayed", json!({ "sequence": sequence.0 }));
            }
            Report::Live { generation, exits } => {
                tracing::info!(generation = generation.0, exits, "live");
                self.event("live", json!({ "generation": generation.0, "exits": exits }));
            }
            Report::Solo { generation } => {
                tracing::info!(generation = generation.0, "going on without a backup");
                self.event("solo", json!({ "generation": generation.0 }));
            }
        }
    }
}

impl Reporter {
    /// Tells of a newcomer, and of generations.
    fn joining(&mut self, report: &Report) {
        match report {
            Report::Saved { after } => {
                tracing::info!(entry = after.0, "the state is saved for a newcomer");
                self.event("saved", json!({ "sequence": after.0 }));
            }
            Report::CatchingUp { behind_bytes, lag_ns } => {
                let lag_ms = lag_ns / 1_000_000;
                tracing::info!(behind_bytes, lag_ms, "the newcomer catches up");
                let behind = json!({ "behind_bytes": behind_bytes, "lag_ns": lag_ns });
                self.event("catching_up", behind);
            }
            Report::Armed { from, took_ns } => {
                // The role machine counts from the state, which has to be sent first.
                let catching_up = Duration::from_nanos(*took_ns);
                let whole = self.joining.take().map_or(catching_up, |since| since.elapsed());
                let (took_ms, catching_up_ms) = (whole.as_millis() as u64, catching_up.as_millis() as u64);
                tracing::info!(
                    entry = from.0,
                    took_ms,
                    catching_up_ms,
                    "armed: protected from here on"
                );
                let whole_ns = whole.as_nanos() as u64;
                let fields = json!({ "sequence": from.0, "took_ns": took_ns, "whole_ns": whole_ns });
                self.event("armed", fields);
            }
            Report::NewcomerLost { cause } => {
                let cause = cause_text(cause);
                tracing::warn!("the newcomer is gone: {cause}");
                self.event("newcomer_lost", json!({ "cause": cause }));
            }
            Report::Overtaken {
                generation,
                discarded,
            } => {
                let generation = generation.0;
                tracing::error!(generation, discarded, "a later generation exists: fenced");
                let overtaken = json!({ "generation": generation, "discarded": discarded });
                self.event("overtaken", overtaken);
            }
            _ => {}
        }
    }
}

fn cause_text(cause: &Cause) -> String {
    match cause {
        Cause::Silence { silent_ns } => format!("silent for {} ms", silent_ns / 1_000_000),
        Cause::Closed => "it closed the connection".to_owned(),
        Cause::Broken { why } => format!("the connection broke: {why}"),
        Cause::Violation { why } => format!("it said what no peer says: {why}"),
        Cause::TooFar {
            unleased_ns,
            round_trip_ns,
            timeout_ns_min,
        } => format!(
            "too far away: nothing could leave for {} ms, and a round trip takes at least {} ms; {}",
            unleased_ns / 1_000_000,
            round_trip_ns / 1_000_000,
            flowing::advice(*timeout_ns_min)
        ),
        Cause::LogTooLong { bytes } => {
            format!("the log that is kept for it has become too long: {bytes} bytes")
        }
        Cause::TooSlow { lag_ns } => format!("it does not catch up: it is {} ms behind", lag_ns / 1_000_000),
        Cause::Here { why } => why.clone(),
        Cause::Left { reason } => format!("it said goodbye: {reason}"),
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
