//! ACPI tables: what a kernel finds of the board of a PC that it does not find by itself.
//!
//! ```text
//!   RSDP -> XSDT -> FADT -> DSDT: a device for each virtio device, the console, and the off state
//!                       \-> FACS
//! ```
//!
//! There is no MADT, so a kernel routes interrupts by the pair of 8259A. Everything is computed
//! from the [`Board`]. Source: ACPI 6.4, sections 5.2 (tables), 6.4 (resources), 7.4 (sleep
//! states).

mod error;
mod resources;
#[cfg(test)]
mod tests;

pub use error::AcpiError;

use super::devices::board::{At, Board, Model, Placed};
use super::devices::{cmos, power};
use super::memory::Memory;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use resources::bytes_of;
use vm_memory::{Bytes, GuestAddress};

/// Address of the RSDP: where a PC's firmware has it, and all tables behind it.
pub const RSDP_ADDRESS: u64 = 0xe_0000;
/// End of the room for tables: where the first megabyte ends.
const END: u64 = 0x10_0000;
/// The alignment that the FACS needs; the others need less.
const ALIGNMENT: u64 = 64;

const OEM_ID: [u8; 6] = *b"LOCKST";
const OEM_TABLE_ID: [u8; 8] = *b"LOCKSTEP";
const OEM_REVISION: u32 = 1;
/// The revision in which integers have 64 bits.
const DSDT_REVISION: u8 = 2;
/// Bytes of a table's header.
const HEADER_BYTES: u32 = 36;

/// There are devices at ISA ports; there is no VGA. The bit of an 8042 stays clear.
const BOOT_ARCHITECTURE: u16 = 1 | 1 << 2;
/// Above 100 and 1000 microseconds: no such processor states.
const NO_C2_US: u16 = 101;
const NO_C3_US: u16 = 1001;

/// Writes the tables of `board` into memory: the address of their RSDP.
///
/// # Errors
/// [`AcpiError`].
pub fn write(memory: &Memory, board: &Board) -> Result<u64, AcpiError> {
    let tables = tables(board)?;
    memory
        .write_slice(&tables, GuestAddress(RSDP_ADDRESS))
        .map_err(|why| AcpiError::Memory {
            address: RSDP_ADDRESS,
            why: why.to_string(),
        })?;
    Ok(RSDP_ADDRESS)
}

/// All tables, as they are from [`RSDP_ADDRESS`] on.
fn tables(board: &Board) -> Result<Vec<u8>, AcpiError> {
    let mut image = Image(bytes_of(&Rsdp::new(OEM_ID, 0)));
    let facs = image.append(&bytes_of(&FACS::new()));
    let dsdt = image.append(&dsdt(board)?);
    let fadt = image.append(&fadt(board, dsdt, facs)?);
    let mut root = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    root.add_entry(fadt);
    let root = image.append(&bytes_of(&root));
    let Image(mut bytes) = image;
    bytes.splice(..Rsdp::len(), bytes_of(&Rsdp::new(OEM_ID, root)));
    let (length, bytes_max) = (bytes.len() as u64, END - RSDP_ADDRESS);
    if length > bytes_max {
        return Err(AcpiError::Length {
            bytes: length,
            bytes_max,
        });
    }
    Ok(bytes)
}

/// Tables behind each other.
struct Image(Vec<u8>);

impl Image {
    /// Address that a table gets.
    fn append(&mut self, table: &[u8]) -> u64 {
        let offset = (self.0.len() as u64).next_multiple_of(ALIGNMENT);
        self.0.resize(offset as usize, 0);
        self.0.extend_from_slice(table);
        RSDP_ADDRESS + offset
    }
}

/// The fixed hardware: power management, the clock's century.
fn fadt(board: &Board, dsdt: u64, facs: u64) -> Result<Vec<u8>, AcpiError> {
    let what = "power management";
    let power = find(board, Model::PowerManagement).ok_or(AcpiError::Missing { what })?;
    let place = AcpiError::Place { name: power.name };
    let events = port(power, power::EVENTS).ok_or(place.clone())?;
    let control = port(power, power::CONTROL).ok_or(place.clone())?;
    let timer = port(power, power::TIMER).ok_or(place.clone())?;
    let reset = port(power, power::RESET).ok_or(place.clone())?;
    let line = power.line.ok_or(place)?;

    let mut table = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        // By one address alone: a kernel takes two for two tables.
        .firmware_ctrl_32(facs as u32)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // No button and no alarm is among the fixed events.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    table.dsdt = (dsdt as u32).into();
    table.sci_int = u16::from(line).into();
    table.pm1a_evt_blk = u32::from(events).into();
    table.pm1a_cnt_blk = u32::from(control).into();
    table.pm_tmr_blk = u32::from(timer).into();
    table.pm1_evt_len = power::EVENTS_BYTES;
    table.pm1_cnt_len = power::CONTROL_BYTES;
    table.pm_tmr_len = power::TIMER_BYTES;
    table.x_pm1a_evt_blk = ports(events, power::EVENTS_BYTES, AccessSize::WordAccess);
    table.x_pm1a_cnt_blk = ports(control, power::CONTROL_BYTES, AccessSize::WordAccess);
    table.x_pm_tmr_blk = ports(timer, power::TIMER_BYTES, AccessSize::DwordAccess);
    table.reset_reg = ports(reset, 1, AccessSize::ByteAccess);
    table.reset_value = power::RESET_VALUE;
    table.p_lvl2_lat = NO_C2_US.into();
    table.p_lvl3_lat = NO_C3_US.into();
    if find(board, Model::Cmos).is_some() {
        table.century = cmos::CENTURY;
    }
    table.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    Ok(bytes_of(&table.finalize()))
}

fn find(board: &Board, model: Model) -> Option<&Placed> {
    board.devices().iter().find(|placed| placed.model == model)
}

/// Port of a device's register.
fn port(placed: &Placed, register: u64) -> Option<u16> {
    let At::Ports(ranges) = &placed.at else {
        return None;
    };
    let mut all = ranges.iter().cloned().flatten();
    all.nth(register as usize)
}

fn ports(first: u16, bytes: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8 * bytes, 0, access, first.into())
}

/// The devices that are not fixed hardware, and the sleep state without power.
fn dsdt(board: &Board) -> Result<Vec<u8>, AcpiError> {
    let mut table = Sdt::new(
        *b"DSDT",
        HEADER_BYTES,
        DSDT_REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    table.append_slice(&resources::devices(board)?);
    table.append_slice(&resources::off_state());
    Ok(table.as_slice().to_vec())
}
