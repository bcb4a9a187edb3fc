//! A replay that differs from the log: the role machine is told, which tells the peer, and the
//! report is kept.

use super::{Driver, Over};
use crate::error::RunError;
use crate::pair::diverging::{self, Again};
use crate::pair::identity::process;
use lockstep_core::machine::divergence::Divergence;
use lockstep_core::replica::driving::telling;
use lockstep_core::replica::replayer::DISK_PART;
use lockstep_core::replica::role::Input;
use lockstep_process::clock::role_ns;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Time that the store has to keep a report: this side has left, and is needed.
const KEEP_LIMIT: Duration = Duration::from_secs(2);

impl Driver {
    /// The replay does not go on.
    pub(super) fn replay_diverged(&mut self, divergence: Box<Divergence>) -> Result<(), RunError> {
        let (sequence, part) = (divergence.sequence, divergence.part.clone());
        if part == DISK_PART {
            // The images differ where nobody has marked anything.
            self.parts
                .images
                .forget_changes(&format!("the replay has diverged at entry {}", sequence.0));
        }
        self.diverged = Some(divergence);
        let again = self.again().is_some();
        let reporter = &mut self.parts.reporter;
        reporter.counters.divergences += 1;
        let fields = json!({ "sequence": sequence.0, "part": part });
        reporter.event("diverged", fields);
        let diverged = Input::Diverged {
            sequence,
            part,
            again,
        };
        telling::ended(self, diverged)
    }

    /// The next life of this side, if it has one.
    fn again(&self) -> Option<Again> {
        let joining = self.parts.reporter.joining;
        let joining = joining.map_or(Duration::ZERO, |since| Instant::elapsed(&since));
        self.parts.diverging.again(role_ns(), joining)
    }

    /// This side has left, to join `again` if it can.
    pub(super) async fn left_diverged(&mut self, again: bool) -> Result<Over, RunError> {
        let Some(divergence) = self.diverged.take() else {
            return Err(RunError::Defect {
                what: "a replay without a report has diverged".to_owned(),
            });
        };
        let kept = self.keep(&divergence).await;
        let next = self.again().filter(|_| again);
        if let Some(again) = next {
            tracing::error!("{}", diverging::bounded(&divergence));
            tracing::warn!(
                count = again.count,
                "the replay has diverged: this side leaves, and joins the machine again as a newcomer"
            );
            return Ok(Over::JoinsAgain(again));
        }
        if let Some(why) = self.parts.diverging.given_up(role_ns()) {
            tracing::warn!("{why}");
            self.parts.reporter.event("gave_up", json!({ "why": why }));
        }
        Err(RunError::BackupDiverged { divergence, kept })
    }

    /// Keeps the report where the other side finds it too. Gives its file.
    async fn keep(&self, divergence: &Divergence) -> Option<PathBuf> {
        let identity = self.parts.holding.identity();
        let folder = identity.machine().folder()?;
        let party = identity.party().clone();
        let report = diverging::report(divergence, &party, self.parts.replica.generation());
        let now_unix_s = process::now_unix_s();
        let keeping = move || diverging::keep(&folder, &party, now_unix_s, &report);
        match timeout(KEEP_LIMIT, tokio::task::spawn_blocking(keeping)).await {
            Ok(Ok(Ok(path))) => {
                tracing::info!("the report is kept as {}", path.display());
                return Some(path);
            }
            Ok(Ok(Err(why))) => tracing::warn!("the report is not kept in the store: {why}"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the report is not kept in the store: it is slow"),
        }
        None
    }
}
