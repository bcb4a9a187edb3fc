//! The first difference of two logs: what `lockstep log diff` prints. Entries are compared decoded.
//!
//! What may differ between two recordings of the same run is not compared: the name of the pair, the
//! informative part of the environment, and an instruction pointer that one side did not take.

use std::fmt;
use std::io::Read;

use crate::view::EntryView;
use crate::{Body, Entry, ExecutionPoint, LogError, LogReader};

/// What two logs come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diff {
    /// Every entry is the same.
    Same {
        /// How many there are in each.
        entries: u64,
    },
    /// An entry differs.
    Differs {
        /// What in it: `generation`, `execution point`, `kind`, the name of a field of the environment, or
        /// the kind of the entry where its body differs.
        field: String,
        /// The entry in the first log.
        left: Box<Entry>,
        /// The entry in the second log.
        right: Box<Entry>,
    },
    /// One log ends, and the other goes on.
    Ends {
        /// Entries that are the same.
        entries: u64,
        /// Whether it is the first log that goes on.
        left_is_longer: bool,
        /// Its next entry.
        next: Box<Entry>,
    },
}

/// Compares two logs. A log that is cut off is compared up to there.
///
/// # Errors
/// [`LogError::Damaged`], [`LogError::File`].
pub fn diff(left: &mut LogReader<impl Read>, right: &mut LogReader<impl Read>) -> Result<Diff, LogError> {
    let mut entries = 0;
    loop {
        let (left, right) = (next_good(left)?, next_good(right)?);
        let (left, right) = match (left, right) {
            (None, None) => return Ok(Diff::Same { entries }),
            (Some(next), None) => {
                return Ok(Diff::Ends {
                    entries,
                    left_is_longer: true,
                    next: Box::new(next),
                });
            }
            (None, Some(next)) => {
                return Ok(Diff::Ends {
                    entries,
                    left_is_longer: false,
                    next: Box::new(next),
                });
            }
            (Some(left), Some(right)) => (left, right),
        };
        if let Some(field) = first_difference(&left, &right) {
            return Ok(Diff::Differs {
                field,
                left: Box::new(left),
                right: Box::new(right),
            });
        }
        entries += 1;
    }
}

fn next_good(log: &mut LogReader<impl Read>) -> Result<Option<Entry>, LogError> {
    match log.next().transpose() {
        Err(LogError::CutOff { .. }) => Ok(None),
        result => result,
    }
}

/// In what two entries differ first, if they do.
#[must_use]
pub fn first_difference(left: &Entry, right: &Entry) -> Option<String> {
    let named = |field: &str| Some(field.to_owned());
    if left.generation != right.generation {
        return named("generation");
    }
    if !same_point(left.point, right.point) {
        return named("execution point");
    }
    if left.body.kind() != right.body.kind() {
        return named("kind");
    }
    match (&left.body, &right.body) {
        (Body::Environment(left), Body::Environment(right)) => {
            left.first_difference(right).map(|difference| difference.name)
        }
        (one, other) if one == other => None,
        (one, _) => named(one.kind().name()),
    }
}

/// Whether two points are the same as far as both sides took them.
fn same_point(left: ExecutionPoint, right: ExecutionPoint) -> bool {
    let rip_taken = left.rip != 0 && right.rip != 0;
    left.position() == right.position() && (!rip_taken || left.rip == right.rip)
}

impl fmt::Display for Diff {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same { entries } => write!(formatter, "the logs are the same: {entries} entries"),
            Self::Differs { field, left, right } => {
                let (sequence, field) = (left.sequence.0, field.escape_debug());
                writeln!(formatter, "the logs differ in entry {sequence}, in its {field}:")?;
                writeln!(formatter, "< {}", EntryView::from(&**left))?;
                write!(formatter, "> {}", EntryView::from(&**right))
            }
            Self::Ends {
                entries,
                left_is_longer,
                next,
            } => {
                let (ends, mark) = if *left_is_longer {
                    ("second", '<')
                } else {
                    ("first", '>')
                };
                writeln!(
                    formatter,
                    "the {ends} log ends after {entries} entries, the other goes on:"
                )?;
                write!(formatter, "{mark} {}", EntryView::from(&**next))
            }
        }
    }
}
