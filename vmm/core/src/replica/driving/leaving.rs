//! Outputs that the role machine has released, on their way out.
//!
//! Outputs that one step releases leave together: frames that follow one another take a single
//! system call.

use super::Delivery;
use crate::replica::cpu::Payload;
use crate::replica::role::Output;

/// Outputs released and not written yet, each with the time until which it may be.
#[derive(Debug, Default)]
pub struct Leaving {
    outputs: Vec<(Output<Payload>, u64)>,
}

impl Leaving {
    /// Takes an output that may leave until `until_ns` on the role machine's clock.
    pub fn push(&mut self, output: Output<Payload>, until_ns: u64) {
        self.outputs.push((output, until_ns));
    }

    /// True if nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Outputs that wait to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Outputs that may leave at `now_ns`, in order: those whose time is not over, or does not
    /// matter to their targets. The others are lost.
    pub fn at(&self, now_ns: u64) -> impl Iterator<Item = &Output<Payload>> {
        self.outputs
            .iter()
            .filter(move |(output, until_ns)| Delivery::of(output.payload.0).allows(*until_ns, now_ns))
            .map(|(output, _)| output)
    }

    /// All of them, in order, each with the time until which it may leave.
    pub fn into_all(self) -> impl Iterator<Item = (Output<Payload>, u64)> {
        self.outputs.into_iter()
    }

    /// Forgets them: those that may leave are written.
    pub fn clear(&mut self) {
        self.outputs.clear();
    }
}
