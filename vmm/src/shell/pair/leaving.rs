//! Outputs that the role machine has released, on their way out.
//!
//! What one step releases leaves together: frames that follow one another take a single system call.

use super::Payload;
use super::clock::role_ns;
use super::stop_point::{Step, pass, pass_several};
use crate::machine::door::DoorError;
use crate::shell::outlets::Outlets;

/// Outputs released and not written yet, each with the time until which it may be.
#[derive(Debug, Default)]
pub struct Leaving {
    outputs: Vec<(Payload, u64)>,
}

impl Leaving {
    /// Takes an output that may leave until `until_ns` on the role machine's clock.
    pub fn push(&mut self, output: Payload, until_ns: u64) {
        // What leaves without a time limit leaves because this replica acts alone.
        let alone = until_ns == u64::MAX;
        pass(if alone {
            Step::OutputAlone
        } else {
            Step::BeforeRelease
        });
        self.outputs.push((output, until_ns));
    }

    /// Writes them, but for those whose time is over: these are lost, as frames are.
    ///
    /// # Errors
    /// As [`Outlets::release`].
    pub fn let_out(&mut self, outlets: &mut Outlets) -> Result<(), DoorError> {
        if self.outputs.is_empty() {
            return Ok(());
        }
        let now_ns = role_ns();
        let in_time = self.outputs.iter().filter(|(_, until_ns)| now_ns <= *until_ns);
        outlets.release(in_time.map(|((target, bytes), _)| (*target, bytes.as_slice())))?;
        pass_several(Step::AfterRelease, self.outputs.len() as u64);
        self.outputs.clear();
        Ok(())
    }
}
