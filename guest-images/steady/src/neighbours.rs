//! The computing guest's answers: to what is typed, and to frames.

use crate::record;
use lockstep_guest_runtime::network::{FRAME_BYTES_MAX, Network, NetworkError};
use lockstep_guest_runtime::{console, println};
use lockstep_guest_steady::echo::Station;

/// The byte that ends the guest: Ctrl-C.
const INTERRUPT: u8 = 0x03;

/// Echo of typed bytes.
#[derive(Debug, Default)]
pub struct Typing {
    taken: u64,
    interrupted: bool,
}

impl Typing {
    /// Echoes what has been typed.
    pub fn turn(&mut self) {
        while let Some(byte) = record::typed(self.taken) {
            self.taken += 1;
            match byte {
                Ok(INTERRUPT) => self.interrupted = true,
                Ok(byte) => console::write(&[byte]),
                Err(()) => println!("steady: a typed byte is lost"),
            }
        }
    }

    /// True once Ctrl-C has been typed.
    pub const fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Bytes taken.
    pub const fn taken(&self) -> u64 {
        self.taken
    }
}

/// Echo of frames.
pub struct Frames {
    network: Network,
    station: Station,
    answered: u64,
}

impl Frames {
    /// Starts the device.
    ///
    /// # Errors
    /// The network device's.
    pub fn start(ip: [u8; 4]) -> Result<Self, NetworkError> {
        let network = Network::start()?;
        record::notice_network();
        let mac = network.mac();
        Ok(Self {
            network,
            station: Station { mac, ip },
            answered: 0,
        })
    }

    /// Answers the frames that have come in, and has the next one interrupt.
    pub fn turn(&mut self) {
        loop {
            while let Some(frame) = self.network.receiver.peek() {
                let mut copy = [0; FRAME_BYTES_MAX];
                let length = frame.len().min(copy.len());
                let answer = copy.get_mut(..length).unwrap_or_default();
                answer.copy_from_slice(frame.get(..length).unwrap_or_default());
                self.network.receiver.drop_frame();
                if self.station.answer(answer) {
                    self.answered += 1;
                    let transmitter = &mut self.network.transmitter;
                    transmitter.send(length, |place| place.copy_from_slice(answer));
                }
            }
            self.network.exchange(false);
            if self.network.interrupt_at_next() {
                return;
            }
        }
    }

    /// Frames answered.
    pub const fn answered(&self) -> u64 {
        self.answered
    }
}
