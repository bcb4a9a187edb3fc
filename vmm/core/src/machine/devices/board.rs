//! Boards: which devices a machine has, and where they answer.
//!
//! A board is a value: devices at ports or in device memory, each with its interrupt line. The
//! place of a device on its board is the [`DeviceId`] by which events, outputs and readiness name
//! it. A board that exists can be built: [`Board::new`] refuses one whose parts are in each other's
//! way.

mod disks;
pub mod pc;
pub mod small;

use super::addresses::{Addresses, Register};
use super::virtio::mmio;
use super::{clock, cmos, pic, pit, power, serial};
use crate::machine::disk::{DISKS_MAX, DiskShape, ShapeError};
use crate::machine::image::sites::TRAP_PORT;
use crate::machine::image::trap_ports::KernelTrap;
use crate::machine::memory::MEMORY_BYTES_MAX;
use lockstep_logging_channel::DeviceId;
use std::fmt;
use std::ops::RangeInclusive;

/// The most devices on a board; the small one has 6, that of a PC 7, and each may have 4 disks.
pub const DEVICES_MAX: usize = 64;

/// A kind of board, which says where rewritten instructions lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The small one: to one port, which is read.
    Small,
    /// That of a PC: to the ports of a kernel's traps, which are written.
    Pc,
}

impl Kind {
    /// True where `port` is the machine's own.
    fn has_trap_at(self, port: u16) -> bool {
        match self {
            Self::Small => port == u16::from(TRAP_PORT),
            Self::Pc => KernelTrap::at(port).is_some(),
        }
    }
}

/// A kind of device, and what it is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A pair of 8259A: the lines of the others lead here. Every board has one.
    InterruptController,
    /// An 8254.
    IntervalTimer,
    /// Clock, entropy, and the clock page.
    Clock,
    /// The real-time clock of a PC, and its memory.
    Cmos,
    /// A 16550A.
    SerialConsole,
    /// A virtio network device.
    Network {
        /// Its Ethernet address.
        mac: [u8; 6],
    },
    /// A virtio entropy device.
    Entropy,
    /// A virtio block device.
    Disk(DiskShape),
    /// Ends the machine when it is written.
    PowerOff,
    /// The registers of ACPI: sleep, timer, reset.
    PowerManagement,
}

impl Model {
    /// Registers, an address each.
    fn registers(self) -> u64 {
        match self {
            Self::InterruptController => pic::REGISTERS,
            Self::IntervalTimer => pit::REGISTERS,
            Self::Clock => clock::REGISTERS,
            Self::SerialConsole => serial::REGISTERS,
            Self::Cmos => cmos::REGISTERS,
            Self::Network { .. } | Self::Entropy | Self::Disk(_) => mmio::REGISTERS,
            Self::PowerOff => 1,
            Self::PowerManagement => power::REGISTERS,
        }
    }

    /// True where its interrupt line is level-triggered.
    pub(crate) fn is_level_triggered(self) -> bool {
        matches!(
            self,
            Self::Network { .. } | Self::Entropy | Self::Disk(_) | Self::PowerManagement
        )
    }
}

/// Addresses at which a device answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// At ports. Registers are numbered through the ranges.
    Ports(Vec<RangeInclusive<u16>>),
    /// In device memory, from this address on.
    Memory(u64),
}

/// A device on a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its name in saved states, digests and reports. No other on the board has it.
    pub name: &'static str,
    /// Its kind.
    pub model: Model,
    /// Its addresses.
    pub at: At,
    /// Its interrupt line.
    pub line: Option<u8>,
}

/// Reason why devices are not a board.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoardError {
    /// Two devices at one address.
    #[error("the board has `{one}` and `{other}` at the same {space}, {first:#x} to {last:#x}")]
    Overlap {
        /// The earlier device.
        one: &'static str,
        /// The later.
        other: &'static str,
        /// `ports` or `device memory`.
        space: &'static str,
        /// First address of the later.
        first: u64,
        /// Last address of it.
        last: u64,
    },
    /// Not as many ports as registers.
    #[error("the board gives `{name}` {found} ports, and it has {expected} registers")]
    Ports {
        /// The device.
        name: &'static str,
        /// Registers that it has.
        expected: u64,
        /// Ports on the board.
        found: u64,
    },
    /// A port to which rewritten instructions lead.
    #[error("the board has `{name}` at port {port:#x}, which is the machine's own")]
    TrapPort {
        /// The device.
        name: &'static str,
        /// The port.
        port: u16,
    },
    /// Device memory where guest memory may be, or where there are no addresses.
    #[error("the board has `{name}` at {address:#x}, which cannot be device memory")]
    Memory {
        /// The device.
        name: &'static str,
        /// Its address.
        address: u64,
    },
    /// An interrupt line that the device cannot have.
    #[error("the board has `{name}` on interrupt line {line}: {why}")]
    Line {
        /// The device.
        name: &'static str,
        /// The line.
        line: u8,
        /// The reason.
        why: &'static str,
    },
    /// Two devices of one name.
    #[error("the board has two devices `{name}`")]
    Repeated {
        /// The name.
        name: &'static str,
    },
    /// None, or several.
    #[error("the board has {found} interrupt controllers, not one")]
    Controllers {
        /// Their number.
        found: usize,
    },
    /// A disk that cannot be.
    #[error("the board has `{name}`, which cannot be: {why}")]
    Disk {
        /// The disk.
        name: &'static str,
        /// The reason.
        why: ShapeError,
    },
    /// Too many disks.
    #[error("the board has {found} disks; {DISKS_MAX} is the most")]
    Disks {
        /// Their number.
        found: usize,
    },
    /// Too many devices.
    #[error("the board has {found} devices; {DEVICES_MAX} is the most")]
    Devices {
        /// Their number.
        found: usize,
    },
}

/// Devices at addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    kind: Kind,
    devices: Vec<Placed>,
    ports: Addresses,
    memory: Addresses,
}

impl Board {
    /// A board of this kind with these devices, which are numbered in this order from 0.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn new(kind: Kind, devices: Vec<Placed>) -> Result<Self, BoardError> {
        let found = devices.len();
        if found > DEVICES_MAX {
            return Err(BoardError::Devices { found });
        }
        let is_controller = |placed: &&Placed| placed.model == Model::InterruptController;
        let found = devices.iter().filter(is_controller).count();
        if found != 1 {
            return Err(BoardError::Controllers { found });
        }
        let mut board = Self {
            kind,
            devices,
            ports: Addresses::default(),
            memory: Addresses::default(),
        };
        let mut lines = Vec::new();
        for (index, placed) in board.devices.iter().enumerate() {
            let name = placed.name;
            if board.devices.iter().take(index).any(|other| other.name == name) {
                return Err(BoardError::Repeated { name });
            }
            check_line(placed, &mut lines)?;
        }
        for index in 0..board.devices.len() {
            board.give_addresses(index)?;
        }
        Ok(board)
    }

    fn give_addresses(&mut self, index: usize) -> Result<(), BoardError> {
        let Self {
            kind,
            devices,
            ports,
            memory,
        } = self;
        let Some(placed) = devices.get(index) else {
            return Ok(());
        };
        let (name, registers) = (placed.name, placed.model.registers());
        let device = DeviceId(index as u8);
        let overlap = |space, first, last, other: Register| BoardError::Overlap {
            one: devices
                .get(usize::from(other.device.0))
                .map_or("", |placed| placed.name),
            other: name,
            space,
            first,
            last,
        };
        match &placed.at {
            At::Ports(ranges) => {
                let mut offset = 0;
                for range in ranges {
                    if let Some(port) = range.clone().find(|port| kind.has_trap_at(*port)) {
                        return Err(BoardError::TrapPort { name, port });
                    }
                    let (first, last) = (u64::from(*range.start()), u64::from(*range.end()));
                    ports
                        .give(first, last, Register { device, offset })
                        .map_err(|other| overlap("ports", first, last, other))?;
                    offset += range.len() as u64;
                }
                if offset != registers {
                    return Err(BoardError::Ports {
                        name,
                        expected: registers,
                        found: offset,
                    });
                }
            }
            At::Memory(address) => {
                let first = *address;
                let last = first
                    .checked_add(registers - 1)
                    .filter(|_| first >= MEMORY_BYTES_MAX)
                    .ok_or(BoardError::Memory { name, address: first })?;
                memory
                    .give(first, last, Register { device, offset: 0 })
                    .map_err(|other| overlap("device memory", first, last, other))?;
            }
        }
        Ok(())
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The devices, in the order of their numbers.
    pub(crate) fn devices(&self) -> &[Placed] {
        &self.devices
    }

    /// Their registers at ports.
    pub(super) fn ports(&self) -> &Addresses {
        &self.ports
    }

    /// Their registers in device memory.
    pub(super) fn memory(&self) -> &Addresses {
        &self.memory
    }
}

/// The pair of 8259A where PCs have it.
fn interrupt_controller() -> Placed {
    let ports = [0x20..=0x21, 0xa0..=0xa1, 0x4d0..=0x4d1];
    at_ports("interrupt controller", Model::InterruptController, &ports, None)
}

/// The 8254 where PCs have it.
fn interval_timer() -> Placed {
    let ports = [0x40..=0x43, 0x61..=0x61];
    at_ports("interval timer", Model::IntervalTimer, &ports, Some(0))
}

/// The first 16550A where PCs have it.
fn serial_console() -> Placed {
    at_ports("serial console", Model::SerialConsole, &[0x3f8..=0x3ff], Some(4))
}

/// A device at ports.
fn at_ports(name: &'static str, model: Model, ports: &[RangeInclusive<u16>], line: Option<u8>) -> Placed {
    let at = At::Ports(ports.to_vec());
    Placed {
        name,
        model,
        at,
        line,
    }
}

/// A device in device memory.
fn in_memory(name: &'static str, model: Model, address: u64, line: u8) -> Placed {
    Placed {
        name,
        model,
        at: At::Memory(address),
        line: Some(line),
    }
}

/// Refuses a line that is none of the device's; `lines` has those that are taken.
fn check_line(placed: &Placed, lines: &mut Vec<u8>) -> Result<(), BoardError> {
    let Some(line) = placed.line else { return Ok(()) };
    let why = if line >= pic::LINES {
        "the interrupt controller has no such line"
    } else if line == pic::CASCADE_LINE {
        "the second chip of the interrupt controller is on it"
    } else if lines.contains(&line) {
        "another device is on it"
    } else if placed.model.is_level_triggered() && !pic::can_be_level(line) {
        "it cannot be level-triggered"
    } else {
        lines.push(line);
        return Ok(());
    };
    Err(BoardError::Line {
        name: placed.name,
        line,
        why,
    })
}

/// The devices by their numbers, each with its addresses and its line.
impl fmt::Display for Board {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, placed) in self.devices.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(formatter, "{separator}{index} {}", placed.name)?;
            match &placed.at {
                At::Ports(ranges) => {
                    write!(formatter, " at ports")?;
                    for range in ranges {
                        write!(formatter, " {:#x}-{:#x}", range.start(), range.end())?;
                    }
                }
                At::Memory(address) => write!(formatter, " in memory at {address:#x}")?,
            }
            if let Some(line) = placed.line {
                write!(formatter, " line {line}")?;
            }
            if let Model::Disk(shape) = placed.model {
                write!(formatter, " of {shape}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
