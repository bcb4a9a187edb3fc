//! Words for what the role machine says, for people and for programs.

use super::report::Reporter;
use super::{flowing, witness};
use lockstep_core::replica::role::{Cause, Report};
use lockstep_logging_channel::message::FollowsBy;
use lockstep_shared_disk::Line;
use serde_json::json;
use std::time::{Duration, Instant};

impl Reporter {
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
                // The error is what this side ends with.
                tracing::warn!(
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
            Report::SwitchingOver
            | Report::HandedOver { .. }
            | Report::TakingOver { .. }
            | Report::SwitchedOver { .. } => self.switchover(report),
            Report::Replayed { sequence } => {
                let entry = sequence.0;
                match self.follows_by {
                    FollowsBy::Replay => tracing::info!(entry, "replayed everything received"),
                    FollowsBy::Checkpoints => {
                        tracing::info!(entry, "the machine is where the last whole checkpoint is");
                    }
                }
                self.event("replayed", json!({ "sequence": sequence.0 }));
            }
            Report::Live { generation, exits } => {
                tracing::info!(generation = generation.0, exits, "live");
                self.event("live", json!({ "generation": generation.0, "exits": exits }));
            }
            Report::Solo { generation } => {
                tracing::warn!(
                    generation = generation.0,
                    "the machine runs on, and is not protected: going on without a backup"
                );
                self.event("solo", json!({ "generation": generation.0 }));
            }
        }
    }
}

impl Reporter {
    /// Words behind the news that a machine is protected.
    pub(super) fn by_checkpoints(&self) -> &'static str {
        match self.follows_by {
            FollowsBy::Replay => "",
            FollowsBy::Checkpoints => ", by checkpoints",
        }
    }

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
                    "armed: protected from here on{}",
                    self.by_checkpoints()
                );
                let whole_ns = whole.as_nanos() as u64;
                let mode = self.follows_by.to_string();
                let fields =
                    json!({ "sequence": from.0, "took_ns": took_ns, "whole_ns": whole_ns, "mode": mode });
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
                tracing::warn!(generation, discarded, "a later generation exists: fenced");
                let overtaken = json!({ "generation": generation, "discarded": discarded });
                self.event("overtaken", overtaken);
            }
            _ => {}
        }
    }
}

impl Reporter {
    /// Tells of a switchover.
    fn switchover(&mut self, report: &Report) {
        match report {
            Report::SwitchingOver => {
                tracing::info!("a switchover is asked for: the backup is to go on");
                self.event("switching_over", json!({}));
            }
            Report::HandedOver { after, stood_ns } => {
                let stood_us = stood_ns / 1_000;
                tracing::info!(entry = after.0, stood_us, "handed over: the guest stands here");
                let fields = json!({ "sequence": after.0, "stood_ns": stood_ns });
                self.event("handed_over", fields);
            }
            Report::TakingOver { after } => {
                tracing::info!(entry = after.0, "the primary hands over");
                self.event("taking_over", json!({ "sequence": after.0 }));
            }
            Report::SwitchedOver { generation } => {
                let generation = generation.0;
                tracing::info!(generation, "switched over: the other side goes on");
                self.event("switched_over", json!({ "generation": generation }));
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
        Cause::Diverged {
            sequence,
            part,
            again,
        } => {
            let next = if *again {
                "it joins again"
            } else {
                "it does not join again"
            };
            let (sequence, part) = (sequence.0, Line::shortened(part));
            format!("its replay differs from the log at entry {sequence} in its {part}; {next}")
        }
        Cause::Left { reason } => format!("it said goodbye: {reason}"),
    }
}
