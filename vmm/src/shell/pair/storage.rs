//! Claims on shared storage, off the replica loop: a store may take its time.
//!
//! A system call on storage that hangs may hang for ever, and its thread with it. So each question has a thread of its own, and a question
//! that is not answered is asked again beside it: the first answer counts. At the start [`patiently`] does that; later the role machine
//! decides when to ask, and how many questions may be open.

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
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

/// Pause at the start before storage that cannot be reached is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Silence at the start after which the storage is asked again on another thread; doubled each time.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Threads that may hang in the storage at the start. Asked after 0, 1, 3, 7 and 15 s: with a patience of 30 s there is no sixth.
const QUESTIONS_MAX: usize = 5;
/// Time between two lines about storage that does not answer, or cannot be reached, at the start.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

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
/// As [`patiently`].
pub async fn identity(
    directory: &Path,
    fresh: [u8; 16],
    patience: Duration,
) -> Result<[u8; 16], CommandError> {
    let place = directory.to_owned();
    patiently(directory, patience, move || {
        DirectoryStore::identity(&place, fresh)
    })
    .await
}

/// Asks the storage in `directory`, at the start. What may pass is tried again for `patience`: it hangs, it cannot be reached, it is not
/// mounted yet. Says so.
///
/// # Errors
/// [`CommandError::Setting`]: it cannot be used; at once where only a person can help.
async fn patiently<T: Send + 'static>(
    directory: &Path,
    patience: Duration,
    question: impl Fn() -> Result<T, StoreError> + Clone + Send + 'static,
) -> Result<T, CommandError> {
    let (to_us, mut answers) = mpsc::unbounded_channel();
    let ask = || {
        let (to_us, question) = (to_us.clone(), question.clone());
        // Nobody waits for the answer where another came first.
        spawn_blocking(move || drop(to_us.send(question())));
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
            () = sleep_until(wake_at) => silent(directory, open).to_string(),
        };
        if Instant::now() >= deadline {
            return Err(last.unwrap_or_else(|| silent(directory, open)));
        }
        if told_at.is_none_or(|at| at.elapsed() >= TELL_INTERVAL) {
            told_at = Some(Instant::now());
            let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
            tracing::warn!("{trouble}; trying for another {seconds} s");
        }
    }
}

/// The storage has answered none of so many questions.
fn silent(directory: &Path, open: usize) -> CommandError {
    let threads = if open == 1 {
        "a thread waits"
    } else {
        "threads wait"
    };
    let why = format!(
        "shared storage {} does not answer ({open} {threads}): is its server reachable?",
        directory.display()
    );
    CommandError::setting("shared-directory", why)
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
    /// The store of `pair` in `directory`; answers come on the receiver, one for each claim at most.
    ///
    /// # Errors
    /// As [`patiently`].
    pub async fn open(
        directory: &Path,
        pair: [u8; 16],
        claimant: Claimant,
        patience: Duration,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Answer>), CommandError> {
        let place = directory.to_owned();
        let store = patiently(directory, patience, move || {
            DirectoryStore::open(&place, PairName(pair))
        })
        .await?;
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
        spawn_blocking(move || {
            let prepared = store.prepare(generation, &claimant);
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
        spawn_blocking(move || {
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

#[cfg(test)]
mod tests {
    use super::*;
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

    /// What comes of a storage that fails like this `failures` times, how often it was asked, and for how long.
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
        let outcome = patiently(Path::new("/shared"), PATIENCE, question).await;
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
