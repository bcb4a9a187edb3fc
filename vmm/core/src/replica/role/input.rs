//! Inputs of a replica.

use lockstep_logging_channel::{EndReason, Generation, Message, Sequence};

/// Consecutive log entries, as `E` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<E> {
    /// The first entry.
    pub first: Sequence,
    /// The last entry.
    pub last: Sequence,
    /// Exits of the execution point of the last entry.
    pub exits: u64,
    /// True where the last entry is the end of the log.
    pub ends: bool,
    /// Encoded size of all of them.
    pub bytes: u64,
    /// Bytes that their outputs take in a gate ([`crate::replica::output_bytes`]).
    pub output_bytes: u64,
    /// The entries.
    pub entries: E,
}

impl<E> Batch<E> {
    /// Number of entries. A peer may say that its one entry is the last there can be.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.last.0 - self.first.0).saturating_add(1)
    }

    /// The same with the entries as `convert` has them.
    pub fn map<F>(self, convert: impl FnOnce(E) -> F) -> Batch<F> {
        let Self {
            first,
            last,
            exits,
            ends,
            bytes,
            output_bytes,
            entries,
        } = self;
        Batch {
            first,
            last,
            exits,
            ends,
            bytes,
            output_bytes,
            entries: convert(entries),
        }
    }
}

/// An output of the guest and the entry that explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output<O> {
    /// Its entry.
    pub sequence: Sequence,
    /// Its size.
    pub bytes: usize,
    /// The output.
    pub payload: O,
}

/// Why a connection is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer's side closed or reset it: its process is gone, or has stopped speaking before it
    /// closed.
    ByPeer,
    /// It broke on this side (damaged input, a time limit of the transport): the peer may not know.
    Here {
        /// Description of what broke it.
        why: String,
    },
}

/// Outcome of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The generation is this replica's.
    Won,
    /// It is the peer's.
    Lost,
    /// There is no verdict; the claim may have been made.
    Unreachable {
        /// The store's message.
        why: String,
    },
}

/// An event that a replica takes as its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<E, O> {
    /// A time asked for has come.
    Wake,
    /// The live vCPU has logged entries; outputs among them are held here.
    Appended {
        /// The entries.
        batch: Batch<E>,
        /// The outputs of those of them that are outputs, in order.
        outputs: Vec<Output<O>>,
    },
    /// The live vCPU has passed this exit, and every entry up to it was appended.
    Ran {
        /// Exits so far.
        exits: u64,
    },
    /// The peer has said something.
    Received(Message),
    /// The peer has sent entries.
    ReceivedEntries(Batch<E>),
    /// The connection is no more.
    PeerClosed(Closed),
    /// The store has answered an [`super::Action::Claim`].
    Claimed {
        /// The generation that was claimed.
        generation: Generation,
        /// The answer.
        outcome: Outcome,
    },
    /// The replaying vCPU has used entries.
    Replayed {
        /// The last entry used.
        sequence: Sequence,
        /// Exits so far.
        exits: u64,
        /// The outputs it has made meanwhile, in order.
        outputs: Vec<Output<O>>,
    },
    /// The vCPU has used the last entry and gone live.
    LiveAt {
        /// The last entry used.
        sequence: Sequence,
        /// Exits so far.
        exits: u64,
    },
    /// The guest has ended: on a live side the end entry was appended, on a replaying one it was
    /// replayed.
    GuestEnded {
        /// Reason of the end.
        reason: EndReason,
    },
    /// The replay differs from the log, and does not go on.
    Diverged {
        /// The log's entry that was not met.
        sequence: Sequence,
        /// The part of the state that differs.
        part: String,
        /// This side joins again, if it may.
        again: bool,
    },
    /// A witness has answered: clients that reach it can reach this side.
    Witnessed {
        /// Which, from 0.
        witness: usize,
        /// When it was asked, on the replica's clock, in nanoseconds.
        asked_at_ns: u64,
    },
    /// The live vCPU's state was saved for a newcomer, and everything up to its last entry was
    /// appended. From here on the log is kept for it. One that is lost before this comes is lost
    /// again after it.
    SavedAt {
        /// The last entry before it.
        sequence: Sequence,
        /// Exits so far.
        exits: u64,
    },
    /// Somebody wants the other side to become the primary, and this one its backup. Asked again
    /// while it is under way, or of a side that has no backup, it changes nothing.
    SwitchOver,
    /// The live vCPU stands still, as [`super::Action::Stand`] asks, and everything up to its last
    /// entry was appended.
    Stands {
        /// The last entry.
        sequence: Sequence,
    },
    /// The newcomer has loaded the state, and its machine stands: its connection is this replica's
    /// from now on.
    Joined,
    /// The newcomer, whose connection was not this replica's yet, is lost.
    NewcomerLost {
        /// Description of the loss.
        why: String,
    },
    /// The store shows that a later generation than any that this replica knows of was won.
    LaterGeneration {
        /// Which.
        generation: Generation,
    },
    /// Somebody wants this process to stop.
    StopRequested,
}
