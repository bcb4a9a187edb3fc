//! Destinations of released outputs.

use crate::disk::Disks;
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::recorder::disk_number;
use lockstep_logging_channel::{OutputKind, OutputTarget};
use lockstep_network::NetworkSender;
use lockstep_process::writing::standard;

/// The console on standard output, the network, and disks that both sides of a pair share.
pub struct Outlets {
    frames: NetworkSender,
    disks: Disks,
    /// The guest waits for who reads its console.
    waits_for_reader: bool,
}

impl Outlets {
    /// Outlets to this network. Nobody who reads the console makes anything here wait: what is not
    /// read in time is dropped, counted and marked.
    #[must_use]
    pub fn new(frames: NetworkSender) -> Self {
        Self {
            frames,
            disks: Disks::default(),
            waits_for_reader: false,
        }
    }

    /// The same with the machine's disks.
    #[must_use]
    pub fn with_disks(self, disks: Disks) -> Self {
        Self { disks, ..self }
    }

    /// The same, but the guest waits for who reads its console, until a signal ends the command:
    /// where nothing is protected, all of the text is worth more than time.
    #[must_use]
    pub fn waiting_for_reader(self) -> Self {
        Self {
            waits_for_reader: true,
            ..self
        }
    }

    /// Lets outputs go, frames that follow one another in a single system call. The network may
    /// lose frames, as networks do.
    ///
    /// # Errors
    /// [`DoorError::Host`]: the network is gone.
    pub fn release<'a>(
        &mut self,
        outputs: impl Iterator<Item = (OutputTarget, &'a [u8])>,
    ) -> Result<(), DoorError> {
        let mut outputs = outputs.peekable();
        while let Some((target, bytes)) = outputs.next() {
            match target.kind {
                OutputKind::Text if self.waits_for_reader => {
                    standard::console().push_when_there_is_room(bytes);
                }
                OutputKind::Text => standard::console().push(bytes),
                OutputKind::Disk => {
                    let number = disk_number(bytes).ok_or(DoorError::no_disk(target.device))?;
                    self.disks.release(target.device, number)?;
                }
                OutputKind::Frame => {
                    let following = std::iter::from_fn(|| {
                        let next = outputs.next_if(|(target, _)| target.kind == OutputKind::Frame);
                        next.map(|(_, bytes)| bytes)
                    });
                    let frames = std::iter::once(bytes).chain(following);
                    self.frames.send_batch(frames);
                }
            }
        }
        Ok(())
    }

    /// The network.
    pub fn network(&mut self) -> &mut NetworkSender {
        &mut self.frames
    }

    /// Sends a frame of the replica's own. One that cannot be sent is lost, as frames are.
    pub fn probe(&mut self, frame: &[u8]) {
        self.frames.send_batch(std::iter::once(frame));
    }
}
