//! The shim in assembly, and the way into ring 0.
#![allow(unsafe_code)]

use crate::mmio::registers;
use crate::virtqueue::{self, QueueMemory};
use core::arch::{asm, global_asm};
use core::mem::offset_of;

global_asm!(
    include_str!("shim.s"),
    start = sym crate::boot::start,
    fault = sym crate::power::fault,
    network_base = const crate::network::BASE,
    queue_notify = const registers::QUEUE_NOTIFY,
    interrupt_acknowledge = const registers::INTERRUPT_ACKNOWLEDGE,
    transmit_queue = const crate::network::TRANSMIT_QUEUE,
    disk_base = const crate::disk::BASE,
    disk_bytes = const crate::disk::DEVICE_BYTES,
    receive_memory = sym crate::network::RECEIVE_MEMORY,
    available_flags = const offset_of!(QueueMemory, available_flags),
    used_index = const offset_of!(QueueMemory, used_index),
    no_interrupt = const virtqueue::NO_INTERRUPT,
);

/// A routine in assembly that runs in ring 0: arguments in RDI, RSI and RDX, answer in RAX. It may use
/// RAX, RCX, RDX, RSI, RDI and R8 to R11, and no stack to speak of.
pub type Routine = unsafe extern "C" fn();

unsafe extern "C" {
    fn ring0_gate();
    pub(crate) fn ring0_enable_interrupts();
    pub(crate) fn ring0_disable_interrupts();
    pub(crate) fn ring0_wait();
    pub(crate) fn ring0_console_write();
    pub(crate) fn ring0_network_exchange();
    pub(crate) fn ring0_network_interrupt();
    pub(crate) fn ring0_disk_0_interrupt();
    pub(crate) fn ring0_disk_1_interrupt();
    pub(crate) fn ring0_disk_2_interrupt();
    pub(crate) fn ring0_disk_3_interrupt();
}

/// Runs `routine` in ring 0 with three arguments, and gives its answer.
///
/// # Safety
/// `routine` keeps to what [`Routine`] says and its arguments are what it expects.
pub unsafe fn call(routine: Routine, arguments: [u64; 3]) -> u64 {
    let [first, second, third] = arguments;
    let answer: u64;
    // SAFETY: the shim saves no register, so everything a routine may use is declared lost;
    // memory is not declared untouched, so the compiler keeps nothing of it in registers.
    unsafe {
        asm!(
            "call {gate}",
            gate = sym ring0_gate,
            inlateout("rax") routine as usize as u64 => answer,
            inlateout("rdi") first => _,
            inlateout("rsi") second => _,
            inlateout("rdx") third => _,
            lateout("rcx") _, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    answer
}
