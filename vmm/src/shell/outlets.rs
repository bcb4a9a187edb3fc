//! Where released outputs go.

use super::network::FrameSender;
use crate::machine::door::DoorError;
use lockstep_logging_channel::OutputTarget;
use std::io::Write;

/// The console on standard output, and the network.
pub struct Outlets {
    frames: FrameSender,
}

impl Outlets {
    /// Outlets to this network.
    #[must_use]
    pub fn new(frames: FrameSender) -> Self {
        Self { frames }
    }

    /// Lets an output go. The network may lose frames, as networks do; the console may not.
    ///
    /// # Errors
    /// [`DoorError::Host`]: standard output or the network is gone.
    pub fn release(&mut self, target: OutputTarget, bytes: &[u8]) -> Result<(), DoorError> {
        match target {
            OutputTarget::Console => {
                let mut stdout = std::io::stdout().lock();
                let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
                written.map_err(|why| DoorError::Host { what: "console", why: why.to_string() })
            }
            OutputTarget::Network => {
                self.frames.send(bytes).map_err(|why| DoorError::Host { what: "network", why: why.to_string() })
            }
        }
    }

    /// The network end, for announcements and batches.
    pub fn frames(&mut self) -> &mut FrameSender {
        &mut self.frames
    }
}
