//! Reports of a replica to people.

use lockstep_logging_channel::{Generation, Sequence};

/// Why the peer counts as gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing came from it for this long.
    Silence {
        /// In nanoseconds.
        silent_ns: u64,
    },
    /// It closed the connection.
    Closed,
    /// The connection broke on this side.
    Broken {
        /// Description of what broke it.
        why: String,
    },
    /// It said what no correct peer says.
    Violation {
        /// Description of the violation.
        why: String,
    },
    /// It said goodbye.
    Left {
        /// The reason it gave.
        reason: String,
    },
    /// Its replay differs from the log.
    Diverged {
        /// The log's entry that it did not meet.
        sequence: Sequence,
        /// The part of the state that differs, in its words.
        part: String,
        /// It joins again, after a rest.
        again: bool,
    },
    /// The log that is kept for it has become too long.
    LogTooLong {
        /// Memory that it takes.
        bytes: u64,
    },
    /// It replays too slowly to catch up.
    TooSlow {
        /// Time by which it is behind, in nanoseconds.
        lag_ns: u64,
    },
    /// This side has lost it before it could join.
    Here {
        /// Description of the loss.
        why: String,
    },
    /// It is there, but what it says is too old: the lease was over for so long that the pair
    /// serves nobody.
    TooFar {
        /// Time for which the lease has been over, in nanoseconds.
        unleased_ns: u64,
        /// The round trip, at least, in nanoseconds.
        round_trip_ns: u64,
        /// The smallest timeout that would bear it, in nanoseconds.
        timeout_ns_min: u64,
    },
}

/// Reason why outputs, or the guest, wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// The lease is over: echoes come too late.
    RoundTrip {
        /// The round trip, at least, in nanoseconds.
        round_trip_ns: u64,
        /// The smallest timeout that would bear it, in nanoseconds.
        timeout_ns_min: u64,
    },
    /// The backup has not acknowledged the log that explains them.
    Acknowledgement {
        /// Bytes of log that are not acknowledged.
        bytes: u64,
    },
    /// The backup has not replayed what the window holds.
    Window {
        /// Bytes of log that are not replayed.
        bytes: u64,
    },
    /// The backup is further behind than the lag limit.
    Lag {
        /// Time by which it is behind, in nanoseconds.
        lag_ns: u64,
    },
    /// The store has not decided who goes on.
    Verdict,
}

/// A report to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The peer counts as gone, or is about to.
    Noticed {
        /// Why.
        cause: Cause,
    },
    /// The round trip has become longer than the timeout can bear.
    RoundTripTooLong {
        /// The best of the last ones, in nanoseconds.
        round_trip_ns: u64,
        /// The timeout, in nanoseconds.
        timeout_ns: u64,
        /// The smallest that would bear it, in nanoseconds.
        timeout_ns_min: u64,
    },
    /// Outputs, or the guest, have waited for longer than the timeout.
    Held {
        /// For how long, in nanoseconds.
        stood_ns: u64,
        /// Outputs that wait.
        outputs: usize,
        /// The reason.
        why: HeldBy,
    },
    /// Outputs that waited have left, and the guest runs.
    Flows {
        /// For how long it had waited, in nanoseconds.
        stood_ns: u64,
    },
    /// The connection broke here. The peer may still be speaking: the claim is made when it can no
    /// longer.
    WaitingOutLease,
    /// No witness is reached: the peer may be the one that clients reach, and has so long to claim
    /// before this side does.
    WaitingForWitness {
        /// At most so long, in nanoseconds.
        wait_ns: u64,
    },
    /// A witness does not answer any more, or has not answered yet.
    WitnessLost {
        /// Which, from 0.
        witness: usize,
        /// Another one is reached.
        any: bool,
    },
    /// A witness answers again.
    WitnessBack {
        /// Which, from 0.
        witness: usize,
    },
    /// The right to act alone was asked for.
    Claiming {
        /// In this generation.
        generation: Generation,
    },
    /// The store gives no verdict; it is asked again. Outputs wait.
    StorageUnreachable {
        /// Number of times that it was asked.
        attempts: u32,
        /// The store's message.
        why: String,
    },
    /// The store has not answered for a while, and is asked again now and then. Outputs wait.
    StorageSilent {
        /// For how long, in nanoseconds.
        waited_ns: u64,
        /// Questions that are open.
        open: u32,
    },
    /// The right to act alone is this replica's.
    Won {
        /// In this generation.
        generation: Generation,
    },
    /// It is the peer's; outputs that waited are gone.
    Lost {
        /// In this generation.
        generation: Generation,
        /// Outputs that will never leave.
        discarded: usize,
    },
    /// Everything received was replayed.
    Replayed {
        /// The last entry.
        sequence: Sequence,
    },
    /// The backup is live.
    Live {
        /// In this generation.
        generation: Generation,
        /// Exits so far.
        exits: u64,
    },
    /// The state was saved for a newcomer, and the log is kept for it.
    Saved {
        /// The last entry before.
        after: Sequence,
    },
    /// A newcomer replays what it lacks, here or at the other side.
    CatchingUp {
        /// Bytes of log that it has not replayed.
        behind_bytes: u64,
        /// Age of the oldest entry that it has not replayed, in nanoseconds.
        lag_ns: u64,
    },
    /// The newcomer is the backup from now on.
    Armed {
        /// The first entry whose outputs wait for it.
        from: Sequence,
        /// Time since the state was saved, or since the newcomer has loaded it, in nanoseconds.
        took_ns: u64,
    },
    /// The newcomer is gone; nothing has changed for the machine that runs.
    NewcomerLost {
        /// Why.
        cause: Cause,
    },
    /// A switchover was asked for. The guest runs on until the backup is close.
    SwitchingOver,
    /// The guest stands, all of the log is at the backup, every output has left, and the backup was
    /// told that it may go on.
    HandedOver {
        /// The last entry.
        after: Sequence,
        /// Time since the guest was asked to stand, in nanoseconds.
        stood_ns: u64,
    },
    /// The primary has handed the machine over to this side, which is about to claim it.
    TakingOver {
        /// The last entry.
        after: Sequence,
    },
    /// In a switchover the machine has become the other side's.
    SwitchedOver {
        /// In this generation.
        generation: Generation,
    },
    /// Somebody else has won a later generation; outputs that waited are gone.
    Overtaken {
        /// Which.
        generation: Generation,
        /// Outputs that will never leave.
        discarded: usize,
    },
    /// The primary goes on without a backup.
    Solo {
        /// In this generation.
        generation: Generation,
    },
}

/// Renewals of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The longest time from one renewal to the next, in nanoseconds.
    pub gap_ns_max: u64,
    /// The oldest that a lease was when it was renewed, in nanoseconds: it counts from sending.
    pub age_ns_max: u64,
    /// Number of times that it was over before it was renewed.
    pub lapses: u64,
}

/// Protection of the machine against the loss of one side, or the reason why there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// The backup has the log, and may take over.
    Protected,
    /// There is no other side.
    #[default]
    Alone,
    /// A newcomer loads the state, and the log is kept for it.
    Loading,
    /// A newcomer replays, and may not take over yet.
    CatchingUp,
    /// The other side is gone, and it is not decided who goes on.
    Undecided,
    /// This side is at its end.
    Over,
}

/// Figures at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Outputs in the gate.
    pub held: usize,
    /// Bytes in the gate.
    pub held_bytes: usize,
    /// Bytes of log sent (or received) and not replayed.
    pub behind_bytes: u64,
    /// The newest entry that the other side is known to have replayed; 0 where nobody replays.
    pub replayed: Sequence,
    /// Age of the oldest entry that is not replayed, in nanoseconds.
    pub lag_ns: u64,
    /// Round trip of the newest heartbeat that came back, in nanoseconds; 0 before the first and on
    /// a backup.
    pub round_trip_ns: u64,
    /// Renewals of the primary's lease so far.
    pub lease: Lease,
    /// Protection of the machine.
    pub protection: Protection,
    /// A witness is reached; none where no witness was named.
    pub witness_reached: Option<bool>,
}
