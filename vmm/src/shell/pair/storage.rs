//! Claims on shared storage, off the replica loop: a store may take its time.

use super::stop_point::{Step, pass};
use crate::replica::role::Outcome;
use crate::shell::status::CommandError;
use lockstep_logging_channel::Generation;
use lockstep_shared_disk::{Claimant, DirectoryStore, PairName, Step as StoreStep, StoreError, Verdict};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A replica that is to end within a second gives the removal of a directory this much of it.
const REMOVAL_LIMIT: Duration = Duration::from_millis(200);

/// A claim and its answer.
pub type Answer = (Generation, Outcome);

/// The store of a pair, and who claims on it.
pub struct Storage {
    store: Arc<DirectoryStore>,
    claimant: Claimant,
    answers: mpsc::UnboundedSender<Answer>,
}

/// Names `directory` so that the two sides can tell whether they reach the same storage.
///
/// # Errors
/// [`CommandError::Setting`]: it cannot be used.
pub fn identity(directory: &Path, fresh: [u8; 16]) -> Result<[u8; 16], CommandError> {
    DirectoryStore::identity(directory, fresh).map_err(|why| unusable(&why))
}

fn unusable(why: &StoreError) -> CommandError {
    let mut text = why.to_string();
    let mut source = why.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    CommandError::setting("shared-directory", text)
}

impl Storage {
    /// The store of `pair` in `directory`; answers come on the receiver, one claim at a time.
    ///
    /// # Errors
    /// [`CommandError::Setting`]: it cannot be used.
    pub fn open(
        directory: &Path,
        pair: [u8; 16],
        claimant: Claimant,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Answer>), CommandError> {
        let store = DirectoryStore::open(directory, PairName(pair)).map_err(|why| unusable(&why))?;
        let (answers, receiver) = mpsc::unbounded_channel();
        Ok((
            Self {
                store: Arc::new(store),
                claimant,
                answers,
            },
            receiver,
        ))
    }

    /// Makes ready to claim `generation`, so that claiming takes one wait for the disk less.
    pub fn prepare(&self, generation: Generation) {
        let (store, claimant) = (self.store.clone(), self.claimant.clone());
        tokio::task::spawn_blocking(move || {
            let prepared = store.prepare(lockstep_shared_disk::Generation(generation.0), &claimant);
            if let Err(why) = prepared {
                // Only slower: the claim does it all.
                tracing::debug!("the claim is not prepared: {why}");
            }
        });
    }

    /// Removes what the pair has on the storage: for a replica that ends after its peer has said Goodbye. Then neither asks any more: a
    /// Goodbye is the last thing a replica does, and this one has halted. Storage that is slow keeps its directory.
    pub async fn remove(&self) {
        let store = self.store.clone();
        let removal = tokio::task::spawn_blocking(move || store.remove());
        match tokio::time::timeout(REMOVAL_LIMIT, removal).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(why))) => tracing::debug!("the pair's directory is left: {why}"),
            Ok(Err(_)) | Err(_) => tracing::debug!("the pair's directory is left: the storage is slow"),
        }
    }

    /// Claims `generation`; the answer comes on the receiver.
    pub fn claim(&self, generation: Generation) {
        let (store, claimant, answers) = (self.store.clone(), self.claimant.clone(), self.answers.clone());
        tokio::task::spawn_blocking(move || {
            let verdict = claim(&store, generation, &claimant);
            // Nobody waits for it when the replica has halted meanwhile.
            let _ = answers.send((generation, outcome(verdict)));
        });
    }
}

fn claim(store: &DirectoryStore, generation: Generation, claimant: &Claimant) -> Result<Verdict, StoreError> {
    pass(Step::BeforeClaim);
    let mut observe = |made| {
        if made == StoreStep::Linked {
            pass(Step::ClaimLinked);
        }
    };
    let generation = lockstep_shared_disk::Generation(generation.0);
    let verdict = store.claim_observed(generation, claimant, &mut observe);
    pass(Step::AfterClaim);
    verdict
}

fn outcome(verdict: Result<Verdict, StoreError>) -> Outcome {
    match verdict {
        Ok(Verdict::Won) => Outcome::Won,
        Ok(Verdict::Lost { .. }) => Outcome::Lost,
        Err(why) => {
            let cause = why.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            Outcome::Unreachable {
                why: format!("{why}{cause}"),
            }
        }
    }
}
