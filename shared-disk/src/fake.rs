//! A fake for tests: a store in memory, which answers at once.

use std::collections::BTreeMap;
use std::future::ready;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstep_generation::Generation;

use crate::store::{Asked, Store, TestAndSet};
use crate::{Claimant, PairName, StoreError, Verdict};

/// A store whose content ends with its last clone.
#[derive(Clone, Debug, Default)]
pub struct FakeStore(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    identity: Option<[u8; 16]>,
    pairs: BTreeMap<[u8; 16], BTreeMap<Generation, Claimant>>,
    hangs: bool,
}

/// The claims of one pair in a [`FakeStore`].
#[derive(Clone, Debug)]
pub struct FakeClaims {
    store: FakeStore,
    pair: PairName,
}

impl FakeStore {
    /// From now on questions are never answered, and change nothing; or are answered again.
    pub fn hang(&self, hangs: bool) {
        self.content().hangs = hangs;
    }

    /// The claims of `pair`, for those who cannot wait for a future.
    #[must_use]
    pub fn claims(&self, pair: PairName) -> FakeClaims {
        self.content().pairs.entry(pair.0).or_default();
        FakeClaims {
            store: self.clone(),
            pair,
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<T: Send + 'static>(&self, question: impl FnOnce() -> Result<T, StoreError>) -> Asked<T> {
        if self.content().hangs {
            Box::pin(std::future::pending())
        } else {
            Box::pin(ready(question()))
        }
    }
}

impl Store for FakeStore {
    fn place(&self) -> String {
        "in memory".to_owned()
    }

    fn identity(&self, fresh: [u8; 16]) -> Asked<[u8; 16]> {
        self.answer(|| Ok(*self.content().identity.get_or_insert(fresh)))
    }

    fn open(&self, pair: PairName) -> Asked<Arc<dyn TestAndSet>> {
        self.answer(|| Ok(Arc::new(self.claims(pair)) as Arc<dyn TestAndSet>))
    }
}

impl FakeClaims {
    /// As [`TestAndSet::claim`], at once.
    ///
    /// # Errors
    /// The claims were removed.
    pub fn claim_now(&self, generation: Generation, claimant: &Claimant) -> Result<Verdict, StoreError> {
        let mut content = self.store.content();
        let claims = content.pairs.get_mut(&self.pair.0).ok_or_else(removed)?;
        let winner = claims.entry(generation).or_insert_with(|| claimant.clone());
        Ok(if winner == claimant {
            Verdict::Won
        } else {
            Verdict::Lost {
                winner: winner.clone(),
            }
        })
    }
}

impl FakeClaims {
    /// Who has won `generation`.
    #[must_use]
    pub fn winner(&self, generation: Generation) -> Option<Claimant> {
        let content = self.store.content();
        content.pairs.get(&self.pair.0)?.get(&generation).cloned()
    }
}

impl TestAndSet for FakeClaims {
    fn claim(&self, generation: Generation, claimant: &Claimant) -> Asked<Verdict> {
        self.store.answer(|| self.claim_now(generation, claimant))
    }

    fn prepare(&self, _: Generation, _: &Claimant) -> Asked<()> {
        self.store.answer(|| Ok(()))
    }

    fn remove(&self) -> Asked<()> {
        let remove = || self.store.content().pairs.remove(&self.pair.0);
        self.store.answer(|| remove().map(drop).ok_or_else(removed))
    }
}

fn removed() -> StoreError {
    StoreError::Unreachable {
        path: "in memory".into(),
        doing: "look up",
        source: Error::from(ErrorKind::NotFound),
    }
}
