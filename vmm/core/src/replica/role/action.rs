//! Actions of a replica.

use lockstep_logging_channel::{EndReason, Generation, Message, Sequence};

use super::{Batch, Output, Report};

/// Why a replica is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Somebody else acts in a later generation. Exit status 41.
    Fenced,
    /// The guest has ended.
    Ended {
        /// Reason of the end.
        reason: EndReason,
    },
    /// It was asked to stop.
    Stopped,
    /// It lost the side that it was about to join before it was armed, and may not claim.
    NotArmed,
    /// Its replay differs from the log. Exit status 40, where it does not join again.
    Diverged {
        /// It is to join again: it wants to, it has asked the store for nothing, and the log goes
        /// on.
        again: bool,
    },
    /// In a switchover the machine has become the other side's. This process may begin anew, and
    /// join it.
    SwitchedOver,
}

/// An action that a replica wants carried out. Actions are carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<E, O> {
    /// Say this to the peer.
    Send(Message),
    /// Send these entries to the peer.
    SendEntries(Batch<E>),
    /// Close the connection, after what was sent before.
    Disconnect,
    /// Give these entries to the replaying vCPU. Done when this process would not forget them.
    Deliver(Batch<E>),
    /// Tell the replaying vCPU that no entry lies before this exit but those delivered.
    Advance {
        /// Exits it may run to.
        exits: u64,
    },
    /// Let this output out until `until_ns`. Later, its target's contract says what becomes of it
    /// ([`crate::replica::driving::Delivery`]).
    Release {
        /// The output.
        output: Output<O>,
        /// For how long it waited here, in nanoseconds.
        held_ns: u64,
        /// The replica's clock must not have passed this.
        until_ns: u64,
    },
    /// Ask the store for the right to act alone in this generation, and answer with
    /// [`super::Input::Claimed`].
    Claim {
        /// The generation.
        generation: Generation,
    },
    /// Tell the network who speaks for the guest from now on: gratuitous ARP, and the generation
    /// for a switch that drops what older ones still say.
    Announce {
        /// The generation.
        generation: Generation,
    },
    /// Tell the replaying vCPU that it has all there will ever be: go live after entry `after`.
    GoLive {
        /// The generation to log from there on.
        generation: Generation,
        /// The last entry.
        after: Sequence,
    },
    /// The live vCPU must wait (`true`), or may run (`false`).
    Throttle(bool),
    /// The live vCPU must stand still at its next pause (`true`), and answers with
    /// [`super::Input::Stands`]; or may go on (`false`), whether it stands or not yet.
    Stand(bool),
    /// Step again at this time at the latest. Replaces the one before.
    WakeAt {
        /// On the replica's clock, in nanoseconds.
        at_ns: u64,
    },
    /// Say this to people.
    Report(Report),
    /// Stop. No action follows, ever.
    Halt(Halt),
}
