//! Layout of the memory of a random guest, and its ring 0: tables, and handlers that let it go on
//! behind a fault.
//!
//! ```text
//!   0x10_0000 prelude   0x10_1000 code, in slots   0x20_0000 data   0x2f_0000 stack of ring 3
//!   0x30_0000 descriptor tables, task state, I/O bitmap   0x30_7000, 0x30_8000 stacks of ring 0
//!   0x31_0000 a stub for each vector   0x31_2000 handlers   0x40_0000 no memory from here on
//! ```
//!
//! An exception goes on in the slot behind the one it happened in; a division by zero changes the
//! ring as well; a trap of the guest's own flag goes on where it was; interrupts are acknowledged.
//! After [`FAULTS_MAX`] of them the guest powers off. Encodings: Intel SDM volume 2.

use lockstep_core::machine::boot;
use lockstep_core::machine::memory::Memory;
use vm_memory::{Bytes, GuestAddress};

/// Bytes of guest memory.
pub const MEMORY_BYTES: u64 = 4 << 20;
/// Where the guest is entered.
pub const ENTRY: u64 = 0x10_0000;
/// The first slot.
pub const CODE: u64 = 0x10_1000;
/// Bytes of a slot: pieces of code begin at multiples of it.
pub const SLOT_BYTES: usize = 64;
/// Data of the guest.
pub const DATA: u32 = 0x20_0000;
const USER_STACK: u32 = 0x2f_0000;
const GDT: u64 = 0x30_0000;
const GDT_POINTER: u32 = 0x30_0800;
const IDT_POINTER: u32 = 0x30_0810;
const IDT: u64 = 0x30_1000;
const TASK_STATE: u64 = 0x30_2000;
/// Where ring 3 enters ring 0.
const ENTRY_STACK: u64 = 0x30_8000;
/// Stack of code in ring 0.
const KERNEL_STACK: u32 = 0x30_7000;
const FAULTS: u32 = 0x30_6000;
const STUBS: u64 = 0x31_0000;
const STUB_BYTES: u64 = 16;
const COMMON: u64 = 0x31_2000;
const TOGGLE: u64 = 0x31_2100;
const TRAP: u64 = 0x31_2200;
const INTERRUPT: u64 = 0x31_2300;
const TASK_STATE_BYTES: usize = 104;
const TASK_SEGMENT_LIMIT: u64 = TASK_STATE_BYTES as u64 + 65536 / 8;
/// Exceptions a guest may cause before it is over.
const FAULTS_MAX: u32 = 400;
/// The status with which a guest ends that has reached its last slot.
const DONE: u32 = 1;
/// The same after too many exceptions, or one outside its code.
const GAVE_UP: u32 = 2;
const WITH_ERROR_CODE: [u64; 8] = [8, 10, 11, 12, 13, 14, 17, 21];

/// Code that is put together from bytes and numbers.
#[derive(Default)]
struct Assembly(Vec<u8>);

impl Assembly {
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(self, opcode: &[u8], operand: u32) -> Self {
        self.raw(opcode).raw(&operand.to_le_bytes())
    }

    /// PUSH RAX; counts a fault, and gives up after too many.
    fn counted(self) -> Self {
        self.raw(&[0x50])
            .number(&[0x8b, 0x04, 0x25], FAULTS)
            .raw(&[0xff, 0xc0])
            .number(&[0x89, 0x04, 0x25], FAULTS)
            .number(&[0x3d], FAULTS_MAX)
            // JBE over the power off.
            .raw(&[0x76, 0x07])
            .power_off(GAVE_UP)
    }

    /// MOV EAX, status; OUT 0xF4: 7 bytes.
    fn power_off(self, status: u32) -> Self {
        self.number(&[0xb8], status).raw(&[0xe7, 0xf4])
    }

    /// The instruction pointer at RSP + `offset` becomes the next slot's; gives up where it is
    /// outside the code of `end`.
    fn next_slot(self, offset: u8, end: u32) -> Self {
        self.raw(&[0x48, 0x8b, 0x44, 0x24, offset])
            .number(&[0x48, 0x3d], CODE as u32)
            .raw(&[0x73, 0x07])
            .power_off(GAVE_UP)
            .number(&[0x48, 0x3d], end)
            .raw(&[0x72, 0x07])
            .power_off(GAVE_UP)
            .raw(&[0x83, 0xc8, SLOT_BYTES as u8 - 1, 0xff, 0xc0])
            .raw(&[0x48, 0x89, 0x44, 0x24, offset])
    }
}

/// Writes tables, handlers and the prelude; the guest has `slots` slots of code.
pub fn write(memory: &Memory, slots: usize) {
    let put = |address: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(address)).unwrap();
    let end = CODE as u32 + (slots * SLOT_BYTES) as u32;
    put(ENTRY, &prelude());
    put(end.into(), &Assembly::default().power_off(DONE).0);
    write_tables(&put);
    for (address, handler) in handlers(end) {
        put(address, &handler);
    }
}

fn handlers(end: u32) -> [(u64, Vec<u8>); 4] {
    // The error code lies between RAX and the frame. POP RAX; ADD RSP, 8; IRETQ.
    let common = Assembly::default().counted().next_slot(16, end);
    let common = common.raw(&[0x58, 0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf]);
    // TEST [RSP + 16], 3; JZ to ring 3. Else to ring 0: CS, RSP, SS.
    let toggle = Assembly::default()
        .counted()
        .next_slot(8, end)
        .raw(&[0xf6, 0x44, 0x24, 16, 3, 0x74, 29])
        .number(&[0x48, 0xc7, 0x44, 0x24, 16], 0x08)
        .number(&[0x48, 0xc7, 0x44, 0x24, 32], KERNEL_STACK)
        .number(&[0x48, 0xc7, 0x44, 0x24, 40], 0x10)
        .raw(&[0xeb, 27])
        .number(&[0x48, 0xc7, 0x44, 0x24, 16], 0x23)
        .number(&[0x48, 0xc7, 0x44, 0x24, 32], USER_STACK)
        .number(&[0x48, 0xc7, 0x44, 0x24, 40], 0x1b)
        .raw(&[0x58, 0x48, 0xcf]);
    // Every eighth trap ends it: TEST AL, 7; JNZ; AND [RSP + 24], not TF.
    let trap = Assembly::default()
        .counted()
        .raw(&[0xa8, 7, 0x75, 8])
        .number(&[0x81, 0x64, 0x24, 24], !0x100)
        .raw(&[0x58, 0x48, 0xcf]);
    // End of interrupt to both chips.
    let interrupt = Assembly::default().raw(&[0x50, 0xb0, 0x20, 0xe6, 0x20, 0xe6, 0xa0, 0x58, 0x48, 0xcf]);
    [
        (COMMON, common.0),
        (TOGGLE, toggle.0),
        (TRAP, trap.0),
        (INTERRUPT, interrupt.0),
    ]
}

/// Loads the tables, gives data segments what both rings may have, and sets interrupt controllers
/// and console up.
fn prelude() -> Vec<u8> {
    let out = |port: u8, value: u8| [0xb0, value, 0xe6, port];
    let mut code = Assembly::default()
        .number(&[0x0f, 0x01, 0x14, 0x25], GDT_POINTER)
        .number(&[0x0f, 0x01, 0x1c, 0x25], IDT_POINTER)
        .raw(&[0xb8, 0x28, 0, 0, 0, 0x0f, 0x00, 0xd8])
        .number(&[0xbc], KERNEL_STACK)
        .raw(&[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xe0, 0x8e, 0xe8]);
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 2),
        (0xa1, 1),
        (0x21, 0),
        (0xa1, 0),
    ] {
        code = code.raw(&out(port, value));
    }
    // The console interrupts: MOV EDX, 0x3F9; MOV AL, 1; OUT DX, AL. JMP to the first slot.
    let code = code.number(&[0xba], 0x3f9).raw(&[0xb0, 1, 0xee]);
    let from = ENTRY + code.0.len() as u64 + 5;
    code.number(&[0xe9], (CODE - from) as u32).0
}

fn write_tables(put: &dyn Fn(u64, &[u8])) {
    let task_low = TASK_SEGMENT_LIMIT & 0xffff | (TASK_STATE & 0xff_ffff) << 16 | 0x89 << 40;
    let user = [0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];
    let gdt = [boot::small::GDT.as_slice(), &user, &[task_low, TASK_STATE >> 32]].concat();
    let bytes: Vec<u8> = gdt.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    put(GDT, &bytes);
    put(GDT_POINTER.into(), &pointer(bytes.len(), GDT));
    put(IDT_POINTER.into(), &pointer(256 * 16, IDT));
    for vector in 0..256 {
        let stub = STUBS + vector * STUB_BYTES;
        // Ring 3 may use every gate.
        let gate = stub & 0xffff | 0x08 << 16 | 0xee00 << 32 | (stub >> 16 & 0xffff) << 48;
        put(IDT + vector * 16, &gate.to_le_bytes());
        let (begin, handler): (&[u8], u64) = match vector {
            0 => (&[], TOGGLE),
            1 => (&[], TRAP),
            0x20..=0x2f => (&[], INTERRUPT),
            _ if WITH_ERROR_CODE.contains(&vector) => (&[], COMMON),
            // PUSH 0.
            _ => (&[0x6a, 0], COMMON),
        };
        let from = stub + begin.len() as u64 + 5;
        let code = Assembly::default()
            .raw(begin)
            .number(&[0xe9], (handler - from) as u32);
        put(stub, &code.0);
    }
    let mut task_state = vec![0; TASK_SEGMENT_LIMIT as usize + 1];
    task_state[4..12].copy_from_slice(&ENTRY_STACK.to_le_bytes());
    task_state[102..104].copy_from_slice(&(TASK_STATE_BYTES as u16).to_le_bytes());
    task_state[TASK_SEGMENT_LIMIT as usize] = 0xff;
    put(TASK_STATE, &task_state);
}

/// What LGDT and LIDT read: limit and address.
fn pointer(bytes: usize, address: u64) -> Vec<u8> {
    [&(bytes as u16 - 1).to_le_bytes()[..], &address.to_le_bytes()].concat()
}
