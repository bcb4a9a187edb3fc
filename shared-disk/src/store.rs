//! The seam to the store: what a store is asked, and what it promises.
//!
//! A question is asked when its method is called; the future gives the answer, which may never
//! come. Dropping the future does not take the question back: a claim may be made all the same. A
//! question may be asked again beside one that hangs.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use lockstep_generation::Generation;

use crate::{Backup, Claim, Ended, MachineName, Seen, StoreError, Switchover, Verdict};

/// An answer on its way. An error means that the answer is unknown: ask again.
pub type Asked<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// A place that all sides of a machine reach, with what is remembered of every machine.
pub trait Store: Send + Sync {
    /// The place, as people know it.
    fn place(&self) -> String;

    /// Sixteen bytes that stay the same for the life of the place. `fresh`, which should be random,
    /// becomes its identity if it has none. Two sides that find different ones do not share a
    /// store.
    fn identity(&self, fresh: [u8; 16]) -> Asked<[u8; 16]>;

    /// The machines that the store remembers, in order of their names.
    fn names(&self) -> Asked<Vec<MachineName>>;

    /// The machine's part of the store, which is made if it is not there: nothing else makes it.
    /// Does there what a claim does, so that a store that cannot take claims is refused now.
    fn open(&self, name: &MachineName) -> Asked<Arc<dyn MachineStore>>;

    /// The machine's part of the store, whether it is there or not: until somebody has opened it, it
    /// reads as one that nobody has claimed, and cannot be written. For a side that only joins.
    fn expect(&self, name: &MachineName) -> Arc<dyn MachineStore>;

    /// The machine's part of the store, if it is there. Changes nothing.
    fn find(&self, name: &MachineName) -> Asked<Option<Arc<dyn MachineStore>>>;
}

/// Records of one machine in a store: an indivisible test-and-set for each generation, and the
/// records beside the claims.
pub trait MachineStore: Send + Sync {
    /// A folder that processes of this host can use for their sockets, by its absolute path; `None`
    /// if the store has none.
    fn folder(&self) -> Option<PathBuf>;

    /// Claims a generation. Its first claimant wins it for ever; a claimant that asks again, also
    /// after an error or a crash, gets the same verdict.
    fn claim(&self, claim: &Claim) -> Asked<Verdict>;

    /// Does beforehand what of a claim decides nothing, so that the claim itself waits less. A
    /// claim that was not prepared does it all.
    fn prepare(&self, claim: &Claim) -> Asked<()>;

    /// Forgets what `party` has prepared: it ends, and what it prepares after that is not. What
    /// anybody has prepared for a generation that is claimed is forgotten with it.
    fn forget_prepared(&self, party: [u8; 16]) -> Asked<()>;

    /// The claim of the newest generation.
    fn newest(&self) -> Asked<Option<Claim>>;

    /// All claims, the oldest first. They are kept for ever.
    fn history(&self) -> Asked<Vec<Claim>>;

    /// Replaces the sign of life of a generation's holder. Need not outlive a loss of power.
    fn put_seen(&self, seen: &Seen) -> Asked<()>;

    /// The sign of life of the holder of `generation`.
    fn seen(&self, generation: Generation) -> Asked<Option<Seen>>;

    /// Records a newcomer, durably, before it can become a backup.
    fn put_backup(&self, backup: &Backup) -> Asked<()>;

    /// Forgets a newcomer that never became a backup, and never will.
    fn remove_backup(&self, generation: Generation, party: [u8; 16]) -> Asked<()>;

    /// The newcomers that are recorded with `generation`.
    fn backups(&self, generation: Generation) -> Asked<Vec<Backup>>;

    /// Asks the holder of a generation to hand its machine over. Returns the request that it will
    /// find, which is another one where that was made before.
    fn ask_switchover(&self, asked: &Switchover) -> Asked<Switchover>;

    /// The request to the holder of `generation`.
    fn switchover(&self, generation: Generation) -> Asked<Option<Switchover>>;

    /// Forgets the request to the holder of `generation`: it was refused, or is given up.
    fn remove_switchover(&self, generation: Generation) -> Asked<()>;

    /// Records the end of a machine, durably. The first record of a generation stays.
    fn put_ended(&self, ended: &Ended) -> Asked<()>;

    /// The end of the machine, if it ended in `generation`.
    fn ended(&self, generation: Generation) -> Asked<Option<Ended>>;
}
