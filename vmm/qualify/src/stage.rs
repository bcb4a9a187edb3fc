//! The memory a probe guest finds: descriptor tables, interrupt gates, and the program.
//!
//! ```text
//!   0x1000..0xb000 as every guest has it (machine::boot)
//!   0x20000 IDT   0x21000 GDT   0x22000 TSS with an I/O bitmap that allows ring 3 every port
//!   0x30000 a handler of 16 bytes for each vector     0x40000, 0x48000, 0x50000 tops of stacks
//!   0x60000 ticks, counted by a handler   0x100000 the program   0x140000 its data
//! ```
//!
//! Each handler says its vector on a port and returns; two say nothing: [`QUIET_VECTOR`],
//! [`TICK_VECTOR`]. Descriptor and TSS layout: Intel SDM volume 3A, 3.4.5, 6.14.1, 7.7.

use lockstep_core::machine::boot::{self, BootError};
use lockstep_core::machine::memory::{self, MEMORY_BYTES_MIN, Memory, MemoryError};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// Where the program is.
pub const PROGRAM: u64 = 0x10_0000;
/// Where its data is, to the end of memory.
pub const DATA: u64 = 0x14_0000;
/// How often [`TICK_VECTOR`] was taken.
pub const TICKS: u64 = 0x6_0000;
/// Interrupt descriptor table.
pub const IDT: u64 = 0x2_0000;
/// Bytes of it.
pub const IDT_BYTES: u64 = VECTORS * 16;
/// Descriptor table.
pub const GDT: u64 = 0x2_1000;
/// Its entries: null, ring-0 code and data, none, ring-3 data and code, TSS. Ring 3's are in the
/// order of SYSRET.
pub const GDT_WORDS: [u64; 8] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
    // Base 0x22000 in its three parts; 64-bit TSS, busy.
    0x0000_8b02_2000_0000 | TSS_LIMIT,
    0,
];
/// Selectors.
pub const CODE_0: u16 = 0x08;
/// Ring 0's data.
pub const DATA_0: u16 = 0x10;
/// Ring 3's data.
pub const DATA_3: u16 = 0x23;
/// Ring 3's code.
pub const CODE_3: u16 = 0x2b;
/// Task-state segment.
pub const TASK: u16 = 0x30;
/// STAR: SYSCALL to ring 0's selectors, SYSRET to ring 3's.
pub const STAR: u64 = (0x1b << 48) | (0x08 << 32);
/// Task-state segment.
pub const TSS: u64 = 0x2_2000;
const TSS_BYTES: u64 = 0x68;
/// A bit a port, and a byte of ones behind them.
const PORT_MAP_BYTES: u64 = 0x1_0000 / 8 + 1;
/// Limit of the task-state segment.
pub const TSS_LIMIT: u64 = TSS_BYTES + PORT_MAP_BYTES - 1;
const HANDLERS: u64 = 0x3_0000;
const HANDLER_BYTES: u64 = 16;
const VECTORS: u64 = 0x43;
/// Top of the stack that interrupts from ring 3 use.
pub const INTERRUPT_STACK: u64 = 0x4_0000;
/// Top of ring 0's own.
pub const STACK_0: u64 = 0x4_8000;
/// Top of ring 3's.
pub const STACK_3: u64 = 0x5_0000;
/// Said on a port by its handler.
pub const SAID_VECTOR: u8 = 0x40;
/// Returns at once.
pub const QUIET_VECTOR: u8 = 0x41;
/// Counts [`TICKS`].
pub const TICK_VECTOR: u8 = 0x42;
/// Present, ring 3 may call it, interrupt gate.
const GATE: u64 = 0xee00;

/// Why a stage cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// No memory.
    #[error(transparent)]
    Allocation(#[from] MemoryError),
    /// Boot structures.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The rest.
    #[error("guest memory does not hold the probe")]
    Memory(#[from] GuestMemoryError),
}

/// Memory with everything in it for `program`.
///
/// # Errors
/// [`StageError`].
pub fn set(program: &[u8]) -> Result<Memory, StageError> {
    let memory = memory::allocate(MEMORY_BYTES_MIN)?;
    boot::small::write(&memory, "", 0)?;
    write_words(&memory, GDT, &GDT_WORDS)?;
    write_words(&memory, TSS + 4, &[INTERRUPT_STACK])?;
    memory.write_slice(&(TSS_BYTES as u16).to_le_bytes(), GuestAddress(TSS + 0x66))?;
    memory.write_slice(&[0xff], GuestAddress(TSS + TSS_LIMIT))?;
    for vector in 0..VECTORS {
        let handler = HANDLERS + vector * HANDLER_BYTES;
        let low = (handler & 0xffff) | u64::from(CODE_0) << 16 | GATE << 32 | (handler >> 16 & 0xffff) << 48;
        write_words(&memory, IDT + vector * 16, &[low, handler >> 32])?;
        memory.write_slice(&handler_of(vector as u8), GuestAddress(handler))?;
    }
    memory.write_slice(program, GuestAddress(PROGRAM))?;
    Ok(memory)
}

fn handler_of(vector: u8) -> Vec<u8> {
    match vector {
        // iretq
        QUIET_VECTOR => vec![0x48, 0xcf],
        // inc qword ptr [TICKS]; iretq
        TICK_VECTOR => vec![0x48, 0xff, 0x04, 0x25, 0, 0, 6, 0, 0x48, 0xcf],
        // push rax; mov al, vector; out VECTOR, al; pop rax; iretq
        other => vec![0x50, 0xb0, other, 0xe6, 0x12, 0x58, 0x48, 0xcf],
    }
}

fn write_words(memory: &Memory, address: u64, words: &[u64]) -> Result<(), GuestMemoryError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_slice(&bytes, GuestAddress(address))
}
