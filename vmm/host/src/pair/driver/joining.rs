//! Newcomers, as the loop of a side that acts alone sees them.
//!
//! ```text
//!   Arrival::Newcomer -> Sending -> (Input::SavedAt, from the vCPU) -> the connection: Input::Joined -> Report::Armed
//!                           |                                                   |
//!                           +---- lost: Input::NewcomerLost --------------------+--> Report::NewcomerLost
//! ```

use super::Driver;
use crate::error::RunError;
use crate::pair::copying::Compared;
use crate::pair::link::Link;
use crate::pair::newcomers::{Arrival, Place};
use crate::pair::sending::{Lost, Newcomer, Sending, SentDisks, Wanted};
use crate::pair::stop_point::{Step, pass};
use lockstep_core::replica::driving::telling;
use lockstep_core::replica::role::{Cause, Input, Report};
use lockstep_logging_channel::Generation;
use lockstep_logging_channel::message::FollowsBy;
use lockstep_logging_channel::transport::Connection;
use lockstep_process::causes::with_causes;
use lockstep_process::clock::role_ns;
use lockstep_shared_disk::Line;
use serde_json::json;
use std::time::Duration;

impl Driver {
    /// Takes what happens at the reception.
    pub(super) fn arrived(&mut self, arrival: Arrival) -> Result<(), RunError> {
        match arrival {
            Arrival::Listening(address) => {
                tracing::info!(%address, "a newcomer can join");
                let fields = json!({ "address": address.to_string() });
                self.parts.reporter.event("listening", fields);
                self.parts.holding.listens(None);
                self.publish();
                Ok(())
            }
            Arrival::Deaf(why) => {
                if self.parts.holding.listens(Some(&why)) {
                    tracing::warn!("no newcomer can join: {why}; trying again");
                }
                self.publish();
                Ok(())
            }
            Arrival::Newcomer(connection, place) => {
                // A capture made for another newcomer is taken before this one is known.
                telling::all_waiting(self)?;
                if self.standing.alone {
                    self.begin_to_send(connection, place);
                }
                Ok(())
            }
        }
    }

    fn begin_to_send(&mut self, connection: Connection, place: Place) {
        pass(Step::Welcomed);
        tracing::info!("a newcomer joins: {}", connection.peer());
        let fields = json!({ "peer": connection.peer() });
        let parts = &mut self.parts;
        parts.reporter.joins();
        parts.reporter.event("newcomer", fields);
        parts.peer = Some(connection.peer().to_owned());
        parts.holding.other_changes();
        let control = parts.control.clone();
        parts.sending = Some(Sending::begin(Wanted {
            connection,
            place,
            control,
            pair: parts.pair,
            pace: parts.pace,
            follows_by: parts.follows.by(),
            disks: SentDisks {
                images: parts.images.mirrored(),
                watch: parts.disks.watch(),
                generation: parts.replica.generation(),
            },
        }));
        self.publish();
    }

    /// The newcomer has loaded the machine, or is lost.
    pub(super) fn sent(&mut self, outcome: Result<Newcomer, Lost>) -> Result<(), RunError> {
        // The capture was told before the last of the machine was sent.
        telling::all_waiting(self)?;
        self.parts.sending = None;
        match outcome {
            Ok(newcomer) => {
                pass(Step::BeforeJoined);
                self.parts.reporter.event("sent", fields(&newcomer));
                let Newcomer {
                    connection, place, ..
                } = newcomer;
                self.parts.holding.other_changes();
                self.parts.link = Link::over(connection);
                self.place = Some(place);
                self.peer_left = false;
                self.step(Input::Joined)?;
                pass(Step::AfterJoined);
                Ok(())
            }
            Err(why) => {
                // The role machine knows of it from the capture on, and reports its loss then.
                tracing::debug!("a newcomer was lost: {why}");
                self.parts.disks.alone();
                self.parts.peer = None;
                self.publish();
                if self.knows_newcomer {
                    return self.step(Input::NewcomerLost { why });
                }
                tracing::warn!("the newcomer is lost: {why}; the machine runs on");
                self.parts
                    .reporter
                    .event("newcomer_lost", json!({ "cause": why }));
                Ok(())
            }
        }
    }

    /// The machine was captured. One for whom nobody waits any more is lost again.
    pub(super) fn saved(&mut self) -> Result<(), RunError> {
        pass(Step::SavedAt);
        if self.parts.sending.is_some() {
            return Ok(());
        }
        let why = "it was lost before the machine was captured".to_owned();
        self.step(Input::NewcomerLost { why })
    }

    /// Does what follows from a report for the reception and for the transfer to a newcomer.
    pub(super) fn reported(&mut self, report: &Report) {
        if let Report::Noticed { cause } | Report::NewcomerLost { cause } = report {
            self.other_diverged(cause);
        }
        self.publish();
        match report {
            Report::Won { generation } => {
                // From now on it is this side that others look for.
                self.parts.holding.take_over(*generation);
            }
            Report::Solo { generation } | Report::Live { generation, .. } => {
                self.parts.peer = None;
                self.parts.disks.alone();
                self.owns_images(*generation);
                self.parts.holding.other_changes();
                self.parts.newcomers.open(*generation);
            }
            Report::Saved { .. } => self.knows_newcomer = true,
            Report::NewcomerLost { .. } => {
                // Nobody needs the log of this machine.
                self.parts.shared.go_alone();
                self.parts.disks.alone();
                self.forget_newcomer();
            }
            Report::Armed { .. } if self.standing.live => {
                self.parts.newcomers.close();
                self.forget_newcomer();
                if self.parts.follows.by() == FollowsBy::Checkpoints {
                    // It is not asked what the guest asks here, and chooses no states of the images.
                    self.parts.disks.alone();
                }
                let next = Generation(self.parts.replica.generation().0 + 1);
                self.parts.storage.prepare(next);
            }
            _ => {}
        }
    }

    /// From now on this side's images are the newest: it has replayed everything. The guest does not wait for the record: without
    /// it this image is refused where a machine begins, and no older one is taken for it.
    fn owns_images(&self, generation: Generation) {
        let ownership = self.parts.ownership.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(why) = ownership.holds(generation) {
                tracing::error!("no record beside the images of this side: {}", with_causes(&why));
            }
        });
    }

    fn other_diverged(&mut self, cause: &Cause) {
        let Cause::Diverged {
            sequence,
            part,
            again,
        } = cause
        else {
            return;
        };
        let parts = &mut self.parts;
        let part = Line::shortened(part);
        let count = parts.holding.diverged(&part, *again);
        parts.reporter.counters.peer_divergences += 1;
        tracing::warn!(count, "a replay of this machine has diverged");
        let fields = json!({ "sequence": sequence.0, "part": part.as_str(), "again": again, "count": count });
        parts.reporter.event("peer_diverged", fields);
        if parts.follows.diverged(role_ns(), &part) {
            self.fall_back();
        }
    }

    /// Whoever joins from now on follows by checkpoints.
    fn fall_back(&mut self) {
        let parts = &mut self.parts;
        let follows_by = parts.follows.by();
        parts.newcomers.follow_by(follows_by);
        parts.holding.follows(&parts.follows);
        parts.reporter.follows_by = follows_by;
        let why = parts.follows.why().unwrap_or_default();
        tracing::warn!("this machine falls back to checkpoints: {why}");
        let fields = json!({ "mode": follows_by.to_string(), "why": why });
        parts.reporter.event("fell_back", fields);
    }

    fn forget_newcomer(&mut self) {
        (self.parts.sending, self.place) = (None, None);
        self.knows_newcomer = false;
    }

    /// Publishes how the machine is.
    pub(super) fn publish(&mut self) {
        let parts = &mut self.parts;
        let statistics = parts.replica.statistics();
        let sent = parts.sending.as_ref().map(Sending::progress);
        let follows_by = parts.follows.by();
        parts
            .holding
            .publish(&statistics, parts.peer.as_deref(), sent, follows_by);
        parts.disks.replayed(statistics.replayed);
        parts.holding.publish_disks(parts.disks.states());
    }
}

/// Fields of the report of a machine that was sent.
fn fields(newcomer: &Newcomer) -> serde_json::Value {
    let Newcomer {
        sent,
        took,
        disks,
        compared,
        ..
    } = newcomer;
    let ns = |time: &Duration| time.as_nanos() as u64;
    json!({
        "bytes": sent.bytes,
        "pages": sent.pages,
        "rounds": sent.rounds,
        "copied_pages": sent.copied,
        "declined": sent.declined,
        "pause_ns": ns(&sent.pause),
        "took_ns": ns(took),
        "disk_bytes_compared": disks.compared_bytes,
        "disk_bytes_copied": disks.copied_bytes,
        "disks": compared.iter().map(Compared::fields).collect::<Vec<_>>(),
    })
}
