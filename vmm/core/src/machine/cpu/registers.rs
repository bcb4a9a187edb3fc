//! Registers of a vCPU, and the state in which it is entered.

use serde::{Deserialize, Serialize};

/// General registers, instruction pointer and flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

impl Registers {
    /// The general register `number`, as instructions encode it: 0 = RAX, 1 = RCX, to 15 = R15.
    pub fn general_mut(&mut self, number: u8) -> &mut u64 {
        match number {
            0 => &mut self.rax,
            1 => &mut self.rcx,
            2 => &mut self.rdx,
            3 => &mut self.rbx,
            4 => &mut self.rsp,
            5 => &mut self.rbp,
            6 => &mut self.rsi,
            7 => &mut self.rdi,
            8 => &mut self.r8,
            9 => &mut self.r9,
            10 => &mut self.r10,
            11 => &mut self.r11,
            12 => &mut self.r12,
            13 => &mut self.r13,
            14 => &mut self.r14,
            _ => &mut self.r15,
        }
    }

    /// Its value.
    #[must_use]
    pub fn general(mut self, number: u8) -> u64 {
        *self.general_mut(number)
    }
}

/// The system registers that a machine needs to see memory as its guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemRegisters {
    /// CR3.
    pub cr3: u64,
    /// Linear base address of the interrupt descriptor table.
    pub interrupts_base: u64,
    /// Its limit in bytes.
    pub interrupts_limit: u16,
    /// Privilege level.
    pub ring: u8,
}

/// State in which a vCPU is entered, in 64-bit mode, ring 0, with flat segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// General registers, instruction pointer and flags.
    pub registers: Registers,
    /// The descriptor table.
    pub descriptors: Descriptors,
    /// CR0, CR2, CR3, CR4, EFER.
    pub control: [u64; 5],
}

/// A descriptor table, and which of its segments are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Its linear address.
    pub address: u64,
    /// Its limit in bytes.
    pub limit: u16,
    /// Selector of the code segment.
    pub code: u16,
    /// Selector of all data segments.
    pub data: u16,
}
