//! A guest that restarts itself.

use super::*;
use crate::machine::boot::linux::{RESTART_WORD_ADDRESS, WARM};
use crate::machine::boot::{Firmware, small as protocol};
use crate::machine::cpu::EntryState;
use crate::machine::devices::board::pc;
use crate::machine::memory::Memory;
use vm_memory::{Bytes, GuestAddress};

const ENTRY: u64 = 0x10_0000;
const LEFT_OVER: GuestAddress = GuestAddress(0x18_0000);

fn pc_devices() -> Devices {
    let mac = [2, 0, 0, 0, 0, 1];
    Devices::new(&Board::pc(pc::Configuration { mac }).unwrap()).unwrap()
}

struct Begins;

impl Firmware for Begins {
    fn boot(&self, memory: &Memory) -> Result<EntryState, String> {
        let is_empty = memory.read_obj::<u64>(LEFT_OVER).unwrap() == 0;
        assert!(is_empty, "a guest begins in memory that is all zeros");
        Ok(protocol::entry_state(ENTRY))
    }

    fn devices(&self) -> Result<Devices, String> {
        Ok(pc_devices())
    }
}

/// The reset register of the PC board.
fn reset() -> Turn {
    write(0xcf9, 6)
}

/// S5: SLP_EN, and type 5.
fn soft_off() -> Turn {
    Turn::new(Exit::PortWrite {
        port: 0x604,
        size_bytes: 2,
        value: 1 << 13 | 5 << 10,
    })
}

fn run_pc(cpu: &mut FakeCpu, restart_word: u16, firmware: Option<Begins>) -> (Ended, FakeDoor) {
    let mut door = FakeDoor::default();
    let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
    memory.write_obj(1_u64, LEFT_OVER).unwrap();
    memory
        .write_obj(restart_word, GuestAddress(RESTART_WORD_ADDRESS))
        .unwrap();
    cpu.given = [LEFT_OVER.0 / 4096, 0]
        .into_iter()
        .fold(PageSet::default(), |mut pages, page| {
            pages.insert(page);
            pages
        });
    let mut machine = Machine::new(cpu, memory, pc_devices(), Sites::default(), NEVER);
    if let Some(firmware) = firmware {
        machine = machine.restarting(Box::new(firmware));
    }
    let ended = machine.run(&mut door).unwrap();
    (ended, door)
}

#[test]
fn a_restart_begins_anew_and_goes_on_counting() {
    let mut cpu = FakeCpu::new([
        write(0x3f8, b'x'.into()),
        reset(),
        write(0x3f8, b'y'.into()),
        soft_off(),
    ]);
    let (ended, door) = run_pc(&mut cpu, 0, Some(Begins));
    assert_eq!(ended.reason, EndReason::PoweredOff(0));
    assert_eq!(ended.point.exits, 4);
    assert_eq!(cpu.loaded, 1);
    // What was on its way to the console has left before.
    let said: Vec<_> = door
        .outputs
        .iter()
        .map(|(_, _, bytes)| bytes.as_slice())
        .collect();
    assert_eq!(said, [b"x", b"y"]);
}

#[test]
fn a_restart_by_a_panic_ends_the_guest() {
    let mut cpu = FakeCpu::new([reset()]);
    let (ended, _) = run_pc(&mut cpu, WARM, Some(Begins));
    assert_eq!(
        ended.reason,
        EndReason::GuestFault("its kernel panicked".to_owned())
    );
}

#[test]
fn a_restart_from_nothing_ends_the_guest() {
    let mut cpu = FakeCpu::new([reset()]);
    let (ended, _) = run_pc(&mut cpu, 0, None);
    assert!(matches!(ended.reason, EndReason::GuestFault(why) if why.contains("nothing to begin")));
}
