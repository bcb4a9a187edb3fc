//! The numbers of the record kinds. Append-only: a number never changes its meaning.

use crate::{Body, EventKind, Message};

/// First number that is a channel message and not a log entry.
const MESSAGES_FROM: u16 = 256;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, $name:literal;)*) => {
        /// What a record is. Numbers 1 to 255 are log entries, 256 and above are channel messages.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[$doc])* $kind = $number,)*
        }

        impl Kind {
            /// Every kind there is, by number.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The kind of this number, if there is one.
            #[must_use]
            pub fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)*
                    _ => None,
                }
            }

            /// Its name in dumps, reports and the format document.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// What the recording depends on; always entry 0.
    Environment = 1, "environment";
    /// An answer to something the guest asked.
    Value = 2, "value";
    /// An event that names no device; read only, as an [`Kind::Event`].
    ShortEvent = 3, "short event";
    /// An output that names no device; read only, as an [`Kind::Output`].
    ShortOutput = 4, "short output";
    /// Digests of the machine's parts at an interval.
    Digests = 5, "digests";
    /// The last entry of a complete log.
    End = 6, "end";
    /// Something that arrived unasked, and the device at which it did.
    Event = 7, "event";
    /// Something that left, as a digest, and the device by which it did.
    Output = 8, "output";
    /// A part of a common point that is being made.
    Part = 9, "part";
    /// A point at which the machine is what parts say.
    CommonPoint = 10, "common point";
    /// Something that leaves with the next common point.
    HeldOutput = 11, "held output";
    /// A disk has done what it was asked.
    DiskCompletion = 12, "disk completion";
    /// Something that left for a disk which two machines share.
    DiskWrite = 13, "disk write";
    /// What a disk of one's own has done, for who follows without running.
    DiskChange = 14, "disk change";
    /// The backup's opening.
    Hello = 256, "hello";
    /// The primary's consent.
    Welcome = 257, "welcome";
    /// One side will not go on with the other.
    Refused = 258, "refused";
    /// How far the backup has received and replayed.
    Acknowledge = 259, "acknowledge";
    /// A sign of life.
    Heartbeat = 260, "heartbeat";
    /// An orderly parting.
    Goodbye = 261, "goodbye";
    /// Comes back at once.
    Probe = 262, "probe";
    /// The round trip of the channel.
    Measured = 263, "measured";
    /// A beginning that does not say how its backup follows; read only, as a [`Kind::Beginning`].
    ShortBeginning = 264, "short beginning";
    /// A part of the machine's saved state.
    Piece = 265, "piece";
    /// A newcomer's machine stands.
    Loaded = 266, "loaded";
    /// A newcomer is the backup from now on.
    Armed = 267, "armed";
    /// The live side has stopped its guest, and the backup is to go on.
    Handover = 268, "handover";
    /// A replay differs from the log, and its side leaves.
    Diverged = 269, "diverged";
    /// In which generation the machine is, whether its saved state follows, and how its backup
    /// follows it.
    Beginning = 270, "beginning";
}

impl Kind {
    /// Its number on disk and on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The kind as which its records are read: another one where it is no longer written.
    #[must_use]
    pub fn read_as(self) -> Self {
        match self {
            Self::ShortEvent => Self::Event,
            Self::ShortOutput => Self::Output,
            Self::ShortBeginning => Self::Beginning,
            kind => kind,
        }
    }

    /// True if it is a log entry; else it is a channel message.
    #[must_use]
    pub fn is_entry(self) -> bool {
        self.number() < MESSAGES_FROM
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

impl Body {
    /// The kind of record that carries it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Environment(_) => Kind::Environment,
            Self::Value(_) => Kind::Value,
            Self::Event(event) => match event.kind {
                EventKind::Completion(_) => Kind::DiskCompletion,
                _ => Kind::Event,
            },
            Self::Output(_) => Kind::Output,
            Self::Digests(_) => Kind::Digests,
            Self::End(_) => Kind::End,
            Self::Part(_) => Kind::Part,
            Self::CommonPoint(_) => Kind::CommonPoint,
            Self::HeldOutput(_) => Kind::HeldOutput,
            Self::DiskWrite(_) => Kind::DiskWrite,
            Self::DiskChange(_) => Kind::DiskChange,
        }
    }
}

impl Message {
    /// The kind of record that carries it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Welcome(_) => Kind::Welcome,
            Self::Refused(_) => Kind::Refused,
            Self::Acknowledge(_) => Kind::Acknowledge,
            Self::Heartbeat(_) => Kind::Heartbeat,
            Self::Goodbye(_) => Kind::Goodbye,
            Self::Probe(_) => Kind::Probe,
            Self::Measured(_) => Kind::Measured,
            Self::Beginning(_) => Kind::Beginning,
            Self::Piece(_) => Kind::Piece,
            Self::Loaded => Kind::Loaded,
            Self::Armed(_) => Kind::Armed,
            Self::Handover(_) => Kind::Handover,
            Self::Diverged(_) => Kind::Diverged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_number() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind.number()), Some(*kind));
        }
        assert_eq!(Kind::from_number(0), None);
        assert_eq!(Kind::from_number(255), None);
    }

    #[test]
    fn entries_are_below_256_and_messages_from_there() {
        assert!(Kind::End.is_entry());
        assert!(!Kind::Hello.is_entry());
    }
}
