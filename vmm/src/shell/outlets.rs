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

    /// Lets outputs go, frames that follow one another in a single system call. The network may lose frames, as networks do; the console
    /// may not.
    ///
    /// # Errors
    /// [`DoorError::Host`]: standard output or the network is gone.
    pub fn release<'a>(
        &mut self,
        outputs: impl Iterator<Item = (OutputTarget, &'a [u8])>,
    ) -> Result<(), DoorError> {
        let mut outputs = outputs.peekable();
        while let Some((target, bytes)) = outputs.next() {
            match target {
                OutputTarget::Console => write_console(bytes)?,
                OutputTarget::Network => {
                    let following = std::iter::from_fn(|| {
                        let next = outputs.next_if(|(target, _)| *target == OutputTarget::Network);
                        next.map(|(_, bytes)| bytes)
                    });
                    let frames = std::iter::once(bytes).chain(following);
                    self.frames.send_batch(frames).map_err(|why| DoorError::Host {
                        what: "network",
                        why: why.to_string(),
                    })?;
                }
            }
        }
        Ok(())
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

fn write_console(bytes: &[u8]) -> Result<(), DoorError> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|why| DoorError::Host {
        what: "console",
        why: why.to_string(),
    })
}
