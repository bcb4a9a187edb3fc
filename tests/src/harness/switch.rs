//! The network between a pair and its clients: `lockstep switch`, and what it has seen.

use super::process::{Ended, Process};
use super::{Scratch, lockstep};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the key-value guest serves, in the network of the guests.
pub const GUEST_SERVICE: &str = "10.0.2.15:6379";

/// Address of a guest in that network.
const GUEST: &str = "10.0.2.15";

/// A running switch.
#[derive(Debug)]
pub struct Switch {
    /// The process.
    pub process: Process,
    socket: PathBuf,
    capture: Option<PathBuf>,
    client_address: SocketAddr,
}

/// A frame that entered a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The port by which it entered, in the order in which ports first spoke.
    pub interface: u32,
    /// When, in microseconds of wall time.
    pub at_us: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// It is the switch's own station that sent it.
    pub is_from_host: bool,
}

impl Frame {
    /// The generation in which its sender says it speaks for the guest, if that is what this frame
    /// says.
    #[must_use]
    pub fn announced_generation(&self) -> Option<u32> {
        // docs/failover.md: an Ethernet header with this type, "LSGN", the pair's name, the
        // generation.
        let says_so =
            self.bytes.get(12..14) == Some(&[0x88, 0xb5]) && self.bytes.get(14..18) == Some(b"LSGN");
        let generation = self.bytes.get(34..38).filter(|_| says_so)?;
        Some(u32::from_le_bytes(generation.try_into().ok()?))
    }
}

impl Switch {
    /// Starts a switch in `scratch` that forwards a free TCP port to the guest's service, and
    /// captures all frames.
    ///
    /// # Panics
    /// It does not become ready.
    #[must_use]
    pub fn start(scratch: &Scratch) -> Self {
        let capture = scratch.join("frames.pcapng");
        Self::start_with(scratch.join("switch"), Some(capture), GUEST_SERVICE)
    }

    /// As [`Switch::start`], beside other switches of the same scratch: this one is called `name`.
    #[must_use]
    pub fn start_named(scratch: &Scratch, name: &str) -> Self {
        let capture = scratch.join(&format!("{name}.pcapng"));
        Self::start_with(scratch.join(name), Some(capture), GUEST_SERVICE)
    }

    /// As [`Switch::start`], but captures nothing: for measuring.
    #[must_use]
    pub fn start_quiet(scratch: &Scratch) -> Self {
        Self::start_with(scratch.join("switch"), None, GUEST_SERVICE)
    }

    /// As [`Switch::start_quiet`], with another TCP port of the guest.
    #[must_use]
    pub fn start_quiet_to(scratch: &Scratch, port: u16) -> Self {
        Self::start_with(scratch.join("switch"), None, &format!("{GUEST}:{port}"))
    }

    fn start_with(socket: PathBuf, capture: Option<PathBuf>, service: &str) -> Self {
        let mut command = lockstep();
        command.arg("switch").arg("--socket").arg(&socket);
        if let Some(capture) = &capture {
            command.arg("--pcap").arg(capture);
        }
        command.arg("--forward").arg(format!("127.0.0.1:0:{service}"));
        let mut process = Process::start("switch", &mut command);
        let ready = process.wait_for_stdout("->");
        let client_address = ready
            .split_whitespace()
            .find_map(|word| word.strip_prefix("forward=")?.split("->").next()?.parse().ok())
            .unwrap_or_else(|| panic!("no forward in `{ready}`"));
        Self {
            process,
            socket,
            capture,
            client_address,
        }
    }

    /// Where frames are captured.
    #[must_use]
    pub fn capture(&self) -> Option<&std::path::Path> {
        self.capture.as_deref()
    }

    /// What a machine is told to attach to it.
    #[must_use]
    pub fn attachment(&self) -> String {
        format!("switch:{}", self.socket.display())
    }

    /// Where clients connect.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Every frame that has entered so far.
    ///
    /// # Panics
    /// The capture is damaged, or there is none.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        packets(&std::fs::read(self.capture.as_ref().expect("a switch that captures")).expect("a capture"))
    }

    /// The port whose machine has announced `generation`, and the place of that frame among all.
    #[must_use]
    pub fn announced(&self, generation: u32) -> Option<(u32, usize)> {
        let frames = self.frames();
        let place = frames
            .iter()
            .position(|frame| frame.announced_generation() == Some(generation))?;
        Some((frames[place].interface, place))
    }

    /// Asks it to stop, and waits for its end.
    pub fn stop(&mut self) -> Ended {
        self.process.signal(Signal::SIGTERM);
        self.process.wait()
    }
}

/// Enhanced packet blocks of a pcapng file (draft-ietf-opsawg-pcapng, 4.3); a block that is being
/// written is left out.
fn packets(mut rest: &[u8]) -> Vec<Frame> {
    const INTERFACE_DESCRIPTION: u32 = 1;
    const ENHANCED_PACKET: u32 = 6;
    let (mut frames, mut hosts) = (Vec::new(), Vec::new());
    let word = |bytes: &[u8], at: usize| {
        bytes
            .get(at..at + 4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
    };
    while let (Some(kind), Some(total)) = (word(rest, 0), word(rest, 4)) {
        let Some(block) = rest.get(..total as usize) else {
            break;
        };
        if kind == INTERFACE_DESCRIPTION {
            // Link type and length, then the name as the first option.
            hosts.push(block.get(20..24) == Some(b"host"));
        }
        if kind == ENHANCED_PACKET {
            let length = word(block, 20).unwrap() as usize;
            let interface = word(block, 8).unwrap();
            frames.push(Frame {
                interface,
                is_from_host: hosts.get(interface as usize).copied().unwrap_or(false),
                at_us: u64::from(word(block, 12).unwrap()) << 32 | u64::from(word(block, 16).unwrap()),
                bytes: block[28..28 + length].to_vec(),
            });
        }
        rest = &rest[total as usize..];
    }
    frames
}
