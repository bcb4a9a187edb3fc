//! Records that a store keeps of a machine: claims, sightings, backups, its end.

use std::fmt;

use lockstep_generation::Generation;

use crate::name::{Line, MachineId};

/// The longest status in a sighting, in bytes. With the lines before it, it is under the 4,096 of
/// the longest file of a store.
pub const STATUS_BYTES_MAX: usize = 3072;

/// A process, as its host can tell whether it is gone. Numbers of namespaces belong to it: a
/// process that is not seen from another one may live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// Its start, in clock ticks since the boot of its host.
    pub start_ticks: u64,
    /// Inode of its namespace of process numbers.
    pub pid_namespace: u64,
    /// Inode of its namespace of boot times.
    pub time_namespace: u64,
}

/// A process that takes part in a machine: where it runs, and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Random; tells parties apart. Two parties with the same are the same.
    pub id: [u8; 16],
    /// Name that people use for it.
    pub label: Line,
    /// Name of its host.
    pub host: Line,
    /// Identifier that its host gives the time since its boot.
    pub boot: [u8; 16],
    /// The process.
    pub process: Process,
    /// Address at which a newcomer can join it.
    pub address: Option<Line>,
    /// Wall time when this was written, in seconds since 1970. For people: never compared.
    pub written_unix_s: u64,
}

impl fmt::Display for Party {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} (host {}, process {})",
            self.label, self.host, self.process.id
        )
    }
}

/// The claim of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The generation.
    pub generation: Generation,
    /// The machine that goes on in it, or begins with it.
    pub machine: MachineId,
    /// The claimant.
    pub party: Party,
}

impl Claim {
    /// The same party's claim of another generation of the same machine.
    #[must_use]
    pub fn of(&self, generation: Generation) -> Self {
        Self {
            generation,
            ..self.clone()
        }
    }

    /// The verdict on this claim where `winner` has the generation. A party that asks again, with
    /// another address or at another time, has won all the same.
    pub(crate) fn verdict(&self, winner: Self) -> Verdict {
        if winner.party.id == self.party.id && winner.machine == self.machine {
            Verdict::Won
        } else {
            Verdict::Lost { winner }
        }
    }
}

/// The result of a claim. It is final: every later claim of the generation has the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The generation is the claimant's.
    Won,
    /// It is somebody else's.
    Lost {
        /// Whose it is.
        winner: Claim,
    },
}

/// A sign of life of a generation's holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    generation: Generation,
    holder: [u8; 16],
    counter: u64,
    status: String,
}

impl Seen {
    /// A sign of life; `None` where `status` is not one line of at most [`STATUS_BYTES_MAX`] bytes.
    #[must_use]
    pub fn new(generation: Generation, holder: [u8; 16], counter: u64, status: &str) -> Option<Self> {
        let fits = status.len() <= STATUS_BYTES_MAX && !status.chars().any(char::is_control);
        fits.then(|| Self {
            generation,
            holder,
            counter,
            status: status.to_owned(),
        })
    }

    /// The generation that is held.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Id of the party that holds the generation.
    #[must_use]
    pub fn holder(&self) -> [u8; 16] {
        self.holder
    }

    /// Counts the signs of life.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Status that the holder reports of itself: a JSON object, which the store does not read.
    #[must_use]
    pub fn status(&self) -> &str {
        &self.status
    }
}

/// A newcomer, recorded before it can become the backup of a generation's holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The generation of its holder.
    pub generation: Generation,
    /// The newcomer.
    pub party: Party,
}

/// A request that the holder of a generation hands its machine over to its backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switchover {
    /// The generation of the holder that is asked.
    pub generation: Generation,
    /// Random; tells requests apart.
    pub id: [u8; 16],
    /// Description of who asks.
    pub by: Line,
    /// Wall time, in seconds since 1970. For people: never compared.
    pub at_unix_s: u64,
}

/// The end of a machine: nobody goes on with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its last generation.
    pub generation: Generation,
    /// The machine.
    pub machine: MachineId,
    /// Description of how it ended.
    pub how: Line,
    /// Wall time, in seconds since 1970. For people: never compared.
    pub at_unix_s: u64,
}
