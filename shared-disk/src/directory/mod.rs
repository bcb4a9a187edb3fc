//! A store that is a directory on a file system both machines reach.
//!
//! Its system calls block for as long as the storage does, for ever where it hangs. So each question has a thread of its own,
//! from the pool of the tokio runtime in which it is asked.

mod claims;

use claims::DirectoryClaims;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockstep_generation::Generation;

use crate::publish::Step;
use crate::store::{Asked, Store, TestAndSet};
use crate::{Claimant, PairName, StoreError, Verdict};

/// Told of each system call of a claim when it has been made.
type Observer = Arc<dyn Fn(Step) + Send + Sync>;

/// A directory that both sides reach, with the claims of all pairs in it.
#[derive(Clone)]
pub struct DirectoryStore {
    directory: PathBuf,
    observer: Observer,
}

/// The claims of one pair, each question on a thread of its own.
struct Asking {
    claims: Arc<DirectoryClaims>,
    observer: Observer,
}

impl DirectoryStore {
    /// The store in `directory`, which is not accessed yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            observer: Arc::new(|_| ()),
        }
    }

    /// The same, which tells `observer` of each system call of a claim when it has been made.
    #[must_use]
    pub fn observed(self, observer: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self {
            observer: Arc::new(observer),
            ..self
        }
    }
}

impl Store for DirectoryStore {
    fn place(&self) -> String {
        self.directory.display().to_string()
    }

    fn identity(&self, fresh: [u8; 16]) -> Asked<[u8; 16]> {
        let directory = self.directory.clone();
        on_a_thread(&self.directory, move || {
            DirectoryClaims::identity(&directory, fresh)
        })
    }

    fn open(&self, pair: PairName) -> Asked<Arc<dyn TestAndSet>> {
        let (directory, observer) = (self.directory.clone(), self.observer.clone());
        on_a_thread(&self.directory, move || {
            let claims = Arc::new(DirectoryClaims::open(&directory, pair)?);
            Ok(Arc::new(Asking { claims, observer }) as Arc<dyn TestAndSet>)
        })
    }
}

impl TestAndSet for Asking {
    fn claim(&self, generation: Generation, claimant: &Claimant) -> Asked<Verdict> {
        let (claims, claimant, observer) = (self.claims.clone(), claimant.clone(), self.observer.clone());
        on_a_thread(self.claims.path(), move || {
            claims.claim_observed(generation, &claimant, &mut |step| observer(step))
        })
    }

    fn prepare(&self, generation: Generation, claimant: &Claimant) -> Asked<()> {
        let (claims, claimant) = (self.claims.clone(), claimant.clone());
        on_a_thread(self.claims.path(), move || claims.prepare(generation, &claimant))
    }

    fn remove(&self) -> Asked<()> {
        let claims = self.claims.clone();
        on_a_thread(self.claims.path(), move || claims.remove())
    }
}

/// The answer to a question about `path`, which blocks a thread of its own.
fn on_a_thread<T: Send + 'static>(
    path: &Path,
    question: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Asked<T> {
    let path = path.to_owned();
    let answer = tokio::task::spawn_blocking(question);
    Box::pin(async move {
        // Its thread has panicked, or the runtime ends.
        answer.await.unwrap_or_else(|gone| {
            Err(StoreError::Unreachable {
                path,
                doing: "ask on a thread",
                source: std::io::Error::other(gone),
            })
        })
    })
}

#[cfg(test)]
mod tests;
