//! What a replica tells people and programs: messages on standard error, and JSON lines in the report file.
//!
//! A report line has `at_ns` (CLOCK_MONOTONIC), `event`, and the event's own fields. `statistics` is written now and then, and `summary`
//! last, with the same fields.

use super::{clock, flowing};
use crate::replica::role::{Cause, Report};
use crate::shell::status::CommandError;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write;
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
}

fn histogram() -> Result<Histogram<u64>, CommandError> {
    Histogram::new_with_max(TIME_US_MAX, 3).map_err(|why| CommandError::Other {
        what: "statistics".to_owned(),
        source: Box::new(why),
    })
}

impl Counters {
    /// All zero.
    ///
    /// # Errors
    /// Never for these constant bounds; the library's signature.
    pub fn new() -> Result<Self, CommandError> {
        Ok(Self {
            log_entries: 0,
            log_bytes: 0,
            outputs: 0,
            divergences: 0,
            held_us: histogram()?,
            lag_us: histogram()?,
            round_trip_us: histogram()?,
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
        })
    }

    /// An output left after waiting.
    pub fn held(&mut self, held_ns: u64) {
        self.outputs += 1;
        self.held_us.saturating_record(held_ns / NS_PER_US);
    }
}

/// Writes reports.
pub struct Reporter {
    file: Option<File>,
    written: Instant,
    /// What is counted.
    pub counters: Counters,
}

impl Reporter {
    /// Reports to `path`, if there is one, appending.
    ///
    /// # Errors
    /// [`CommandError::File`].
    pub fn open(path: Option<&Path>) -> Result<Self, CommandError> {
        let open = |path: &Path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|source| CommandError::File {
                    action: "write the report file",
                    path: path.to_owned(),
                    source,
                })
        };
        let file = path.map(open).transpose()?;
        Ok(Self {
            file,
            written: Instant::now(),
            counters: Counters::new()?,
        })
    }

    /// Writes an event.
    pub fn event(&mut self, event: &str, fields: Value) {
        let Some(file) = &mut self.file else { return };
        let mut line = json!({ "at_ns": clock::monotonic_ns(), "event": event });
        if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
            line.extend(fields);
        }
        // One write a line, so that a killed process leaves whole lines. A report that cannot be written stops no failover.
        if let Err(why) = file.write_all(format!("{line}\n").as_bytes()) {
            tracing::warn!(%why, "the report file takes no more");
            self.file = None;
        }
    }

    /// Writes statistics, if it is time.
    pub fn statistics(&mut self) {
        if self.file.is_some() && self.written.elapsed() >= STATISTICS_INTERVAL {
            self.written = Instant::now();
            let counters = self.counters.to_json();
            self.event("statistics", counters);
        }
    }

    /// Writes the last line.
    pub fn summary(&mut self) {
        let counters = self.counters.to_json();
        self.event("summary", counters);
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
            Report::Claiming { generation } => {
                tracing::info!(
                    generation = generation.0,
                    "asking the shared storage for the right to go on alone"
                );
                self.event("claiming", json!({ "generation": generation.0 }));
            }
            Report::StorageUnreachable { attempts, why } => {
                tracing::warn!(
                    attempts,
                    "the shared storage gives no verdict, output is held: {why}"
                );
                self.event("storage_unreachable", json!({ "attempts": attempts, "why": why }));
            }
            Report::StorageSilent { waited_ns } => {
                tracing::warn!(
                    waited_ms = waited_ns / 1_000_000,
                    "the shared storage does not answer, output is held"
                );
                self.event("storage_silent", json!({ "waited_ns": waited_ns }));
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
        Cause::Left { reason } => format!("it said goodbye: {reason}"),
    }
}
