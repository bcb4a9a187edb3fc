//! A simulator of pairs, and of machines that heal. It drives the real role machine, gate,
//! recorder, replayer, encoder and decoder, and the real journal, feed, guest time and order of a
//! replica loop, in virtual time, in one thread, everything from one seed.
//!
//! ```text
//!   seed --> plan: settings, conditions, faults --> world: agenda of happenings in virtual time
//!                                                     |            |             |
//!                         process: replica + virtual CPU      connection      store, clients
//!                                                     |            |             |
//!                                                     +--> checker: promises kept? marks: rare paths taken
//! ```
//!
//! Modelled: delay, also for ever, a channel that carries little, loss of the connection, one-way
//! and two-way cuts, damage, repetition; stops and crashes before, halfway through and after each
//! action ([`points`]), also between the halves of a test-and-set; clocks of different speeds, a
//! clock that jumps ahead and a wall clock that is set back; a store that is slow, full, hangs,
//! never answers, fails, or fails after having done its work; slow virtual CPUs, a backup that
//! joins late, lossy clients, orders to stop, and the guest's end. The network outside is the real
//! switch, to which each side has a connection of its own: what they say there overtakes each other
//! ([`switch`]). A side can lose the clients, and with them its witness ([`witness`]). Whoever is
//! gone can be started again, and joins the machine that runs ([`healing`], [`joining`]): many
//! generations in one run. Sides are asked to switch over, and struck at any step of it
//! ([`switching`]). The backups of some seeds do not run, and are put where the other guest is
//! ([`epochs`]). Guests of some seeds have a disk, each side its own or both the same, with a cache
//! that is lost with its host's power ([`disks`]).
//!
//! Not modelled: a process stopped between its last look at the clock and the system call that
//! writes (`docs/failover.md`); the handshake, after which a run, and a newcomer's part in it,
//! begins; the pages of a transfer, which is a copy that takes time; a guest that stands within a
//! common point because the window is full: it stands behind it.

#![allow(clippy::indexing_slicing, reason = "arrays of two, indexed by the side")]

mod acting;
mod agenda;
mod batch;
mod beside;
mod check;
mod clients;
mod clock;
mod computing;
mod cpu;
mod disk;
mod disk_guest;
mod disks;
mod diverging;
mod ends;
mod epochs;
mod faults;
mod guest;
mod healing;
mod inbox;
mod joining;
mod judge;
mod marks;
mod network;
mod node;
mod order;
mod plan;
mod points;
mod requests;
pub mod rng;
mod saved;
mod side;
mod store;
mod storing;
mod switch;
mod switching;
mod trace;
mod watched;
mod witness;
mod work;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use batch::{SEEDS_FOR_ALL_MARKS, Summary, report_of, simulate_many};
pub use marks::{Mark, Marks};
pub use plan::{Fault, Plan, Planned, Side, StoreFault};
pub use points::{Blow, Moment, Point, Step};
use trace::Trace;
use world::World;

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first promise that was broken.
    pub failure: Option<String>,
    /// Rare paths that were taken.
    pub marks: Marks,
    /// Virtual time that passed, in nanoseconds.
    pub virtual_ns: u64,
    /// Things that happened.
    pub happenings: u64,
    /// What happened, in words, where that was wanted.
    pub trace: String,
}

/// Runs the world of `seed`; `traced` keeps what happens in words.
#[must_use]
pub fn simulate(seed: u64, traced: bool) -> Outcome {
    let trace = if traced { Trace::kept() } else { Trace::default() };
    let mut world = World::new(seed, trace);
    // A replica's assertion is a promise that the replica itself saw broken.
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).err();
    let said = panicked.map(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        format!("an assertion failed: {}", text.unwrap_or("without a word"))
    });
    Outcome {
        seed,
        failure: said
            .or_else(|| world.checker.failure().map(str::to_owned))
            .map(shortened),
        marks: world.marks,
        virtual_ns: world.now_ns,
        happenings: world.agenda.count(),
        trace: world.trace.to_string(),
    }
}

/// A failure may quote a whole frame.
const FAILURE_CHARACTERS_MAX: usize = 600;

fn shortened(failure: String) -> String {
    failure.chars().take(FAILURE_CHARACTERS_MAX).collect()
}
