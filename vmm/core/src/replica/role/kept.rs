//! Outputs that a backup keeps: it has their entries, and does not know that they have left.
//!
//! The primary counts what it has sent, the backup what has come. The channel keeps the order of
//! entries and of heartbeats, which tell what has left: so the backup never counts more than the
//! primary did when it sent the same.

use std::collections::VecDeque;

use lockstep_logging_channel::Sequence;

use super::Config;
use crate::replica::BATCH_OUTPUT_BYTES_MAX;
use crate::replica::mutant::{self, Mutant};

/// Outputs of entries, in their order.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Of each batch with outputs its last entry, and their bytes. No more than there are bytes, of
    /// which each output counts at least [`crate::replica::batcher::OUTPUT_BYTES_MIN`].
    outputs: VecDeque<(Sequence, u64)>,
    bytes: u64,
}

impl Kept {
    /// True where the primary may send entries with so many bytes of output. A batch always fits
    /// where nothing is kept.
    pub fn has_room(&self, more_bytes: u64, config: &Config) -> bool {
        let fits = self.bytes + more_bytes <= config.held_bytes_max as u64;
        more_bytes == 0 || self.bytes == 0 || fits || mutant::is(Mutant::IgnoreKeptOutputs)
    }

    /// True where so many bytes of output are more than a correct primary can have sent: what it
    /// may, or one batch, each at most.
    pub fn is_too_much(&self, more_bytes: u64, config: &Config) -> bool {
        let bytes_max = config.held_bytes_max as u64 + BATCH_OUTPUT_BYTES_MAX as u64;
        self.bytes.saturating_add(more_bytes) > bytes_max
    }

    /// Takes the outputs of entries up to `last`.
    pub fn add(&mut self, last: Sequence, bytes: u64) {
        if bytes > 0 {
            self.bytes += bytes;
            self.outputs.push_back((last, bytes));
        }
    }

    /// The backup knows that outputs up to and including entry `sequence` have left.
    pub fn left(&mut self, sequence: Sequence) {
        while let Some((_, bytes)) = self.outputs.pop_front_if(|(last, _)| *last <= sequence) {
            self.bytes -= bytes;
        }
    }
}
