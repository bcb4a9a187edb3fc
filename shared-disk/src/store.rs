//! The seam to the store: what a store is asked, and what it promises.
//!
//! A question is asked when its method is called; the future gives the answer, which may never come. Dropping the future does
//! not take the question back: a claim may be made all the same. A question may be asked again beside one that hangs.

use std::pin::Pin;
use std::sync::Arc;

use lockstep_generation::Generation;

use crate::{Claimant, PairName, StoreError, Verdict};

/// An answer on its way. An error means that the answer is unknown: ask again.
pub type Asked<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// A place that both sides of a pair reach.
pub trait Store: Send + Sync {
    /// The place, as people know it.
    fn place(&self) -> String;

    /// Sixteen bytes that stay the same for the life of the place. `fresh`, which should be random, becomes its identity if it
    /// has none. Two sides that find different ones do not share a store.
    fn identity(&self, fresh: [u8; 16]) -> Asked<[u8; 16]>;

    /// Opens the claims of `pair`, and makes a place for them. Does there what a claim does, so that a store that cannot take
    /// claims is refused now.
    fn open(&self, pair: PairName) -> Asked<Arc<dyn TestAndSet>>;
}

/// The claims of one pair: an indivisible test-and-set for each generation.
pub trait TestAndSet: Send + Sync {
    /// Claims `generation` for `claimant`. The first claimant of a generation wins it for ever; a claimant that asks again, also
    /// after an error or a crash, gets the same verdict.
    fn claim(&self, generation: Generation, claimant: &Claimant) -> Asked<Verdict>;

    /// Does beforehand what of a claim decides nothing, so that the claim itself waits less. A claim that was not prepared does
    /// it all.
    fn prepare(&self, generation: Generation, claimant: &Claimant) -> Asked<()>;

    /// Removes every claim of the pair, for a claimant that asks no more, where nobody else asks either. Whoever asks all the
    /// same gets an error: nobody wins.
    fn remove(&self) -> Asked<()>;
}
