//! The bus: which device answers where, and what leaves and arrives through each.

use super::clock::{self, Clock};
use super::pic::Pic;
use super::pit::{NeedsTime, Pit};
use super::power::POWER_PORT;
use super::saved::{DeviceError, NoDigest, SavedDevice, Taken};
use super::serial::{self, Serial};
use super::virtio::{Mmio, mmio};
use crate::machine::door::{self, Ask, DoorError};
use crate::machine::memory::Memory;
use lockstep_logging_channel::{Event, EventKind, OutputTarget, PartDigest};
use vm_memory::{Bytes, GuestAddress};

const TIMER_LINE: u8 = 0;
const SERIAL_LINE: u8 = 4;
const RANDOM_BYTES: u32 = 4;

// Names of the devices, in logs and saved states.
const PIC: &str = "interrupt controller";
const PIT: &str = "interval timer";
const CLOCK: &str = "clock";
const SERIAL: &str = "serial console";
const NET: &str = "network device";

/// An effect that a device requests as the result of an access. Several are given in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// These bytes leave.
    Output(OutputTarget, Vec<u8>),
    /// The guest ends itself with this status.
    PowerOff(u32),
}

/// All devices of a machine.
pub struct Devices {
    pic: Pic,
    pit: Pit,
    clock: Clock,
    serial: Serial,
    net: Mmio,
}

impl Devices {
    /// The platform with this network device.
    #[must_use]
    pub fn new(net: Mmio) -> Self {
        let mut pic = Pic::default();
        pic.wire_level(mmio::LINE);
        Self {
            pic,
            pit: Pit::default(),
            clock: Clock::default(),
            serial: Serial::default(),
            net,
        }
    }

    /// True where an interrupt waits for the vCPU.
    #[must_use]
    pub fn interrupt_pending(&self) -> bool {
        self.pic.is_pending()
    }

    /// The vCPU takes it: its vector.
    pub fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.pic.acknowledge()
    }

    /// Guest time at which the interval timer expires next.
    #[must_use]
    pub fn timer_deadline_ns(&self) -> Option<u64> {
        self.pit.deadline_ns()
    }

    /// Receive buffers of the network device.
    #[must_use]
    pub fn receive_buffers(&self, memory: &Memory) -> usize {
        self.net.receive_buffers(memory)
    }

    /// Bytes of console input there is room for.
    #[must_use]
    pub fn console_input_bytes_free(&self) -> usize {
        self.serial.input_bytes_free()
    }

    /// Reads a port.
    ///
    /// # Errors
    /// The door's.
    pub fn read_port(&mut self, port: u16, size_bytes: u8, ask: Ask<'_>) -> Result<u32, DoorError> {
        let value = match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => u32::from(self.pic.read(port)),
            0x40..=0x43 | 0x61 => {
                let now_ns = self.time_for(self.pit.read_needs_time(port), ask)?;
                u32::from(self.pit.read(port, now_ns))
            }
            serial::FIRST_PORT..=serial::LAST_PORT => {
                let value = self.serial.read((port - serial::FIRST_PORT) as u8);
                self.raise_serial();
                u32::from(value)
            }
            clock::MONOTONIC_PORT => self.clock.answer(door::monotonic(ask)?),
            clock::WALL_PORT => self.clock.answer(door::wall(ask)?),
            clock::MONOTONIC_HIGH_PORT | clock::WALL_HIGH_PORT => self.clock.high_half(),
            clock::RANDOM_PORT => random_of(&door::random(ask, RANDOM_BYTES)?),
            _ => u32::MAX,
        };
        Ok(value & low_bits(size_bytes))
    }

    /// Writes a port.
    ///
    /// # Errors
    /// The door's.
    pub fn write_port(&mut self, port: u16, value: u32, ask: Ask<'_>) -> Result<Option<Effect>, DoorError> {
        let byte = value as u8;
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => self.pic.write(port, byte),
            0x40..=0x43 | 0x61 => {
                let now_ns = self.time_for(self.pit.write_needs_time(port, byte), ask)?;
                self.pit.write(port, byte, now_ns);
            }
            serial::FIRST_PORT..=serial::LAST_PORT => {
                let line = self.serial.write((port - serial::FIRST_PORT) as u8, byte);
                self.raise_serial();
                return Ok(line.map(|line| Effect::Output(OutputTarget::Console, line)));
            }
            clock::PAGE_PORT => self.clock.set_page(value),
            POWER_PORT => return Ok(Some(Effect::PowerOff(value))),
            _ => {}
        }
        Ok(None)
    }

    fn time_for(&self, needs: NeedsTime, ask: Ask<'_>) -> Result<u64, DoorError> {
        match needs {
            NeedsTime::Yes => door::monotonic(ask),
            NeedsTime::No => Ok(0),
        }
    }

    fn raise_serial(&mut self) {
        if self.serial.take_interrupt() {
            self.pic.pulse(SERIAL_LINE);
        }
    }

    /// Reads device memory.
    #[must_use]
    pub fn read_mmio(&self, address: u64, size_bytes: u8) -> u64 {
        match net_offset(address) {
            Some(offset) => self.net.read(offset, size_bytes),
            None => u64::MAX,
        }
    }

    /// Writes device memory: what leaves by it.
    pub fn write_mmio(&mut self, address: u64, value: u64, memory: &Memory) -> Vec<Effect> {
        let mut sent = Vec::new();
        if let Some(offset) = net_offset(address) {
            self.net.write(offset, value as u32, memory, &mut sent);
            self.pic.set_line(mmio::LINE, self.net.line());
        }
        sent.into_iter()
            .map(|frame| Effect::Output(OutputTarget::Network, frame))
            .collect()
    }

    /// Console bytes that have not left yet.
    pub fn flush_console(&mut self) -> Option<Effect> {
        self.serial
            .flush()
            .map(|line| Effect::Output(OutputTarget::Console, line))
    }

    /// Takes what arrives.
    pub fn event(&mut self, event: &Event, memory: &Memory) {
        if let Some(page) = self.clock.event(event.monotonic_ns) {
            // A page outside memory is the guest's mistake: it gets no time.
            let _ = memory.write_slice(&event.monotonic_ns.to_le_bytes(), GuestAddress(page));
        }
        match &event.kind {
            EventKind::Frame(frame) => {
                self.net.receive(frame, memory);
                self.pic.set_line(mmio::LINE, self.net.line());
            }
            EventKind::Timer => {
                if self.pit.expire(event.monotonic_ns) {
                    self.pic.pulse(TIMER_LINE);
                }
            }
            EventKind::ConsoleInput(bytes) => {
                self.serial.receive(bytes);
                self.raise_serial();
            }
        }
    }

    /// Each device in its saved form, in a fixed order.
    ///
    /// # Errors
    /// [`NoDigest`].
    pub fn saved(&self) -> Result<Vec<SavedDevice>, NoDigest> {
        let Self {
            pic,
            pit,
            clock,
            serial,
            net,
        } = self;
        Ok(vec![
            SavedDevice::new(PIC, &pic.saved())?,
            SavedDevice::new(PIT, &pit.saved())?,
            SavedDevice::new(CLOCK, &clock.saved())?,
            SavedDevice::new(SERIAL, &serial.saved())?,
            SavedDevice::new(NET, &net.saved())?,
        ])
    }

    /// The platform in a saved state.
    ///
    /// # Errors
    /// [`DeviceError`] unless every device is there once, in a state that it can have, and no
    /// other.
    pub fn restore(saved: &[SavedDevice]) -> Result<Self, DeviceError> {
        let mut taken = Taken::from(saved);
        let devices = Self {
            pic: taken.device(PIC, Pic::restore)?,
            pit: taken.device(PIT, Pit::restore)?,
            clock: taken.device(CLOCK, Clock::restore)?,
            serial: taken.device(SERIAL, Serial::restore)?,
            net: taken.device(NET, Mmio::restore)?,
        };
        taken.finish()?;
        Ok(devices)
    }

    /// Digest of each device's saved form, in a fixed order.
    ///
    /// # Errors
    /// [`NoDigest`].
    pub fn digests(&self) -> Result<Vec<PartDigest>, NoDigest> {
        Ok(self.saved()?.iter().map(SavedDevice::digest).collect())
    }
}

fn net_offset(address: u64) -> Option<u64> {
    address
        .checked_sub(mmio::BASE_ADDRESS)
        .filter(|offset| *offset < mmio::SIZE_BYTES)
}

fn low_bits(size_bytes: u8) -> u32 {
    match size_bytes {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}

fn random_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
