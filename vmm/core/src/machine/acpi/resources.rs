//! Objects of the DSDT: devices with their resources, and sleep states.

use super::error::AcpiError;
use crate::machine::devices::board::{At, Board, Model, Placed};
use crate::machine::devices::virtio::mmio;
use crate::machine::devices::{power, serial};
use acpi_tables::aml::{
    Device, EISAName, IO, Memory32Fixed, Name, ONE, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::{Aml, AmlSink};

/// Linux's name of a virtio device with the MMIO transport.
const VIRTIO_ID: &str = "LNRO0005";
/// A 16550A.
const SERIAL_ID: &str = "PNP0501";

/// A table or an object as bytes.
pub(super) fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// The scope of devices with those of the board that a kernel cannot find otherwise.
pub(super) fn devices(board: &Board) -> Result<Vec<u8>, AcpiError> {
    let (mut virtio_devices, mut consoles) = (0, 0);
    let mut devices = Vec::new();
    for placed in board.devices() {
        devices.extend(match placed.model {
            Model::Network { .. } | Model::Entropy | Model::Disk(_) => {
                virtio_devices += 1;
                virtio(placed, virtio_devices - 1)?
            }
            Model::SerialConsole => {
                consoles += 1;
                console(placed, consoles)?
            }
            // Fixed hardware, or what a PC has without a table.
            Model::InterruptController
            | Model::IntervalTimer
            | Model::Clock
            | Model::Cmos
            | Model::PowerOff
            | Model::PowerManagement => continue,
        });
    }
    Ok(Scope::raw(Path::new("\\_SB_"), devices))
}

/// `\_S5`, the state without power, with the type of sleep that leads to it.
pub(super) fn off_state() -> Vec<u8> {
    let package = Package::new(vec![&power::SLEEP_TYPE_OFF, &0_u8, &0_u8, &0_u8]);
    bytes_of(&Name::new(Path::new("\\_S5_"), &package))
}

fn virtio(placed: &Placed, number: u8) -> Result<Vec<u8>, AcpiError> {
    let refused = AcpiError::Place { name: placed.name };
    let At::Memory(address) = placed.at else {
        return Err(refused);
    };
    let address = u32::try_from(address).map_err(|_| refused.clone())?;
    let registers = Memory32Fixed::new(true, address, mmio::REGISTERS as u32);
    let line = Line::of(placed).ok_or(refused)?;
    let name = Path::new(&format!("VR{number:02X}"));
    Ok(bytes_of(&Device::new(
        name,
        vec![
            &Name::new(Path::new("_HID"), &VIRTIO_ID),
            &Name::new(Path::new("_UID"), &number),
            &Name::new(Path::new("_CCA"), &ONE),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&registers, &line])),
        ],
    )))
}

fn console(placed: &Placed, number: u8) -> Result<Vec<u8>, AcpiError> {
    let refused = AcpiError::Place { name: placed.name };
    let At::Ports(ranges) = &placed.at else {
        return Err(refused);
    };
    let [range] = ranges.as_slice() else {
        return Err(refused);
    };
    let (first, line) = (*range.start(), Line::of(placed).ok_or(refused)?);
    let registers = IO::new(first, first, 1, serial::REGISTERS as u8);
    let name = Path::new(&format!("CM{number:02X}"));
    Ok(bytes_of(&Device::new(
        name,
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new(SERIAL_ID)),
            &Name::new(Path::new("_UID"), &number),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&registers, &line])),
        ],
    )))
}

/// An interrupt line of the pair of 8259A (6.4.2.1). The crate has only the descriptor of an APIC's
/// inputs.
struct Line {
    number: u8,
    level: bool,
}

impl Line {
    fn of(placed: &Placed) -> Option<Self> {
        Some(Self {
            number: placed.line?,
            level: placed.model.is_level_triggered(),
        })
    }
}

impl Aml for Line {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const WITHOUT_FLAGS: u8 = 0x22;
        const WITH_FLAGS: u8 = 0x23;
        /// Level-triggered, active high, not shared. Without flags it is an edge.
        const LEVEL: u8 = 0;
        let lines = 1_u16.checked_shl(self.number.into()).unwrap_or(0);
        sink.byte(if self.level { WITH_FLAGS } else { WITHOUT_FLAGS });
        sink.word(lines);
        if self.level {
            sink.byte(LEVEL);
        }
    }
}
