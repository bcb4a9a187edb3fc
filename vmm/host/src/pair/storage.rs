//! Claims on shared storage, off the replica loop: a store may take its time.
//!
//! A question may hang for ever. So one that is not answered is asked again beside it: the first
//! answer counts. At the start [`patiently`] does that; later the role machine decides when to ask,
//! and how many questions may be open. What sort of store it is, is known to [`store`] only.

use super::stop_point::{Step, pass};
use crate::configuration::PairConfiguration;
use crate::error::RunError;
use lockstep_core::replica::role::Outcome;
use lockstep_logging_channel::Generation;
use lockstep_process::causes::with_causes;
use lockstep_shared_disk::{
    Asked, Claim, DirectoryStore, MachineName, MachineStore, Step as StoreStep, Store, StoreError, Verdict,
};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Pause between two looks into the store of a side that waits.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Pause at the start before storage that cannot be reached is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Silence at the start after which the storage is asked again on another thread; doubled each
/// time.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Threads that may hang in the storage at the start. Asked after 0, 1, 3, 7 and 15 s: with a
/// patience of 30 s there is no sixth.
const QUESTIONS_MAX: usize = 5;
/// Time between two lines about storage that does not answer, or cannot be reached, at the start.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// A claim and its answer.
pub type Answer = (Generation, Outcome);

/// The claims of a machine, and who claims.
pub struct Storage {
    machine: Arc<dyn MachineStore>,
    /// This side's claim of any generation.
    claim: Claim,
    answers: mpsc::UnboundedSender<Answer>,
}

/// The store that the settings name; `None` where they name none.
#[must_use]
pub fn store(pair: &PairConfiguration) -> Option<Arc<dyn Store>> {
    pair.shared_directory.as_deref().map(at)
}

/// The store in `directory`.
#[must_use]
pub fn at(directory: &Path) -> Arc<dyn Store> {
    let store = DirectoryStore::new(directory).observed(|made| {
        if made == StoreStep::Linked {
            pass(Step::ClaimLinked);
        }
    });
    Arc::new(store)
}

/// The identity of the store, so that the two sides can tell whether they reach the same.
///
/// # Errors
/// As [`patiently`].
pub async fn identity(store: &dyn Store, fresh: [u8; 16], patience: Duration) -> Result<[u8; 16], RunError> {
    patiently(&store.place(), patience, || store.identity(fresh)).await
}

/// The machine's part of the store, which is made if it is not there.
///
/// # Errors
/// As [`patiently`].
pub async fn open(
    store: &dyn Store,
    name: &MachineName,
    patience: Duration,
) -> Result<Arc<dyn MachineStore>, RunError> {
    patiently(&store.place(), patience, || store.open(name)).await
}

/// Asks the storage in `place`, at the start. What may pass is tried again for `patience`: it
/// hangs, it cannot be reached, it is not mounted yet. Says so.
///
/// # Errors
/// [`RunError::Setting`]: it cannot be used; at once where only a person can help.
pub(super) async fn patiently<T: Send + 'static>(
    place: &str,
    patience: Duration,
    question: impl Fn() -> Asked<T>,
) -> Result<T, RunError> {
    let (to_us, mut answers) = mpsc::unbounded_channel();
    let ask = || {
        let (to_us, answer) = (to_us.clone(), question());
        // Nobody waits for the answer where another came first.
        tokio::spawn(async move { drop(to_us.send(answer.await)) });
    };
    let deadline = Instant::now() + patience;
    let (mut open, mut silence, mut ask_at) = (0, ASK_AGAIN, Instant::now());
    let mut last = None;
    let mut told_at: Option<Instant> = None;
    loop {
        if Instant::now() >= ask_at && open < QUESTIONS_MAX {
            ask();
            open += 1;
            ask_at = Instant::now() + silence;
            silence *= 2;
        }
        let wake_at = if open < QUESTIONS_MAX {
            ask_at.min(deadline)
        } else {
            deadline
        };
        let trouble = tokio::select! {
            biased;
            Some(answer) = answers.recv() => match answer {
                Ok(answer) => return Ok(answer),
                Err(why) if !why.may_pass() => return Err(unusable(&why)),
                Err(why) => {
                    open -= 1;
                    (silence, ask_at) = (ASK_AGAIN, Instant::now() + RETRY_PAUSE);
                    last.insert(unusable(&why)).to_string()
                }
            },
            () = sleep_until(wake_at) => trouble(place, open, last.as_ref()),
        };
        if Instant::now() >= deadline {
            return Err(last.unwrap_or_else(|| silent(place, open)));
        }
        if told_at.is_none_or(|at| at.elapsed() >= TELL_INTERVAL) {
            told_at = Some(Instant::now());
            let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
            tracing::warn!("{trouble}; trying for another {seconds} s");
        }
    }
}

/// Trouble with the storage: where it has answered every question, what it said last.
fn trouble(place: &str, open: usize, last: Option<&RunError>) -> String {
    match last {
        Some(why) if open == 0 => why.to_string(),
        _ => silent(place, open).to_string(),
    }
}

/// The storage has answered none of so many questions.
pub fn silent(place: &str, open: usize) -> RunError {
    let threads = if open == 1 {
        "a thread waits"
    } else {
        "threads wait"
    };
    let why = format!("shared storage {place} does not answer ({open} {threads}): is its server reachable?");
    RunError::setting("shared-directory", why)
}

/// An error of the store, with its causes.
pub fn unusable(why: &StoreError) -> RunError {
    if matches!(why, StoreError::Taken { .. }) {
        return RunError::setting("name", format!("{why}: give the machine another one"));
    }
    RunError::setting("shared-directory", with_causes(why))
}

impl Storage {
    /// Claims as `claim` says, of whatever generation; answers come on the receiver, one for each
    /// claim at most.
    #[must_use]
    pub fn new(machine: Arc<dyn MachineStore>, claim: Claim) -> (Self, mpsc::UnboundedReceiver<Answer>) {
        let (answers, receiver) = mpsc::unbounded_channel();
        let storage = Self {
            machine,
            claim,
            answers,
        };
        (storage, receiver)
    }

    /// Makes ready to claim `generation`, so that claiming takes one wait for the disk less.
    pub fn prepare(&self, generation: Generation) {
        let prepared = self.machine.prepare(&self.claim.of(generation));
        tokio::spawn(async move {
            if let Err(why) = prepared.await {
                // Only slower: the claim does it all.
                tracing::debug!("the claim is not prepared: {why}");
            }
        });
    }

    /// Claims `generation`; the answer comes on the receiver.
    pub fn claim(&self, generation: Generation) {
        pass(Step::BeforeClaim);
        let verdict = self.machine.claim(&self.claim.of(generation));
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let verdict = verdict.await;
            pass(Step::AfterClaim);
            // Nobody waits for it when the replica has halted meanwhile.
            let _ = answers.send((generation, outcome(verdict)));
        });
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::io;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const PATIENCE: Duration = Duration::from_secs(30);

    fn failure(kind: io::ErrorKind) -> StoreError {
        let (path, doing, source) = (PathBuf::from("/shared"), "sync", kind.into());
        match kind {
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => StoreError::Unusable {
                path,
                doing,
                hint: "do something about it",
                source,
            },
            _ => StoreError::Unreachable { path, doing, source },
        }
    }

    #[test]
    fn storage_that_has_answered_everything_is_not_called_silent() {
        let last = unusable(&failure(io::ErrorKind::NotFound));
        assert_eq!(trouble("/shared", 0, Some(&last)), last.to_string());
        assert!(trouble("/shared", 1, Some(&last)).contains("does not answer"));
        assert!(trouble("/shared", 0, None).contains("does not answer"));
    }

    /// Outcome with a storage that fails like this `failures` times, how often it was asked, and
    /// for how long.
    async fn asked(kind: io::ErrorKind, failures: usize) -> (Result<(), String>, usize, Duration) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let start = Instant::now();
        let question = move || {
            let earlier = counted.fetch_add(1, Ordering::SeqCst);
            if earlier < failures {
                Err(failure(kind))
            } else {
                Ok(())
            }
        };
        let outcome = patiently("/shared", PATIENCE, || Box::pin(ready(question()))).await;
        let outcome = outcome.map_err(|why| why.to_string());
        (outcome, count.load(Ordering::SeqCst), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again() {
        for kind in [io::ErrorKind::StaleNetworkFileHandle, io::ErrorKind::NotFound] {
            let (outcome, count, _) = asked(kind, 7).await;
            assert_eq!((outcome, count), (Ok(()), 8));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_in_time_is_told_with_its_cause() {
        let (outcome, count, waited) = asked(io::ErrorKind::StaleNetworkFileHandle, usize::MAX).await;
        let why = outcome.unwrap_err();
        assert!(
            why.contains("cannot be reached (sync)") && why.contains("stale"),
            "{why}"
        );
        assert!(
            count > 100 && waited >= PATIENCE && waited < PATIENCE + ASK_AGAIN,
            "{count} in {waited:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_a_person_can_mend_is_told_at_once() {
        let (outcome, count, waited) = asked(io::ErrorKind::PermissionDenied, usize::MAX).await;
        assert!(outcome.unwrap_err().contains("do something about it"));
        assert_eq!((count, waited), (1, Duration::ZERO));
    }
}
