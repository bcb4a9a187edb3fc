//! What a store of claims promises, and the words it is asked in.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Random name of a pair, chosen when the pair starts. Claims of different pairs never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairName(pub [u8; 16]);

/// The longest label of a claimant, in bytes: a role, a host name of 64 bytes at most, a process number.
pub(crate) const LABEL_BYTES_MAX: usize = 128;

/// Who claims. Two claimants are the same if their `id` is; the label is for people.
#[derive(Clone, Debug)]
pub struct Claimant {
    id: [u8; 16],
    label: String,
}

impl Claimant {
    /// A claimant with a random `id` of its own. In the label only printable ASCII is kept, and the first
    /// 128 bytes of it.
    #[must_use]
    pub fn new(id: [u8; 16], label: &str) -> Self {
        let printable = |c: &char| c.is_ascii_graphic() || *c == ' ';
        let label: String = label.chars().filter(printable).take(LABEL_BYTES_MAX).collect();
        Self {
            id,
            label: label.trim().to_owned(),
        }
    }

    /// What tells claimants apart.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// What people read.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl PartialEq for Claimant {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Claimant {}

/// Sixteen bytes as 32 hexadecimal digits.
pub(crate) struct Hex<'a>(pub &'a [u8; 16]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// The sixteen bytes that 32 hexadecimal digits say.
pub(crate) fn from_hex(digits: &str) -> Option<[u8; 16]> {
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

impl fmt::Display for Claimant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.label, Hex(&self.id))
    }
}

impl fmt::Display for PairName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(formatter)
    }
}

/// What a claim came to. It is final: every later claim of the generation comes to the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The generation is the claimant's.
    Won,
    /// It is somebody else's.
    Lost {
        /// Whose it is.
        winner: Claimant,
    },
}

/// Why a store gave no verdict. The claim may or may not have been made: ask again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The storage does not answer now and may later.
    #[error("shared storage {} {} ({doing})", path.display(), trouble(source))]
    Unreachable {
        /// What was being accessed.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The storage will not do as it is: no directory, no permission, no hard links.
    #[error("shared storage {} cannot be used ({doing}): {hint}", path.display())]
    Unusable {
        /// What was being accessed.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What to do about it.
        hint: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the store does not say what this software writes there.
    #[error("shared storage: {} is damaged or not ours: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        detail: &'static str,
    },
}

impl StoreError {
    /// True where asking again may help although nobody does anything about it: the storage does not
    /// answer, or is not mounted yet.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Unusable { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Damaged { .. } => false,
        }
    }
}

/// What stands in the way, and what a person can do about it where that is known.
fn trouble(source: &std::io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "is full: free some space on it",
        ErrorKind::NotFound => "is not there: it was removed, or its file system is not mounted",
        _ => "cannot be reached",
    }
}
