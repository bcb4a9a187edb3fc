//! Saved states. Whatever the bytes: no panic, bounded memory, a machine or a named error; and a
//! machine that is accepted and restored saves to what it was restored from, and to the same bytes
//! every time.
//!
//! The first byte chooses: 0, the rest is a file; 1, the rest changes the machine of a sound one;
//! 2, the rest is the sections of one, with digests made right; 3 is as 1, of a machine with the
//! board of a PC.

use super::input::Input;
use lockstep_core::machine::cpu::EntryState;
use lockstep_core::machine::cpu::{
    ComparedCpu, CpuError, Entry, Exit, Registers, SavedCpu, SystemRegisters, Vcpu,
};
use lockstep_core::machine::devices::board::pc;
use lockstep_core::machine::devices::{Board, Devices};
use lockstep_core::machine::image::sites::{Site, Sites, Trapped};
use lockstep_core::machine::memory::{self, MEMORY_BYTES_MIN, Memory};
use lockstep_core::machine::page_set::PageSet;
use lockstep_core::machine::run::Policy;
use lockstep_core::machine::saved::format::{End, HEADER_BYTES, Section};
use lockstep_core::machine::saved::stream;
use lockstep_core::machine::{Machine, saved::SavedMachine};
use lockstep_logging_channel::Digest;
use vm_memory::{Bytes, GuestAddress};

/// The bytes before the first section: name, version, reserved.
const START_BYTES: usize = 8;
const LENGTH_AT: usize = 4;
const DIGEST_AT: usize = 8;
const PAGE_BYTES: usize = 4096;
const MACHINE: u8 = 1;
const PAGES: u8 = 2;
const END: u8 = 3;
/// Pages of one section of a built state: enough to go over the end of its memory and out of order.
const PAGES_MAX: usize = 4;

/// A vCPU that holds what it was restored from.
#[derive(Default)]
struct Held(SavedCpu);

impl Vcpu for Held {
    fn run(&mut self, _entry: Entry) -> Result<Exit, CpuError> {
        unreachable!("it is never run")
    }

    fn supply(&mut self, _value: u64) {}

    fn settle(&mut self) -> Result<(), CpuError> {
        Ok(())
    }

    fn is_whole(&mut self) -> Result<bool, CpuError> {
        Ok(true)
    }

    fn rip(&mut self) -> Option<u64> {
        Some(self.0.registers.rip)
    }

    fn interruptible(&mut self) -> Result<bool, CpuError> {
        Ok(false)
    }

    fn rax_at_exit(&mut self) -> u64 {
        self.0.registers.rax
    }

    fn registers(&mut self) -> Result<Registers, CpuError> {
        Ok(self.0.registers)
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), CpuError> {
        self.0.registers = *registers;
        Ok(())
    }

    fn system_registers(&mut self) -> Result<SystemRegisters, CpuError> {
        unreachable!("it runs no kernel")
    }

    fn power_on(&mut self, _entry: &EntryState) -> Result<(), CpuError> {
        unreachable!("it runs no kernel")
    }

    fn set_cr4(&mut self, _value: u64) -> Result<(), CpuError> {
        unreachable!("it runs no kernel")
    }

    fn compared(&mut self) -> Result<ComparedCpu, CpuError> {
        Ok(self.0.compared())
    }

    fn save(&mut self) -> Result<SavedCpu, CpuError> {
        Ok(self.0.clone())
    }

    fn load(&mut self, saved: &SavedCpu) -> Result<(), CpuError> {
        self.0 = saved.clone();
        Ok(())
    }

    fn count_exit(&mut self) -> Result<(), CpuError> {
        Ok(())
    }

    fn log_writes(&mut self, _on: bool) -> Result<(), CpuError> {
        Ok(())
    }

    fn written_pages(&mut self) -> Result<PageSet, CpuError> {
        Ok(PageSet::default())
    }

    fn given_pages(&self) -> PageSet {
        PageSet::default()
    }

    fn restore(self, saved: &SavedCpu) -> Result<Self, CpuError> {
        Ok(Self(saved.clone()))
    }
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        None | Some((0, [])) => {}
        Some((0, rest)) => check(&small(), rest),
        Some((1, rest)) => check(&small(), &changed(&small(), &mut Input::new(rest))),
        Some((3, rest)) => check(&pc(), &changed(&pc(), &mut Input::new(rest))),
        Some((_, rest)) => check(&small(), &built(&mut Input::new(rest))),
    }
}

fn check(board: &Board, file: &[u8]) {
    let Ok((saved, memory)) = stream::read(&mut &*file, MEMORY_BYTES_MIN) else {
        return;
    };
    let written = bytes_of(saved.clone(), &memory);
    let (again, memory_again) =
        stream::read(&mut &*written, MEMORY_BYTES_MIN).expect("what was written is read");
    assert_eq!(again, saved, "written and read again");
    assert_eq!(bytes_of(again, &memory_again), written, "the same bytes again");
    let Ok(mut machine) = Machine::restore(Held::default(), memory, board, &saved) else {
        return;
    };
    assert_eq!(
        machine.save().expect("a machine that was restored is saved"),
        saved
    );
}

fn bytes_of(machine: SavedMachine, memory: &Memory) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream::write(machine, memory, &mut bytes).expect("a vector takes all");
    bytes
}

/// A state as a machine saves it, with two pages.
fn sound(board: &Board) -> Vec<u8> {
    let memory = memory::allocate(MEMORY_BYTES_MIN).expect("memory");
    for address in [0x1000, MEMORY_BYTES_MIN - 8] {
        memory
            .write_slice(b"contents", GuestAddress(address))
            .expect("in memory");
    }
    let mut sites = Sites::default();
    sites.insert(Site {
        address: 0x10_0000,
        trapped: Trapped::Tsc,
    });
    sites.insert(Site {
        address: 0x10_0002,
        trapped: Trapped::Random {
            register: 9,
            size_bytes: 8,
        },
    });
    let policy = Policy {
        digest_interval_exits: 64,
        window_exits: false,
    };
    let devices = Devices::new(board).expect("devices");
    let mut machine = Machine::new(Held::default(), memory, devices, sites, policy);
    let saved = machine.save().expect("a fresh machine is saved");
    bytes_of(saved, machine.memory())
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn small() -> Board {
    Board::small(MAC).expect("a board")
}

fn pc() -> Board {
    Board::pc(pc::Configuration { mac: MAC }).expect("a board")
}

/// The body of the first section of `state`.
fn machine_of(state: &[u8]) -> &[u8] {
    let length = &state[START_BYTES + LENGTH_AT..START_BYTES + DIGEST_AT];
    let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
    &state[START_BYTES + HEADER_BYTES..][..length as usize]
}

/// A sound state with some bytes of its machine changed, and its digests right.
fn changed(board: &Board, input: &mut Input<'_>) -> Vec<u8> {
    let sound = sound(board);
    let mut body = machine_of(&sound).to_vec();
    while !input.is_empty() {
        let at = usize::from(input.word()) % (body.len() + 1);
        let with = input.byte();
        match body.get_mut(at) {
            Some(byte) => *byte = with,
            None => body.push(with),
        }
    }
    let mut state = State::new(&sound[..START_BYTES]);
    state.section(MACHINE, &body);
    state.section(PAGES, &page(1, 7));
    state.end();
    state.bytes
}

/// Sections of any kind, order and body, with their digests right.
fn built(input: &mut Input<'_>) -> Vec<u8> {
    let sound = sound(&small());
    let mut state = State::new(&sound[..START_BYTES]);
    while !input.is_empty() {
        match input.byte() % 5 {
            0 => state.section(MACHINE, machine_of(&sound)),
            1 => {
                let count = usize::from(input.byte()) % (PAGES_MAX + 1);
                let pages: Vec<u8> = (0..count)
                    .flat_map(|_| page(input.word().into(), input.byte()))
                    .collect();
                state.section(PAGES, &pages);
            }
            2 => state.end(),
            3 => {
                let kind = input.byte() % (END + 2);
                let length = usize::from(input.byte());
                let body = input.take(length).to_vec();
                state.section(kind, &body);
            }
            _ => state.bytes.push(input.byte()),
        }
    }
    state.bytes
}

/// A page of its index and one byte, again and again.
fn page(index: u64, byte: u8) -> Vec<u8> {
    [&index.to_le_bytes()[..], &[byte; PAGE_BYTES]].concat()
}

/// A state that is being put together; its end knows what came before.
struct State {
    bytes: Vec<u8>,
    digests: Vec<u8>,
    pages: u64,
}

impl State {
    fn new(start: &[u8]) -> Self {
        Self {
            bytes: start.to_vec(),
            digests: Vec::new(),
            pages: 0,
        }
    }

    fn section(&mut self, kind: u8, body: &[u8]) {
        let covered = [&[kind, 0, 0, 0][..], &(body.len() as u32).to_le_bytes()].concat();
        let digest = Digest::of(&[&covered, body].concat()).0;
        self.bytes.extend(covered);
        self.bytes.extend(digest);
        self.bytes.extend(body);
        self.digests.extend(digest);
        self.pages += if kind == PAGES {
            (body.len() / (PAGE_BYTES + 8)) as u64
        } else {
            0
        };
    }

    fn end(&mut self) {
        let end = End {
            pages: self.pages,
            sections: Digest::of(&self.digests),
        };
        self.bytes.extend(Section::End(end).encode().0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_state_is_accepted_and_restored() {
        let file = sound(&small());
        let (saved, memory) = stream::read(&mut &*file, MEMORY_BYTES_MIN).unwrap();
        let mut machine = Machine::restore(Held::default(), memory, &small(), &saved).unwrap();
        assert_eq!(machine.save().unwrap(), saved);
        check(&small(), &file);
    }

    #[test]
    fn what_is_built_is_accepted_where_it_is_in_order() {
        // The machine; two pages; the end.
        let file = built(&mut Input::new(&[0, 1, 2, 1, 0, 7, 2, 0, 9, 2]));
        assert!(stream::read(&mut &*file, MEMORY_BYTES_MIN).is_ok());
        let file = changed(&small(), &mut Input::new(&[]));
        assert!(stream::read(&mut &*file, MEMORY_BYTES_MIN).is_ok());
    }
}
