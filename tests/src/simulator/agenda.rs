//! What happens next in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use lockstep_core::replica::role::Outcome;

use super::network::Parcel;
use super::node::Claim;
use super::plan::Side;
use super::store::Half;

/// Something that happens.
#[derive(Debug)]
pub enum Happening {
    /// A parcel of the connection arrives.
    Arrive {
        /// Where.
        to: Side,
        /// Its place among all that this direction carries.
        number: u64,
        /// What.
        parcel: Parcel,
        /// It was under way for long.
        late: bool,
    },
    /// A process does the next thing it has to.
    Act(Side),
    /// A virtual CPU takes a turn.
    Cpu(Side),
    /// A replica asked to be stepped now.
    Wake(Side),
    /// One half of a claim reaches the store.
    StoreWork(Claim, Half),
    /// The store's answer reaches the claimant.
    StoreAnswer(Claim, Outcome),
    /// A side asks its witness.
    Probe(Side),
    /// The witness's answer to what it was asked then arrives.
    Witnessed(Side, u64),
    /// A client may want to ask.
    Client(usize),
    /// A frame of a client reaches the switch.
    Frame(Vec<u8>),
    /// An output reaches the switch.
    Output {
        /// From which side.
        side: Side,
        /// By its port.
        port: u32,
        /// In which generation it was let out.
        generation: u32,
        /// What.
        payload: Vec<u8>,
    },
    /// An announcement of the process at this port reaches the switch.
    Announced(u32, u32),
    /// The switch sees that the process at this port is gone.
    Detached(u32),
    /// A process is started that is to join the machine.
    Start(Side),
    /// A step of the joining with this number is due.
    Joining(u32, super::joining::Due),
    /// A side that acts alone looks at the store.
    Look(Side),
    /// A planned fault, by its place in the plan.
    Fault(usize),
    /// A process dies.
    Crash(Side),
    /// A process that stood still goes on.
    Continue(Side),
    /// Somebody wants the guest to power off, and says so until it does.
    PowerOff,
}

/// Everything that is going to happen.
#[derive(Debug, Default)]
pub struct Agenda {
    /// When, the place among everything that was ever put here, and where it is kept: the earliest
    /// first, and of two at once the one planned first. What is ordered is small, as it is moved
    /// often.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    kept: Vec<Option<Happening>>,
    /// Places in `kept` with nothing in them.
    free: Vec<usize>,
    serial: u64,
}

impl Agenda {
    /// Puts something on the agenda.
    pub fn at(&mut self, at_ns: u64, happening: Happening) {
        self.serial += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.kept.push(None);
            self.kept.len() - 1
        });
        self.kept[place] = Some(happening);
        self.order.push(Reverse((at_ns, self.serial, place)));
    }

    /// How much was ever put on it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.serial
    }

    /// What happens next, and when.
    pub fn next(&mut self) -> Option<(u64, Happening)> {
        let Reverse((at_ns, _, place)) = self.order.pop()?;
        self.free.push(place);
        Some((at_ns, self.kept[place].take()?))
    }
}
