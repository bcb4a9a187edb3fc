//! The parts of the state in which the counter can be put.
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};
use core::hint::black_box;
use core::ptr;
use lockstep_guest_runtime::network::Network;
use lockstep_guest_runtime::{clock, port, println, ring0};

global_asm!(include_str!("hidden.s"));

unsafe extern "C" {
    fn diverging_counter();
    fn diverging_registers();
    fn diverging_vector();
    fn diverging_x87();
    fn diverging_msr();
    fn diverging_msr_again();
    fn diverging_memory();
    fn diverging_exits();
}

/// Mask of the slave interrupt controller, on which nothing is.
const SLAVE_MASK: u16 = 0xA1;
const TIMER_2: u16 = 0x42;
const TIMER_CONTROL: u16 = 0x43;
/// Counter 2, which interrupts nobody: low byte then high byte, mode 0.
const TIMER_2_ONE_SHOT: u8 = 0xB0;
const SERIAL_SCRATCH: u16 = 0x3FF;
const CLOCK_PAGE: u16 = 0x518;
const RANDOM: u16 = 0x520;
/// Selects a queue of the network device; writes and reads of a queue's registers only look at it.
const NETWORK_QUEUE_SELECT: u64 = 0xD000_0030;

/// Two counters that are alike in 6 bits are alike once in 64 times: not six times in a row.
const ROUNDS: u64 = 6;
/// The same for one bit.
const BIT_ROUNDS: u64 = 40;
const PAGES: u64 = 64;
const PAGE_BYTES: usize = 4096;

/// A local experimental EtherType (IEEE 802), to everybody.
const FRAME_HEADER: [u8; 14] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x77, 0x88, 0xb5,
];
const FRAME_BYTES: usize = 60;

/// Pages of which one is the clock page for a while.
#[repr(C, align(4096))]
struct Pages([[u8; PAGE_BYTES]; PAGES as usize]);

static mut CLOCK_PAGES: Pages = Pages([[0; PAGE_BYTES]; PAGES as usize]);
static mut DIFFERENT: u64 = 0;

/// Calls a routine in ring 3.
fn call(routine: ring0::Routine, argument: u64) -> u64 {
    let answer: u64;
    // SAFETY: the routines of this file change what is declared lost, and the memory that their
    // argument names.
    unsafe {
        asm!(
            "call {routine}",
            routine = in(reg) routine,
            inlateout("rdi") argument => _,
            lateout("rax") answer,
            lateout("rcx") _, lateout("rdx") _, lateout("rsi") _,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            lateout("xmm5") _, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    answer
}

/// The same, for one that has no answer.
fn call_plainly(routine: ring0::Routine, argument: u64) {
    let _ = call(routine, argument);
}

/// The counter, with its bits mixed: what differs anywhere differs in the high ones.
fn counter() -> u64 {
    call(diverging_counter, 0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8
}

/// Puts the counter into `part` of the state, for so many exits. False where there is no such part.
pub fn diverge(part: &str, exits: u64, network: Option<&mut Network>) -> bool {
    let hold = || call_plainly(diverging_exits, exits);
    let rounds = |put: fn()| {
        for _ in 0..ROUNDS {
            put();
            hold();
        }
    };
    match part {
        "registers" => call_plainly(diverging_registers, exits),
        "vector" => call_plainly(diverging_vector, exits),
        "x87" => call_plainly(diverging_x87, exits),
        "msr" => {
            // SAFETY: the routines change registers that are declared lost, and a model-specific
            // one that nobody uses.
            unsafe { ring0::call(diverging_msr, [0; 3]) };
            hold();
            // SAFETY: as above.
            unsafe { ring0::call(diverging_msr_again, [0; 3]) };
        }
        "memory" => {
            call_plainly(diverging_memory, (&raw mut DIFFERENT).addr() as u64);
            hold();
        }
        "pic" => {
            let before = port::read_u8(SLAVE_MASK);
            rounds(|| port::write_u8(SLAVE_MASK, counter() as u8));
            port::write_u8(SLAVE_MASK, before);
        }
        "timer" => rounds(|| {
            let [low, high, ..] = counter().to_le_bytes();
            port::write_u8(TIMER_CONTROL, TIMER_2_ONE_SHOT);
            port::write_u8(TIMER_2, low);
            port::write_u8(TIMER_2, high);
        }),
        "serial" => rounds(|| port::write_u8(SERIAL_SCRATCH, counter() as u8)),
        "clock" => {
            rounds(|| {
                let page = (&raw const CLOCK_PAGES).addr() as u64 + counter() % PAGES * PAGE_BYTES as u64;
                port::write_u32(CLOCK_PAGE, page as u32);
            });
            clock::enable_page();
        }
        "network" => {
            rounds(|| select(counter() as u32));
            select(0);
        }
        "frame" => network.into_iter().for_each(send),
        // All digits: a shorter line would differ in the execution point.
        "console" => println!("diverging: {:014x}", counter()),
        "execution" => {
            for _ in 0..ROUNDS {
                call_plainly(diverging_exits, counter() % 64 + 1);
                hold();
            }
        }
        "question" => (0..BIT_ROUNDS).for_each(|_| ask(counter() & 1 == 0)),
        "end" => lockstep_guest_runtime::power::off(counter() as u32 & 0xffff),
        _ => return false,
    }
    true
}

fn select(queue: u32) {
    let register = ptr::with_exposed_provenance_mut::<u32>(NETWORK_QUEUE_SELECT as usize);
    // SAFETY: a register of the network device, which changes no memory.
    unsafe { register.write_volatile(queue) };
}

fn send(network: &mut Network) {
    network.transmitter.send(FRAME_BYTES, |frame| {
        frame.fill(0);
        let content = FRAME_HEADER.into_iter().chain(counter().to_le_bytes());
        frame
            .iter_mut()
            .zip(content)
            .for_each(|(byte, value)| *byte = value);
    });
    network.exchange(false);
}

/// Asks for one thing or for another.
fn ask(first: bool) {
    if first {
        black_box(port::read_u32(RANDOM));
    } else {
        black_box(clock::monotonic_ns());
    }
}
