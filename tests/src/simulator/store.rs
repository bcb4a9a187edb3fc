//! The store of claims: the trait's promise, kept in memory, and the ways in which a real one
//! fails.

use lockstep_shared_disk::fake::{self, FakeMachine, FakeStore};
use lockstep_shared_disk::{Generation, MachineName, Verdict};

use super::plan::StoreFault;

/// Claims, kept for ever.
#[derive(Debug)]
pub struct Claims(FakeMachine);

impl Default for Claims {
    fn default() -> Self {
        Self(FakeStore::default().machine(&MachineName::default()))
    }
}

impl Claims {
    /// A process claims a generation, as [`lockstep_shared_disk::MachineStore`] promises.
    #[must_use]
    pub fn claim(&self, generation: u32, process: u32) -> Verdict {
        self.0
            .claim_now(&fake::claim(Generation(generation), number(process)))
    }

    /// The process that has won this generation.
    #[must_use]
    pub fn winner(&self, generation: u32) -> Option<u32> {
        let [number, ..] = self.0.winner(Generation(generation))?.party.id;
        Some(number.into())
    }

    /// The newest generation that was won, and the process. Who starts a machine claims nothing
    /// here, and who goes on claims the next.
    #[must_use]
    pub fn newest(&self) -> Option<(u32, u32)> {
        let won = |generation| Some((generation, self.winner(generation)?));
        (2..).map_while(won).last()
    }
}

/// A run has fewer than a hundred processes.
fn number(process: u32) -> u8 {
    u8::try_from(process).unwrap_or(u8::MAX)
}

/// The store and its present fault.
#[derive(Debug, Default)]
pub struct Store {
    /// The claims.
    pub claims: Claims,
    fault: Option<(StoreFault, u64)>,
}

/// A test-and-set has two: a claimant, or what it speaks to, can end between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Is the generation taken?
    Test,
    /// It is taken now, unless somebody else was quicker.
    Set,
}

/// What the store does with a claim that has reached it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// It has a verdict.
    Verdict(Verdict),
    /// It says that it failed.
    Fails {
        /// It has done the work all the same.
        done: bool,
        /// It was full.
        full: bool,
    },
    /// The generation is free: the other half may come.
    Free,
    /// It does nothing until then.
    WaitsUntil(u64),
    /// Nobody ever hears of it again.
    Swallowed,
}

impl Store {
    /// Lets the store fail until `until_ns`.
    pub fn fail(&mut self, fault: StoreFault, until_ns: u64) {
        self.fault = Some((fault, until_ns));
    }

    fn fault(&self, now_ns: u64) -> Option<(StoreFault, u64)> {
        self.fault.filter(|(_, until_ns)| now_ns < *until_ns)
    }

    /// True if the store answers now.
    #[must_use]
    pub fn is_well(&self, now_ns: u64) -> bool {
        self.fault(now_ns).is_none()
    }

    /// How many times slower than usual the store is now.
    #[must_use]
    pub fn slowness(&self, now_ns: u64) -> u64 {
        match self.fault(now_ns) {
            Some((StoreFault::Slow(times), _)) => times,
            _ => 1,
        }
    }

    /// The first half of a claim reaches the store.
    pub fn test(&self, now_ns: u64, generation: u32, process: u32) -> Work {
        match self.fault(now_ns) {
            Some((StoreFault::Unreachable, _)) => FAILS,
            Some((StoreFault::Hangs, until_ns)) => Work::WaitsUntil(until_ns),
            Some((StoreFault::Swallows, _)) => Work::Swallowed,
            // Who finds a claim, its own or another's, has its verdict.
            _ if self.claims.winner(generation).is_some() => self.set(now_ns, generation, process),
            _ => Work::Free,
        }
    }

    /// The second half of a claim reaches the store.
    pub fn set(&self, now_ns: u64, generation: u32, process: u32) -> Work {
        let verdict = || self.claims.claim(generation, process);
        match self.fault(now_ns) {
            Some((StoreFault::Unreachable, _)) => FAILS,
            Some((StoreFault::Hangs, until_ns)) => Work::WaitsUntil(until_ns),
            // The claim is made: only its answer is lost.
            Some((StoreFault::Swallows, _)) => {
                let _ = verdict();
                Work::Swallowed
            }
            Some((StoreFault::FailsAfterwards, _)) => {
                let _ = verdict();
                Work::Fails {
                    done: true,
                    full: false,
                }
            }
            Some((StoreFault::Full, _)) if self.claims.winner(generation).is_none() => Work::Fails {
                done: false,
                full: true,
            },
            _ => Work::Verdict(verdict()),
        }
    }
}

const FAILS: Work = Work::Fails {
    done: false,
    full: false,
};
