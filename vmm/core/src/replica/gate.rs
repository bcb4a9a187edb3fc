//! The output gate: what the guest says waits here until it may be heard.
//!
//! ```text
//!             hold                     acknowledge(n): everything up to n leaves, in order
//!   guest ----------> [ n+3 n+2 n+1 ] ---------------------------------------------------> outside
//!
//!   holding --open--> open: everything passes at once      (acting alone)
//!      |    <--close--  |
//!      +----discard-----+--> shut: nothing leaves ever again (fenced, stopped)
//! ```
//!
//! Invariants, asserted: outputs come in the order of their entries, of which one may have several;
//! they leave in that order, each once; while holding, none leaves before its entry is
//! acknowledged; once shut, none leaves. Pure: no clock, no thread. What is held is the caller's
//! business ([`Gate`] is generic over it).

use std::collections::VecDeque;

use lockstep_logging_channel::Sequence;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Holding,
    Open,
    Shut,
}

#[derive(Clone, Debug)]
struct Held<T> {
    sequence: Sequence,
    bytes: usize,
    payload: T,
}

/// Outputs that wait, in the order of their entries.
#[derive(Clone, Debug)]
pub struct Gate<T> {
    state: State,
    held: VecDeque<Held<T>>,
    held_bytes: usize,
    /// The newest output that ever came.
    newest: Option<Sequence>,
    /// The newest output that left or was forgotten.
    gone: Option<Sequence>,
    /// Outputs up to this entry are somebody else's.
    forgotten: Option<Sequence>,
}

impl<T> Default for Gate<T> {
    fn default() -> Self {
        Self {
            state: State::Holding,
            held: VecDeque::new(),
            held_bytes: 0,
            newest: None,
            gone: None,
            forgotten: None,
        }
    }
}

impl<T> Gate<T> {
    /// Takes the output of entry `sequence`. Gives it back where it may leave at once.
    ///
    /// # Panics
    /// If an output of a later entry came before.
    #[must_use = "an output that is given back leaves now"]
    pub fn hold(&mut self, sequence: Sequence, bytes: usize, payload: T) -> Option<T> {
        assert!(
            self.newest <= Some(sequence),
            "output of {sequence:?} after that of {:?}",
            self.newest
        );
        self.newest = Some(sequence);
        if self.forgotten >= Some(sequence) {
            return None;
        }
        match self.state {
            State::Holding => {
                self.held_bytes += bytes;
                self.held.push_back(Held {
                    sequence,
                    bytes,
                    payload,
                });
                None
            }
            State::Open => {
                self.mark_gone(sequence);
                Some(payload)
            }
            State::Shut => None,
        }
    }

    /// Lets out everything up to and including entry `sequence`, oldest first. What the iterator is
    /// not asked for stays held.
    #[must_use = "outputs leave as the iterator is advanced"]
    pub fn acknowledge(&mut self, sequence: Sequence) -> impl Iterator<Item = (Sequence, T)> {
        std::iter::from_fn(move || self.pop_through(sequence))
    }

    /// Lets out everything held, oldest first, and whatever comes later at once.
    #[must_use = "outputs leave as the iterator is advanced"]
    pub fn open(&mut self) -> impl Iterator<Item = (Sequence, T)> {
        if self.state == State::Holding {
            self.state = State::Open;
        }
        self.acknowledge(Sequence(u64::MAX))
    }

    /// Closes the gate: outputs that come from now on wait for an acknowledgement again. A gate
    /// that is shut stays so.
    pub fn close(&mut self) {
        if self.state == State::Open {
            self.state = State::Holding;
        }
    }

    /// Forgets everything up to and including entry `sequence`, what has yet to come among it:
    /// somebody else has let it out. Gives how many outputs it held of that.
    pub fn forget(&mut self, sequence: Sequence) -> usize {
        self.forgotten = self.forgotten.max(Some(sequence));
        self.acknowledge(sequence).count()
    }

    /// Forgets everything and stays shut for ever. Gives how many outputs that were.
    pub fn discard(&mut self) -> usize {
        let count = self.held.len();
        self.state = State::Shut;
        self.held.clear();
        self.held_bytes = 0;
        count
    }

    fn pop_through(&mut self, sequence: Sequence) -> Option<(Sequence, T)> {
        if self.held.front()?.sequence > sequence {
            return None;
        }
        let held = self.held.pop_front()?;
        self.held_bytes -= held.bytes;
        self.mark_gone(held.sequence);
        Some((held.sequence, held.payload))
    }

    fn mark_gone(&mut self, sequence: Sequence) {
        assert!(
            self.state != State::Shut,
            "output of {sequence:?} left a shut gate"
        );
        assert!(
            self.gone <= Some(sequence),
            "output of {sequence:?} left after {:?}",
            self.gone
        );
        self.gone = Some(sequence);
    }

    /// Outputs held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The oldest output held, and its entry.
    #[must_use]
    pub fn oldest(&self) -> Option<(Sequence, &T)> {
        self.held.front().map(|held| (held.sequence, &held.payload))
    }

    /// Bytes held, as the caller counted them.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

#[cfg(test)]
mod tests;
