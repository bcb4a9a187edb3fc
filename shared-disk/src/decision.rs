//! Decisions of a side that starts: begin a machine, join its holder, wait, or give up.
//!
//! [`read`] reads the store; [`Starter::decide`] is a function of what was read, and of lengths of
//! time on the starter's own clock.
//!
//! ```text
//!   nobody has claimed yet                                        begin generation 1
//!   this starter has claimed, and was not told                    claim the same again
//!   the machine has ended                                         begin the next generation
//!   the holder and every newcomer recorded with it are dead       begin the next generation
//!   the holder is dead, a recorded newcomer may live              wait: it may take over
//!   --afresh, and the holder gives no sign of life for a while    begin the next generation
//!   --afresh, and the holder gives one                            give up
//!   otherwise                                                     join the holder
//! ```
//!
//! A machine is only ever begun by winning the generation after the newest claim that was read. So
//! whatever was true when the store was read and is not when the claim is made (a backup has taken
//! over, another starter was quicker), the claim is lost, and the starter looks again. Two machines
//! need two winners of one generation, or a machine that is begun beside a living one: the second
//! is what the conditions above exclude, but for the operator's word.

use std::fmt;

use lockstep_generation::Generation;

use crate::{Backup, Claim, Ended, MachineId, MachineStore, Party, Seen, StoreError};

/// Time for which a holder must give no sign of life before `--afresh` begins a new machine: it
/// gives one a second.
pub const SILENCE_NS: u64 = 5_000_000_000;

/// State of a machine as it was read, with what was found out about its processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The newest claim. The rest belongs to its generation.
    pub newest: Option<Claim>,
    /// The holder's newest sign of life.
    pub seen: Option<Seen>,
    /// The end of the machine.
    pub ended: Option<Ended>,
    /// The holder's process is proven to be dead.
    pub holder_dead: bool,
    /// The newcomers recorded with the generation, and whether each is proven to be dead.
    pub backups: Vec<(Backup, bool)>,
}

/// Reads what a starter decides by. `is_dead` proves that a process is dead; false proves nothing.
///
/// The newcomers are read after the holder's death was proven. A dead holder arms nobody, and a
/// newcomer is recorded before it can be armed: so whoever can take over is among them.
///
/// # Errors
/// Those of the store. A record that cannot be read is one, a damaged sign of life as well: whoever
/// wrote it may know something that this software does not.
pub async fn read(
    machine: &dyn MachineStore,
    is_dead: &(dyn Fn(&Party) -> bool + Send + Sync),
) -> Result<Reading, StoreError> {
    let Some(newest) = machine.newest().await? else {
        return Ok(Reading::default());
    };
    let generation = newest.generation;
    let seen = machine.seen(generation).await?;
    let holder_dead = is_dead(&newest.party);
    let backups = machine.backups(generation).await?;
    let backups = backups.into_iter().map(|backup| {
        let dead = is_dead(&backup.party);
        (backup, dead)
    });
    let backups = backups.collect();
    let ended = machine.ended(generation).await?;
    Ok(Reading {
        newest: Some(newest),
        seen,
        ended,
        holder_dead,
        backups,
    })
}

/// Next action of a side that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Claim this generation.
    Claim {
        /// The generation.
        generation: Generation,
        /// This starter's own machine, of an earlier claim whose verdict it was not told; `None`:
        /// begin a new machine.
        machine: Option<MachineId>,
    },
    /// Join the holder, or, where it does not answer, look again.
    Join {
        /// The holder's claim, which has an address.
        holder: Claim,
        /// When it was seen.
        sighting: Sighting,
    },
    /// Look again in a while.
    Wait(Waiting),
    /// Give up.
    Refuse(Refusal),
}

/// Signs of life of a holder, as this starter has seen them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// It has given one while it was watched.
    Alive,
    /// It has given none for so long.
    Silent {
        /// Time on the starter's clock, in nanoseconds.
        for_ns: u64,
    },
}

/// Reason why a side that starts waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Signs of life of a holder in whose place a machine is to be begun.
    Sign {
        /// The holder.
        holder: Party,
    },
    /// The holder cannot be joined.
    NoAddress {
        /// The holder.
        holder: Party,
    },
    /// The holder is dead, and these may take over.
    TakeOver {
        /// The holder.
        holder: Party,
        /// Newcomers that are not proven to be dead.
        backups: Vec<Party>,
    },
}

/// Why nothing is begun or joined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A machine was to be begun beside a living one.
    #[error(
        "generation {generation} is held by {holder}, which is alive: stop it first, or start without --afresh and join it"
    )]
    HolderAlive {
        /// Its generation.
        generation: Generation,
        /// The holder.
        holder: Party,
    },
    /// The store says two things.
    #[error("the store says two things about generation {generation}: {what}")]
    Contradiction {
        /// The generation.
        generation: Generation,
        /// Both.
        what: String,
    },
    /// There is no generation after this one.
    #[error("generation {0} is the last that can be counted: use another name")]
    LastGeneration(Generation),
}

impl fmt::Display for Waiting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sign { holder } => write!(
                formatter,
                "watching for {} s whether {holder} gives a sign of life",
                SILENCE_NS / 1_000_000_000
            ),
            Self::NoAddress { holder } => write!(
                formatter,
                "{holder} holds the machine and cannot be joined: it has no address"
            ),
            Self::TakeOver { holder, backups } => {
                let names: Vec<_> = backups.iter().map(ToString::to_string).collect();
                write!(
                    formatter,
                    "{holder} is dead, and may be taken over from by {}; if nobody does, --afresh begins a new machine",
                    names.join(", ")
                )
            }
        }
    }
}

/// Observations that a starter has made of the present holder.
#[derive(Clone, Debug)]
struct Watched {
    generation: Generation,
    counter: Option<u64>,
    /// The time of the last change, or of the first look.
    since_ns: u64,
    moved: bool,
}

/// A side that starts.
#[derive(Clone, Debug)]
pub struct Starter {
    id: [u8; 16],
    afresh: bool,
    watched: Option<Watched>,
}

impl Starter {
    /// The starter whose party has this id. `afresh`: its operator wants a new machine.
    #[must_use]
    pub fn new(id: [u8; 16], afresh: bool) -> Self {
        Self {
            id,
            afresh,
            watched: None,
        }
    }

    /// Decides the next action, by what was read at `now_ns` of the starter's clock.
    pub fn decide(&mut self, now_ns: u64, reading: &Reading) -> Decision {
        let Some(newest) = &reading.newest else {
            return Decision::Claim {
                generation: Generation::FIRST,
                machine: None,
            };
        };
        let sighting = self.watch(now_ns, newest.generation, reading.seen.as_ref());
        if let Some(what) = contradiction(newest, reading) {
            let generation = newest.generation;
            return Decision::Refuse(Refusal::Contradiction { generation, what });
        }
        if reading.ended.is_some() {
            return begin_after(newest);
        }
        if newest.party.id == self.id {
            return Decision::Claim {
                generation: newest.generation,
                machine: Some(newest.machine),
            };
        }
        // This starter itself is not one that can take over: it has not been armed, or would not
        // start.
        let others = reading.backups.iter();
        let others = others.filter(|(backup, dead)| !dead && backup.party.id != self.id);
        let backups: Vec<_> = others.map(|(backup, _)| backup.party.clone()).collect();
        if reading.holder_dead && backups.is_empty() {
            return begin_after(newest);
        }
        if self.afresh {
            return self.afresh(newest, sighting);
        }
        let holder = newest.party.clone();
        if reading.holder_dead {
            return Decision::Wait(Waiting::TakeOver { holder, backups });
        }
        if holder.address.is_none() {
            return Decision::Wait(Waiting::NoAddress { holder });
        }
        Decision::Join {
            holder: newest.clone(),
            sighting,
        }
    }

    fn watch(&mut self, now_ns: u64, generation: Generation, seen: Option<&Seen>) -> Sighting {
        let counter = seen.map(Seen::counter);
        let first = Watched {
            generation,
            counter,
            since_ns: now_ns,
            moved: false,
        };
        let watched = self.watched.get_or_insert_with(|| first.clone());
        if watched.generation != generation {
            *watched = first;
        } else if counter.is_some() && watched.counter != counter {
            (watched.counter, watched.since_ns, watched.moved) = (counter, now_ns, true);
        }
        let for_ns = now_ns.saturating_sub(watched.since_ns);
        if watched.moved && for_ns < SILENCE_NS {
            Sighting::Alive
        } else {
            Sighting::Silent { for_ns }
        }
    }

    fn afresh(&self, newest: &Claim, sighting: Sighting) -> Decision {
        let holder = newest.party.clone();
        match sighting {
            Sighting::Alive => Decision::Refuse(Refusal::HolderAlive {
                generation: newest.generation,
                holder,
            }),
            Sighting::Silent { for_ns } if for_ns < SILENCE_NS => Decision::Wait(Waiting::Sign { holder }),
            Sighting::Silent { .. } => begin_after(newest),
        }
    }
}

fn begin_after(newest: &Claim) -> Decision {
    match newest.generation.next() {
        Some(generation) => Decision::Claim {
            generation,
            machine: None,
        },
        None => Decision::Refuse(Refusal::LastGeneration(newest.generation)),
    }
}

/// Returns a description of records in the store that cannot be true together, if there are any.
fn contradiction(newest: &Claim, reading: &Reading) -> Option<String> {
    let (machine, holder) = (newest.machine, &newest.party);
    if let Some(ended) = &reading.ended
        && ended.machine != machine
    {
        let other = ended.machine;
        return Some(format!(
            "its claim is of machine {machine}, and machine {other} has ended in it"
        ));
    }
    if let Some(seen) = &reading.seen
        && seen.holder() != holder.id
    {
        return Some(format!(
            "{holder} has claimed it, and another one gives its signs of life"
        ));
    }
    let itself = |(backup, _): &(Backup, bool)| backup.party.id == holder.id;
    let itself = reading.backups.iter().any(itself);
    itself.then(|| format!("{holder} is its holder, and a backup of it"))
}

#[cfg(test)]
mod tests;
