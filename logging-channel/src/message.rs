//! What the two sides of a channel say to each other, beside the log entries.
//!
//! ```text
//! backup                      primary
//!   | ------- Hello ------------> |   version and environment, compared there
//!   | <------ Welcome ----------- |   environment with the pair's name, compared here (or Refused)
//!   | <------ Beginning --------- |   the generation, whether a saved state follows, and the mode
//!   | <------ Probe ------------> |   sent back at once, a few times
//!   | <------ Measured ---------- |   the shortest round trip of them; both sides decide by it
//!   | <------ Piece ------------- |   where a saved state follows: all of it, piece by piece
//!   | ------- Loaded -----------> |   the state is whole, and stands
//!   | <------ entries ----------- |
//!   | ------- Acknowledge ------> |   cumulative
//!   | <------ Heartbeat --------> |   both ways
//!   | <------ Armed ------------- |   where a saved state was loaded: from now on this is the backup
//!   | <------ Handover ---------- |   a switchover: the machine is the backup's, if it claims it
//!   | <------ Goodbye ----------> |
//!   | ------- Diverged ---------> |   instead of a Goodbye: the replay differs from the log
//! ```

use serde::{Deserialize, Serialize};

use crate::{Environment, Generation, Sequence};

/// The longest body of a record. The largest is a received frame: 64 KiB of IP packet and 14 of
/// Ethernet header, 65,550, and a few bytes of encoding. Twice that leaves room for an environment
/// with a long CPUID table.
pub const BODY_BYTES_MAX: usize = 128 * 1024;

/// The backup's opening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the software that speaks.
    pub software_version: String,
    /// Log format it writes.
    pub format_version: u16,
    /// What its replay will depend on; its pair name is empty.
    pub environment: Environment,
}

/// The primary's consent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// What the recording depends on, with the name of the pair, which the backup adopts.
    pub environment: Environment,
}

/// Method by which a backup follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FollowsBy {
    /// It replays what entered the guest.
    #[default]
    Replay,
    /// It is told states, and does not run.
    Checkpoints,
}

impl std::fmt::Display for FollowsBy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Replay => "replay",
            Self::Checkpoints => "checkpoint",
        })
    }
}

/// Starting point of the backup. Comes right behind the welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The regime in which the machine is.
    pub generation: Generation,
    /// The machine runs already: its saved state follows, and the backup may not claim before
    /// [`Armed`].
    pub saved_state: bool,
    /// Method by which the backup follows from there.
    pub follows_by: FollowsBy,
}

impl Beginning {
    /// Both sides begin with a machine that has not run yet.
    #[must_use]
    pub fn anew(generation: Generation, follows_by: FollowsBy) -> Self {
        Self {
            generation,
            saved_state: false,
            follows_by,
        }
    }

    /// The backup joins a machine that runs.
    #[must_use]
    pub fn joining(generation: Generation, follows_by: FollowsBy) -> Self {
        Self {
            generation,
            saved_state: true,
            follows_by,
        }
    }
}

/// The most bytes of a piece: what a body holds beside the number that says how many they are.
pub const PIECE_BYTES_MAX: usize = BODY_BYTES_MAX - 3;

/// A part of the machine's saved state, on its way to a newcomer. What the bytes are is not said
/// here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// At most [`PIECE_BYTES_MAX`] of them.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// The newcomer is the backup from now on, and may claim. Comes behind every entry before `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armed {
    /// Outputs of this entry and of those after it wait for the newcomer's acknowledgement. Those
    /// before it have left.
    pub from: Sequence,
}

/// The live side has stopped its guest for good, as far as this generation goes, and the backup is
/// to go on with it. Comes behind every entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The last entry. Its output and those of all before it have left.
    pub after: Sequence,
}

/// The sender's replay differs from the log. It leaves, and claims nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diverged {
    /// The log's entry that was not met.
    pub sequence: Sequence,
    /// The part of the state that differs, in words.
    pub part: String,
    /// The sender joins the machine again, after a rest.
    pub again: bool,
}

/// Why one side will not go on with the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refused {
    /// The two sides are not the same in this field.
    Differs {
        /// Name of the first differing field.
        field: String,
        /// Its value at the primary, if it is there.
        primary: Option<String>,
        /// Its value at the backup, if it is there.
        backup: Option<String>,
    },
    /// Something else, said in words.
    Other(String),
    /// Not now, said in words: the peer may ask again.
    Later(String),
}

/// Comes back as it is, at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Which.
    pub number: u32,
}

/// Result of the probes. Both sides decide by the same number whether their timeout suits the
/// channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The shortest round trip, in nanoseconds.
    pub round_trip_ns: u64,
}

/// Progress of the backup. Both positions are cumulative: they cover every entry up to that one.
/// Entry 0, the environment, counts as replayed from the handshake on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// The last entry the backup holds.
    pub received: Sequence,
    /// The last entry the backup has replayed.
    pub replayed: Sequence,
}

/// A sign of life, sent by both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's own clock, in nanoseconds from a start of its choosing.
    pub sent_at_ns: u64,
    /// `sent_at_ns` of the last heartbeat seen from the peer, for its round trip; 0 before the
    /// first.
    pub echo_ns: u64,
    /// The sender's execution has passed this exit, and every entry up to it has been sent.
    pub exits: u64,
    /// Outputs of entries up to this one have left.
    pub released: Sequence,
}

/// An orderly parting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// Why, in words.
    pub reason: String,
}

/// One message of the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Kind 256.
    Hello(Hello),
    /// Kind 257.
    Welcome(Welcome),
    /// Kind 258.
    Refused(Refused),
    /// Kind 259.
    Acknowledge(Acknowledge),
    /// Kind 260.
    Heartbeat(Heartbeat),
    /// Kind 261.
    Goodbye(Goodbye),
    /// Kind 262.
    Probe(Probe),
    /// Kind 263.
    Measured(Measured),
    /// Kind 270.
    Beginning(Beginning),
    /// Kind 265.
    Piece(Piece),
    /// Kind 266: a newcomer has all of the saved state, it is whole, and its machine stands.
    Loaded,
    /// Kind 267.
    Armed(Armed),
    /// Kind 268.
    Handover(Handover),
    /// Kind 269.
    Diverged(Diverged),
}
