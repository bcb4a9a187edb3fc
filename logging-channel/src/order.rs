//! What the order of a log's entries must be. Pure; the writer, the reader and the channel all use it.
//!
//! Sequence numbers are consecutive; entry 0, and no other, is the environment; nothing follows the end;
//! neither the generation nor the execution point goes back.

use crate::{Body, Entry, Generation, Kind, LogError, Sequence};

/// The next entry a log or a stream of entries may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    next: Option<Sequence>,
    generation: Generation,
    position: (u64, u64),
    ended: bool,
}

impl Order {
    /// The order of a whole log, from its first entry.
    #[must_use]
    pub fn of_log() -> Self {
        Self {
            next: Some(Sequence(0)),
            ..Self::of_stream()
        }
    }

    /// The order of the entries of a log from number `next` on, at or behind `position`.
    #[must_use]
    pub fn of_log_from(next: Sequence, position: (u64, u64)) -> Self {
        Self {
            next: Some(next),
            position,
            ..Self::of_stream()
        }
    }

    /// The order of entries that may begin anywhere.
    #[must_use]
    pub fn of_stream() -> Self {
        Self {
            next: None,
            generation: Generation(0),
            position: (0, 0),
            ended: false,
        }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`LogError::OutOfOrder`], [`LogError::Misplaced`] or [`LogError::Backwards`]: the entry cannot stand
    /// here, and is not taken.
    pub fn take(&mut self, entry: &Entry) -> Result<(), LogError> {
        self.check_sequence(entry)?;
        self.check_forward(entry)?;
        self.next = Some(entry.sequence.next());
        self.generation = entry.generation;
        self.position = entry.point.position();
        self.ended = matches!(entry.body, Body::End(_));
        Ok(())
    }

    /// Whether the end entry was taken.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn check_sequence(&self, entry: &Entry) -> Result<(), LogError> {
        let (found, kind) = (entry.sequence, entry.body.kind());
        let expected = self.next.unwrap_or(found);
        if found != expected {
            return Err(LogError::OutOfOrder { expected, found });
        }
        if self.ended {
            return Err(LogError::Misplaced {
                expected: "nothing after the end entry",
                found: kind,
            });
        }
        match (found, kind) {
            (Sequence(0), Kind::Environment) => Ok(()),
            (Sequence(0), found) => Err(LogError::Misplaced {
                expected: "the environment entry",
                found,
            }),
            (_, found @ Kind::Environment) => Err(LogError::Misplaced {
                expected: "an entry after the environment",
                found,
            }),
            _ => Ok(()),
        }
    }

    fn check_forward(&self, entry: &Entry) -> Result<(), LogError> {
        let (exits, instructions) = entry.point.position();
        let within_exit = exits == self.position.0;
        let pairs = [
            (
                "generation",
                u64::from(entry.generation.0),
                u64::from(self.generation.0),
            ),
            ("exit", exits, self.position.0),
            (
                "instruction",
                instructions,
                if within_exit { self.position.1 } else { 0 },
            ),
        ];
        match pairs.into_iter().find(|(_, found, previous)| found < previous) {
            None => Ok(()),
            Some((field, found, previous)) => Err(LogError::Backwards {
                sequence: entry.sequence,
                field,
                found,
                previous,
            }),
        }
    }
}
