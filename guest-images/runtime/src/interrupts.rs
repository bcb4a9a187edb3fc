//! Exceptions and interrupts: the descriptor tables, the 8259A pair, and what has been counted.
//!
//! Lines arrive at vectors 32 to 47 and end themselves (AEOI): a handler touches no controller. Every line
//! is masked until a guest opens it.
#![allow(unsafe_code)]

use crate::ring0::{self, Routine};
use crate::{port, tables};
use core::ptr;
use core::sync::atomic::{AtomicU8, AtomicU16, Ordering};

const MASTER_COMMAND: u16 = 0x20;
const MASTER_DATA: u16 = 0x21;
const SLAVE_COMMAND: u16 = 0xA0;
const SLAVE_DATA: u16 = 0xA1;
/// Trigger modes of the lines of the first controller; those of the second are at the next port.
const MASTER_LEVEL: u16 = 0x4D0;
const SLAVE_LEVEL: u16 = 0x4D1;

/// ICW1: edge by default, cascade, ICW4 follows.
const START: u8 = 0x11;
/// ICW4: 8086 mode, automatic end of interrupt.
const AUTOMATIC_END: u8 = 0x03;

/// Exceptions of the processor.
const EXCEPTIONS: usize = 32;
/// Lines of the two controllers.
const LINES: usize = 16;

/// Line of the interval timer.
pub const TIMER_LINE: usize = 0;
/// Line of the serial console.
pub const CONSOLE_LINE: usize = 4;
/// Line of the network device.
pub const NETWORK_LINE: usize = 5;

/// Line at which the second controller interrupts the first.
const CASCADE_LINE: usize = 2;

/// Lines of the second controller that are open.
static SECOND_OPEN: AtomicU8 = AtomicU8::new(0);
/// Lines that are level-triggered.
static LEVEL: AtomicU16 = AtomicU16::new(0);

unsafe extern "C" {
    static mut interrupt_descriptors: [u128; EXCEPTIONS + LINES];
    static interrupt_counts: [u64; LINES];
}

/// Starts both controllers with every line masked.
pub(crate) fn install() {
    start_controller(MASTER_COMMAND, MASTER_DATA, EXCEPTIONS as u8, 0x04);
    start_controller(SLAVE_COMMAND, SLAVE_DATA, EXCEPTIONS as u8 + 8, 0x02);
}

fn start_controller(command: u16, data: u16, first_vector: u8, cascade: u8) {
    port::write_u8(command, START);
    for word in [first_vector, cascade, AUTOMATIC_END, 0xFF] {
        port::write_u8(data, word);
    }
}

/// Opens the lines whose bits are set in `lines`, and masks the others.
pub fn open(lines: u16) {
    let second = (lines >> 8) as u8;
    // A guest without lines on the second controller makes no exit for it.
    if SECOND_OPEN.swap(second, Ordering::Relaxed) != second {
        port::write_u8(SLAVE_DATA, !second);
    }
    let cascade = if second == 0 { 0 } else { bit(CASCADE_LINE) };
    port::write_u8(MASTER_DATA, !((lines | cascade) as u8));
}

/// The bit of `line` for [`open`].
#[must_use]
pub const fn bit(line: usize) -> u16 {
    1 << line
}

/// Makes the lines whose bits are set level-triggered.
pub fn make_level(lines: u16) {
    let lines = LEVEL.fetch_or(lines, Ordering::Relaxed) | lines;
    port::write_u8(MASTER_LEVEL, lines as u8);
    if lines >> 8 != 0 {
        port::write_u8(SLAVE_LEVEL, (lines >> 8) as u8);
    }
}

/// Replaces the handler of `line`, which only counts.
///
/// # Safety
/// `handler` is an interrupt handler in assembly: it keeps every register and ends with IRETQ.
pub unsafe fn set_handler(line: usize, handler: Routine) {
    if line < LINES {
        let gate = tables::gate(handler as usize as u64);
        // SAFETY: within the table, which nobody else writes and the processor reads as memory.
        unsafe {
            (&raw mut interrupt_descriptors)
                .cast::<u128>()
                .add(EXCEPTIONS + line)
                .write(gate)
        };
    }
}

/// Interrupts of `line` so far, as its handler in the shim counts them.
#[must_use]
pub fn count(line: usize) -> u64 {
    if line >= LINES {
        return 0;
    }
    // SAFETY: within the table, which handlers change: hence volatile.
    unsafe { ptr::read_volatile((&raw const interrupt_counts).cast::<u64>().add(line)) }
}

/// Lets interrupts reach ring 3.
pub fn enable() {
    // SAFETY: the routine takes no arguments.
    unsafe { ring0::call(ring0::ring0_enable_interrupts, [0; 3]) };
}

/// Keeps interrupts from ring 3.
pub fn disable() {
    // SAFETY: the routine takes no arguments.
    unsafe { ring0::call(ring0::ring0_disable_interrupts, [0; 3]) };
}

/// Halts until an interrupt has been handled. One that was pending is enough.
pub fn wait() {
    // SAFETY: the routine takes no arguments.
    unsafe { ring0::call(ring0::ring0_wait, [0; 3]) };
}
