//! Builds a machine over real KVM from a few bytes of code, and runs it behind a door that gives
//! fixed answers.
//!
//! ```text
//!   0x10_0000 prelude and code   0x20_0000 results   0x2f_0000 stack of ring 3
//!   0x30_0000 descriptor tables, task state, I/O bitmap
//!   0x31_0000 handlers: each leaves RBX as result [`HANDLED`] and powers off with its vector
//! ```

use crate::code::{Code, Register};
use crate::moving::{Mover, board, run_to_end};
use lockstep_core::machine::cpu::cpuid;
use lockstep_core::machine::devices::Devices;
use lockstep_core::machine::door::{Door, DoorError, Horizon, Kick, Kicked, Question, Readiness};
use lockstep_core::machine::image::Sites;
use lockstep_core::machine::memory::Memory;
use lockstep_core::machine::run::{Pause, Policy};
use lockstep_core::machine::{Machine, boot, image, memory};
use lockstep_kvm::{ClockKind, Host, HostError, Kicker, KvmCpu, Vm};
use lockstep_logging_channel::{
    End, EndReason, Event, EventKind, ExecutionPoint, OutputTarget, PartDigest, Value,
};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

const MEMORY_BYTES: u64 = 4 << 20;
const CODE: u64 = 0x10_0000;
/// Where guests leave what they found, eight bytes each.
pub const RESULTS: u32 = 0x20_0000;
const USER_STACK: u32 = 0x2f_0000;
const GDT: u64 = 0x30_0000;
const GDT_POINTER: u32 = 0x30_0800;
const IDT_POINTER: u32 = 0x30_0810;
const IDT: u64 = 0x30_1000;
const TASK_STATE: u64 = 0x30_2000;
const KERNEL_STACK: u64 = 0x30_8000;
/// Handlers of all vectors, one behind the other.
pub const HANDLERS: u64 = 0x31_0000;
/// Bytes of one.
pub const HANDLER_BYTES: u64 = 16;
/// The task state, and a bitmap that opens every port to ring 3, with its closing byte.
const TASK_STATE_BYTES: usize = 104;
const TASK_SEGMENT_LIMIT: u64 = TASK_STATE_BYTES as u64 + 65536 / 8;
/// The result in which a handler leaves RBX as it was.
pub const HANDLED: u32 = 63;
/// RFLAGS of ring 3: the bit that is always set, and IF.
const FLAGS: u32 = 0x2;
const FLAGS_INTERRUPTIBLE: u32 = 0x202;
/// No guest here takes longer; one that does is stopped, and its test fails.
const LIMIT: Duration = Duration::from_secs(60);

pub const TICKS: u64 = 0x1122_3344_5566_7788;
pub const RANDOM: u64 = 0xa7a6_a5a4_a3a2_a1a0;

/// The privilege level in which the code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    Zero,
    Three,
}

pub const BOTH: [Ring; 2] = [Ring::Zero, Ring::Three];

/// An ARP request for 10.0.2.15, which the key-value guest answers.
pub fn asks_for_address() -> Vec<u8> {
    let sender = [2, 0, 0, 0, 0, 9];
    let mut frame = [[0xff; 6].as_slice(), &sender, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend([sender.as_slice(), &[10, 0, 2, 2], &[0; 6], &[10, 0, 2, 15]].concat());
    frame.resize(60, 0);
    frame
}

/// Stops a guest that is watched, if it is `late`.
pub fn stop_if(late: &AtomicBool) -> Result<(), DoorError> {
    if late.load(Ordering::Acquire) {
        Err(DoorError::Stopped)
    } else {
        Ok(())
    }
}

/// What came of a run.
pub struct Outcome {
    pub reason: EndReason,
    pub exits: u64,
    pub asked: Vec<Question>,
    pub outputs: Vec<(OutputTarget, Vec<u8>)>,
    pub digests: Vec<(Place, Vec<PartDigest>)>,
    memory: Memory,
}

impl Outcome {
    /// Result `index` of the guest.
    pub fn result(&self, index: u32) -> u64 {
        self.memory
            .read_obj(GuestAddress(u64::from(RESULTS + 8 * index)))
            .unwrap()
    }
}

/// The address of result `index`.
pub fn result_at(index: u32) -> u32 {
    RESULTS + 8 * index
}

/// An exit, and instructions after it.
pub type Place = (u64, u64);

struct FixedDoor {
    arrivals: Vec<(Place, EventKind)>,
    asked: Vec<Question>,
    outputs: Vec<(OutputTarget, Vec<u8>)>,
    digests: Vec<(Place, Vec<PartDigest>)>,
    late: Arc<AtomicBool>,
}

impl Door for FixedDoor {
    fn answer(&mut self, _point: ExecutionPoint, question: Question) -> Result<Value, DoorError> {
        self.asked.push(question);
        Ok(match question {
            Question::Tsc => Value::Tsc(TICKS),
            Question::Monotonic => Value::Monotonic(1),
            Question::Wall => Value::Wall(2),
            Question::Random { length_bytes } => {
                Value::Random(RANDOM.to_le_bytes()[..length_bytes as usize].to_vec())
            }
        })
    }

    fn arrival(
        &mut self,
        point: ExecutionPoint,
        readiness: Readiness<'_>,
    ) -> Result<Option<Event>, DoorError> {
        let here = (point.exits, point.instructions);
        match self.arrivals.iter().position(|(place, _)| *place == here) {
            Some(index) => {
                let kind = self.arrivals.remove(index).1;
                let mut takers = readiness.takers.iter();
                let taker = takers.find(|taker| taker.takes.fits(&kind)).unwrap();
                Ok(Some(Event {
                    device: taker.device,
                    monotonic_ns: 1,
                    kind,
                }))
            }
            None if readiness.idle => Err(DoorError::Stopped),
            None => Ok(None),
        }
    }

    fn horizon(&mut self, point: ExecutionPoint) -> Result<Horizon, DoorError> {
        let next = self
            .arrivals
            .iter()
            .map(|(place, _)| *place)
            .find(|(exits, _)| *exits == point.exits);
        Ok(next.map_or(Horizon::Exit, |(_, instructions)| {
            Horizon::Instructions(instructions)
        }))
    }

    fn kicked(&mut self, _: Kick<'_>) -> Result<Kicked, DoorError> {
        stop_if(&self.late).map(|()| Kicked::RunsOn)
    }

    fn output(
        &mut self,
        _point: ExecutionPoint,
        target: OutputTarget,
        bytes: Vec<u8>,
    ) -> Result<(), DoorError> {
        self.outputs.push((target, bytes));
        Ok(())
    }

    fn digests(&mut self, point: ExecutionPoint, parts: Vec<PartDigest>) -> Result<(), DoorError> {
        self.digests.push(((point.exits, point.instructions), parts));
        Ok(())
    }

    fn end(&mut self, _point: ExecutionPoint, _end: End) -> Result<(), DoorError> {
        Ok(())
    }
}

/// Says that the current test is skipped, past the test runner's capturing.
pub fn skip(why: &str) {
    let current = std::thread::current();
    let test = current.name().unwrap_or("a test");
    // A closed standard error is nobody's to see.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// KVM, or a word on why there is none.
pub fn host() -> Option<Host> {
    match Host::open() {
        Ok(host) => Some(host),
        Err(why @ (HostError::Missing | HostError::Permission)) => {
            skip(&why.to_string());
            None
        }
        Err(why) => panic!("{why}"),
    }
}

/// Runs `code` in `ring`.
pub fn run(host: &Host, ring: Ring, code: Code) -> Outcome {
    run_with(host, ring, code, Vec::new())
}

/// Runs `code` in `ring`; what `arrivals` lists arrives at those exits.
pub fn run_with(host: &Host, ring: Ring, code: Code, arrivals: Vec<(u64, EventKind)>) -> Outcome {
    let at_exits = arrivals
        .into_iter()
        .map(|(exits, kind)| ((exits, 0), kind))
        .collect();
    run_clocked(host, ring, ClockKind::None, code, at_exits)
}

/// Runs `code` in `ring`, ring 3 with interrupts enabled where anything arrives, with `clock`; what
/// `arrivals` lists arrives at those places.
pub fn run_clocked(
    host: &Host,
    ring: Ring,
    clock: ClockKind,
    code: Code,
    arrivals: Vec<(Place, EventKind)>,
) -> Outcome {
    run_digested(host, ring, clock, 0, code, arrivals)
}

/// The same, with digests every so many exits.
pub fn run_digested(
    host: &Host,
    ring: Ring,
    clock: ClockKind,
    digest_interval_exits: u64,
    code: Code,
    arrivals: Vec<(Place, EventKind)>,
) -> Outcome {
    let stay = &mut |_: Pause| false;
    run_moving_digested(host, ring, clock, digest_interval_exits, code, arrivals, stay).0
}

/// The same on as many machines as `mover` says: wherever it does, the machine is saved, and goes
/// on as another. How many moves there were.
pub fn run_moving(
    host: &Host,
    ring: Ring,
    clock: ClockKind,
    code: Code,
    arrivals: Vec<(Place, EventKind)>,
    mover: &mut dyn Mover,
) -> (Outcome, u32) {
    run_moving_digested(host, ring, clock, 0, code, arrivals, mover)
}

/// A vCPU that begins with `code`, its memory, and what was rewritten there.
pub fn vcpu(host: &Host, clock: ClockKind, code: &Code) -> (KvmCpu, Memory, Sites) {
    let memory = memory::allocate(MEMORY_BYTES).unwrap();
    boot::small::write(&memory, "", 1_000_000).unwrap();
    write_tables(&memory);
    let loaded = image::load(&elf(&code.0), &memory).unwrap();
    let cpu = Vm::new(host, memory.clone())
        .unwrap()
        .cpu(&boot::small::entry_state(loaded.entry), &cpuid::TABLE, clock)
        .unwrap();
    (cpu, memory, loaded.sites)
}

fn run_moving_digested(
    host: &Host,
    ring: Ring,
    clock: ClockKind,
    digest_interval_exits: u64,
    code: Code,
    arrivals: Vec<(Place, EventKind)>,
    mover: &mut dyn Mover,
) -> (Outcome, u32) {
    let flags = if arrivals.is_empty() {
        FLAGS
    } else {
        FLAGS_INTERRUPTIBLE
    };
    let (cpu, memory, sites) = vcpu(host, clock, &prelude(ring, flags).raw(&code.0));
    let policy = Policy {
        digest_interval_exits,
        window_exits: false,
    };
    let devices = Devices::new(&board()).unwrap();
    let machine = Machine::new(cpu, memory, devices, sites, policy);
    let late = Arc::new(AtomicBool::new(false));
    let mut door = FixedDoor {
        arrivals,
        asked: Vec::new(),
        outputs: Vec::new(),
        digests: Vec::new(),
        late: late.clone(),
    };
    let (machine, ended, count) = watched(late, || run_to_end(host, clock, machine, &mut door, mover));
    let outcome = Outcome {
        reason: ended.reason,
        exits: ended.point.exits,
        asked: door.asked,
        outputs: door.outputs,
        digests: door.digests,
        memory: machine.memory().clone(),
    };
    (outcome, count)
}

/// The image of a guest that runs `code` in `ring`, without interrupts. Needs [`write_tables`].
pub fn program(ring: Ring, code: &Code) -> Vec<u8> {
    elf(&prelude(ring, FLAGS).raw(&code.0).0)
}

/// Does `work`, and kicks this thread when it takes too long.
pub fn watched<T>(late: Arc<AtomicBool>, work: impl FnOnce() -> T) -> T {
    let (kicker, _target) = Kicker::for_this_thread();
    let (done, is_done) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if is_done.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            late.store(true, Ordering::Release);
            kicker.kick();
        }
    });
    let outcome = work();
    drop(done);
    watch.join().unwrap();
    outcome
}

/// Loads the tables, and goes to ring 3 with `flags` if the code is to run there.
fn prelude(ring: Ring, flags: u32) -> Code {
    let load = |opcode: &[u8], pointer: u32| [opcode, &pointer.to_le_bytes()].concat();
    let tables = Code::default()
        .raw(&load(&[0x0f, 0x01, 0x14, 0x25], GDT_POINTER))
        .raw(&load(&[0x0f, 0x01, 0x1c, 0x25], IDT_POINTER))
        .raw(&[0xb8, 0x28, 0, 0, 0, 0x0f, 0x00, 0xd8]);
    if ring == Ring::Zero {
        return tables;
    }
    // PUSH ss, rsp, rflags, cs, rip; IRETQ.
    let iret_bytes = 2 + 5 + 5 + 2 + 5 + 2;
    let target = CODE as u32 + tables.0.len() as u32 + iret_bytes;
    tables
        .raw(&[0x6a, 0x1b])
        .raw(&load(&[0x68], USER_STACK))
        .raw(&load(&[0x68], flags))
        .raw(&[0x6a, 0x23])
        .raw(&load(&[0x68], target))
        .raw(&[0x48, 0xcf])
}

/// Descriptor tables, the task state, and a handler for each vector.
pub fn write_tables(memory: &Memory) {
    let put = |address: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(address)).unwrap();
    let task_low = TASK_SEGMENT_LIMIT & 0xffff | (TASK_STATE & 0xff_ffff) << 16 | 0x89 << 40;
    let user = [0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];
    let gdt = [boot::small::GDT.as_slice(), &user, &[task_low, TASK_STATE >> 32]].concat();
    put(
        GDT,
        &gdt.iter()
            .flat_map(|word: &u64| word.to_le_bytes())
            .collect::<Vec<_>>(),
    );
    put(GDT_POINTER.into(), &pointer(gdt.len() * 8, GDT));
    put(IDT_POINTER.into(), &pointer(256 * 16, IDT));
    for vector in 0..256 {
        let handler = HANDLERS + vector * HANDLER_BYTES;
        let gate = handler & 0xffff | 0x08 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        put(IDT + vector * 16, &gate.to_le_bytes());
        let code = Code::default()
            .store(Register::Rbx, result_at(HANDLED))
            .power_off(vector as u32);
        put(handler, &code.0);
    }
    let mut task_state = vec![0; TASK_SEGMENT_LIMIT as usize];
    task_state[4..12].copy_from_slice(&KERNEL_STACK.to_le_bytes());
    task_state[102..104].copy_from_slice(&(TASK_STATE_BYTES as u16).to_le_bytes());
    put(TASK_STATE, &task_state);
    put(TASK_STATE + TASK_SEGMENT_LIMIT, &[0xff]);
}

/// What LGDT and LIDT read: limit and address.
fn pointer(bytes: usize, address: u64) -> Vec<u8> {
    [&(bytes as u16 - 1).to_le_bytes()[..], &address.to_le_bytes()].concat()
}

/// An ELF64 executable of one segment that holds `code` at [`CODE`].
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS_BYTES: u64 = 64 + 56;
    let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| image.extend_from_slice(bytes);
    // e_type EXEC, e_machine x86-64, e_version.
    put(&[2, 0, 62, 0, 1, 0, 0, 0]);
    put(&CODE.to_le_bytes());
    // e_phoff, e_shoff, e_flags; e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    put(&64_u64.to_le_bytes());
    put(&[0; 12]);
    put(&[64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // p_type LOAD, p_flags RX.
    put(&[1, 0, 0, 0, 5, 0, 0, 0]);
    for field in [
        HEADERS_BYTES,
        CODE,
        CODE,
        code.len() as u64,
        code.len() as u64,
        4096,
    ] {
        put(&field.to_le_bytes());
    }
    put(code);
    image
}
