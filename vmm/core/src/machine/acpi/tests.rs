//! Tables read again as a kernel reads them.

use super::*;
use crate::machine::devices::board::{Kind, pc};
use crate::machine::memory::{self, MEMORY_BYTES_MIN};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn pc() -> Board {
    Board::pc(pc::Configuration { mac: MAC }).unwrap()
}

/// Memory with the tables of a PC.
fn written() -> Memory {
    let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
    assert_eq!(write(&memory, &pc()), Ok(0xe_0000));
    memory
}

fn bytes(memory: &Memory, address: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let field = bytes[at..at + length].iter().rev();
    field.fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The table at `address`, whose header says how long it is.
fn table(memory: &Memory, address: u64, signature: &[u8; 4]) -> Vec<u8> {
    let header = bytes(memory, address, 36);
    assert_eq!(&header[..4], signature);
    let table = bytes(memory, address, number(&header, 4, 4));
    assert_eq!(sum(&table), 0, "the checksum");
    assert_eq!(&table[10..24], b"LOCKSTLOCKSTEP");
    table
}

fn fadt(memory: &Memory) -> Vec<u8> {
    let pointer = bytes(memory, RSDP_ADDRESS, 36);
    assert_eq!(&pointer[..8], b"RSD PTR ");
    assert_eq!((sum(&pointer[..20]), sum(&pointer)), (0, 0));
    assert_eq!((pointer[15], number(&pointer, 20, 4)), (2, 36));
    let root = table(memory, number(&pointer, 24, 8), b"XSDT");
    assert_eq!(root.len(), 36 + 8, "the FADT alone: no MADT");
    table(memory, number(&root, 36, 8), b"FACP")
}

/// An address structure of a port: its port, if it has `bits` bits.
fn port_at(fadt: &[u8], at: usize, bits: u8) -> u64 {
    assert_eq!((fadt[at], fadt[at + 1], fadt[at + 2]), (1, bits, 0));
    number(fadt, at + 4, 8)
}

#[test]
fn the_fadt_has_the_fixed_hardware_of_the_board() {
    let fadt = fadt(&written());
    assert_eq!((fadt[8], fadt.len()), (6, 276), "its revision");
    assert_eq!(number(&fadt, 46, 2), 9, "SCI_INT");
    assert_eq!(number(&fadt, 48, 4), 0, "SMI_CMD: always in ACPI mode");
    assert_eq!([56, 64, 76].map(|at| number(&fadt, at, 4)), [0x600, 0x604, 0x608]);
    assert_eq!([88, 89, 91].map(|at: usize| fadt[at]), [4, 2, 4], "their lengths");
    assert_eq!(port_at(&fadt, 148, 32), 0x600);
    assert_eq!(port_at(&fadt, 172, 16), 0x604);
    assert_eq!(port_at(&fadt, 208, 32), 0x608);
    assert_eq!((port_at(&fadt, 116, 8), fadt[128]), (0xcf9, 6), "RESET_REG");
    assert_eq!(fadt[108], 0x32, "the century");
    let (wanted, unwanted) = (
        1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10,
        1 << 8 | 1 << 20,
    );
    assert_eq!(number(&fadt, 112, 4) & (wanted | unwanted), wanted, "flags");
    let without_8042 = number(&fadt, 109, 2);
    assert_eq!(without_8042, 0b101);
}

#[test]
fn the_facs_has_one_address_and_both_of_the_dsdt_agree() {
    let memory = written();
    let fadt = fadt(&memory);
    let facs = number(&fadt, 36, 4);
    assert_eq!((number(&fadt, 132, 8), facs % 64), (0, 0));
    assert_eq!(&bytes(&memory, facs, 8), b"FACS\x40\0\0\0");
    let dsdt = number(&fadt, 140, 8);
    assert_eq!(number(&fadt, 40, 4), dsdt);
    table(&memory, dsdt, b"DSDT");
}

/// A device with the name and objects of `ids`, and its resources.
fn device(name: &[u8; 4], ids: &[u8], resources: &[u8]) -> Vec<u8> {
    let end = [resources, &[0x79, 0]].concat();
    let buffer = [&[0x0a, end.len() as u8], end.as_slice()].concat();
    let buffer = [&[0x11, buffer.len() as u8 + 1], buffer.as_slice()].concat();
    let body = [name, ids, b"\x08_CRS", &buffer].concat();
    // One byte of length reaches to 63.
    let length = body.len() + 2;
    let length = [0x40 | (length & 0xf) as u8, (length >> 4) as u8];
    let length = if body.len() < 63 {
        vec![body.len() as u8 + 1]
    } else {
        length.to_vec()
    };
    [&[0x5b, 0x82], length.as_slice(), &body].concat()
}

#[test]
fn the_dsdt_has_a_device_for_each_that_a_kernel_does_not_find_otherwise() {
    let memory = written();
    let dsdt = table(&memory, number(&fadt(&memory), 140, 8), b"DSDT");
    let virtio = |uid| {
        [
            b"\x08_HID\x0dLNRO0005\0\x08_UID".as_slice(),
            &[uid],
            b"\x08_CCA\x01",
        ]
        .concat()
    };
    let at = |page: u8| [0x86, 9, 0, 1, 0, page << 4, 0, 0xd0, 0, 0x10, 0, 0];
    let net = device(b"VR00", &virtio(0), &[&at(0)[..], &[0x23, 0x20, 0, 0]].concat());
    let console = device(
        b"CM01",
        b"\x08_HID\x0c\x41\xd0\x05\x01\x08_UID\x01",
        &[0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x22, 0x10, 0],
    );
    let entropy = device(b"VR01", &virtio(1), &[&at(1)[..], &[0x23, 0, 4, 0]].concat());
    let devices = [b"\\_SB_".as_slice(), &console, &net, &entropy].concat();
    let length = devices.len() + 2;
    let scope = [0x10, 0x40 | (length & 0xf) as u8, (length >> 4) as u8];
    let off = b"\x08\\_S5_\x12\x07\x04\x0a\x05\0\0\0";
    let expected = [scope.as_slice(), &devices, off].concat();
    assert_eq!(&dsdt[36..], expected);
}

#[test]
fn a_board_without_the_hardware_has_no_tables() {
    let small = Board::small(MAC).unwrap();
    assert_eq!(
        tables(&small).unwrap_err().to_string(),
        "ACPI tables need power management, which the board does not have"
    );
}

#[test]
fn a_device_that_no_resource_reaches_is_named() {
    let moved = |model, at| {
        let mut devices = pc().devices().to_vec();
        let placed = devices.iter_mut().find(|placed| placed.model == model).unwrap();
        placed.at = at;
        tables(&Board::new(Kind::Pc, devices).unwrap())
            .unwrap_err()
            .to_string()
    };
    let high = moved(Model::Entropy, At::Memory(1 << 32));
    assert_eq!(
        high,
        "ACPI tables cannot say where the board has `entropy device`"
    );
    let two = moved(
        Model::SerialConsole,
        At::Ports(vec![0x3f8..=0x3fb, 0x2f8..=0x2fb]),
    );
    assert_eq!(two, "ACPI tables cannot say where the board has `serial console`");
    let power = moved(Model::PowerManagement, At::Memory(0xd100_0000));
    assert_eq!(
        power,
        "ACPI tables cannot say where the board has `power management`"
    );
}
