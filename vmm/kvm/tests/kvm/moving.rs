//! Moving a machine: saved, written, read, and built again over a virtual machine of its own.

use lockstep_core::machine::boot;
use lockstep_core::machine::cpu::cpuid;
use lockstep_core::machine::devices::Board;
use lockstep_core::machine::door::Door;
use lockstep_core::machine::run::Pause;
use lockstep_core::machine::saved::stream;
use lockstep_core::machine::{Ended, Machine};
use lockstep_kvm::kick::KickTimer;
use lockstep_kvm::{ClockKind, Host, KvmCpu, Vm};
use std::time::Duration;

/// Ethernet address of the machine.
pub const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

/// The board of the machine, before a move and after it.
pub fn board() -> Board {
    Board::small(MAC).unwrap()
}

/// Runs to the end, on another machine wherever `mover` says so. The last machine, how it ended,
/// and how many moves there were.
pub fn run_to_end(
    host: &Host,
    clock: ClockKind,
    mut machine: Machine<KvmCpu>,
    door: &mut dyn Door,
    mover: &mut dyn Mover,
) -> (Machine<KvmCpu>, Ended, u32) {
    let mut count = 0;
    loop {
        mover.begins();
        match machine.run_until(door, &mut |pause| mover.moves(pause)).unwrap() {
            Some(ended) => return (machine, ended, count),
            None => machine = moved(host, clock, machine),
        }
        count += 1;
    }
}

/// The same machine again.
fn moved(host: &Host, clock: ClockKind, mut machine: Machine<KvmCpu>) -> Machine<KvmCpu> {
    let saved = machine.save().unwrap();
    let memory_bytes = saved.memory_bytes;
    let mut bytes = Vec::new();
    stream::write(saved.clone(), machine.memory(), &mut bytes).unwrap();
    // A thread's kicks reach one vCPU only: the old one has to go first.
    drop(machine);
    let (read, memory) = stream::read(&mut bytes.as_slice(), memory_bytes).unwrap();
    let cpu = Vm::new(host, memory.clone())
        .unwrap()
        .cpu(&boot::small::entry_state(0), &cpuid::TABLE, clock)
        .unwrap();
    let mut machine = Machine::restore(cpu, memory, &board(), &read).unwrap();
    assert_eq!(
        machine.save().unwrap(),
        saved,
        "what is restored is what was saved"
    );
    machine
}

/// Who decides where to move.
pub trait Mover {
    /// The machine is about to run.
    fn begins(&mut self) {}

    /// True if the machine moves here.
    fn moves(&mut self, pause: Pause) -> bool;
}

impl<F: FnMut(Pause) -> bool> Mover for F {
    fn moves(&mut self, pause: Pause) -> bool {
        self(pause)
    }
}

/// Moves wherever a kick finds the guest, with growing and shrinking pauses between the kicks.
pub struct Kicks {
    timer: KickTimer,
    /// Kicks that are still to come.
    left: u32,
}

impl Kicks {
    /// So many.
    pub fn new(count: u32) -> Self {
        Self {
            timer: KickTimer::for_this_thread().unwrap(),
            left: count,
        }
    }
}

impl Mover for Kicks {
    /// Only now: a kick that finds no vCPU is lost.
    fn begins(&mut self) {
        if self.left > 0 {
            let after = Duration::from_micros(50 + 137 * u64::from(self.left) % 1500);
            self.timer.arm(after).unwrap();
        }
    }

    fn moves(&mut self, pause: Pause) -> bool {
        let moves = pause.between && self.left > 0;
        self.left -= u32::from(moves);
        moves
    }
}
