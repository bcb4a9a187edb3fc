//! Where released outputs go.

use super::network::{Announcement, FrameSender, NetworkError, gratuitous_arp};
use crate::machine::door::DoorError;
use lockstep_logging_channel::{Generation, OutputTarget};
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
                written.map_err(|why| DoorError::Host {
                    what: "console",
                    why: why.to_string(),
                })
            }
            OutputTarget::Network => self.frames.send(bytes).map_err(|why| DoorError::Host {
                what: "network",
                why: why.to_string(),
            }),
        }
    }

    /// Tells the network who speaks for the guest in `generation`: gratuitous ARP, and for a switch of ours the generation, so that it
    /// drops what older ones still say.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn announce(
        &mut self,
        pair: [u8; 16],
        generation: Generation,
        mac: [u8; 6],
    ) -> Result<(), NetworkError> {
        self.frames.announce(Announcement { pair, generation })?;
        self.frames.send(&gratuitous_arp(mac, None))
    }
}
