//! A kernel's traps: what its rewritten instructions would have done.
//!
//! Time-stamp counters of ring 3 are not in the image. CR4.TSD, which every write of CR4 is given,
//! makes them #GP, and the kernel's handler of that begins with a trap:
//!
//! ```text
//!   RDTSC in ring 3 -> #GP -> OUT 0xe4 in place of CLAC or ENDBR64 -> is it RDTSC? -> answered, on to an IRETQ of the kernel
//!                                                                       no: the handler runs on
//! ```
//!
//! The handler's place is in gate 13 of the interrupt table, which a kernel fills while it boots:
//! it is looked for at each trap, so that nothing has to be remembered.

use super::{Machine, MachineError, Step, set_random, set_tsc};
use crate::machine::cpu::{Registers, SystemRegisters, Vcpu};
use crate::machine::door::{self, Door};
use crate::machine::image::trap_ports::KernelTrap;
use crate::machine::paging::Linear;
use lockstep_logging_channel::EndReason;

/// CR4.TSD: RDTSC is a general-protection fault in ring 3.
const TIME_STAMP_DISABLE: u64 = 1 << 2;
/// CR4.PAE, without which there is no 64-bit mode.
const PAGE_EXTENSIONS: u64 = 1 << 5;
/// Bits of CR4 that the CPUID table allows: VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR,
/// OSXMMEXCPT.
const CR4_ALLOWED: u64 = 0x7ff;

/// The gate of #GP in the interrupt table, and bytes of a gate.
const GENERAL_PROTECTION_VECTOR: u64 = 13;
const GATE_BYTES: u64 = 16;
/// First instructions of a handler that do nothing here: ENDBR64; CLAC; three NOPs, or one of three
/// bytes.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const THREE_BYTES: [[u8; 3]; 3] = [[0x0f, 0x01, 0xca], [0x90, 0x90, 0x90], [0x0f, 0x1f, 0x00]];
const NOP: u8 = 0x90;
/// NOP of two bytes.
const NOP_2: [u8; 2] = [0x66, 0x90];

const RDTSC: [u8; 2] = [0x0f, 0x31];
const RDTSCP: [u8; 3] = [0x0f, 0x01, 0xf9];
/// Bytes of an error code on the stack.
const ERROR_CODE_BYTES: u64 = 8;

/// The frame that an exception with an error code has pushed.
struct Frame {
    /// RIP.
    rip: u64,
    /// Ring of CS.
    ring: u64,
}

impl<V: Vcpu> Machine<V> {
    /// Does what the rewritten instruction would have done. `interrupt_return` is the address of an
    /// IRETQ of the kernel.
    pub(super) fn answer_kernel(
        &mut self,
        trap: KernelTrap,
        interrupt_return: u64,
        door: &mut dyn Door,
    ) -> Result<Step, MachineError> {
        let mut registers = self.vcpu.registers()?;
        let system = self.vcpu.system_registers()?;
        let point = self.point();
        let mut ask = |question| door.answer(point, question);
        match trap {
            KernelTrap::Tsc => set_tsc(&mut registers, door::tsc(&mut ask)?),
            KernelTrap::TscAndProcessor => {
                set_tsc(&mut registers, door::tsc(&mut ask)?);
                registers.rcx = 0;
            }
            KernelTrap::Random { register, size_bytes } => {
                let bytes = door::random(&mut ask, size_bytes.into())?;
                set_random(&mut registers, register, size_bytes, &bytes);
            }
            // A program that may use ports is not the kernel.
            KernelTrap::SetCr4 { .. } | KernelTrap::GeneralProtection if system.ring != 0 => {}
            KernelTrap::SetCr4 { register } => {
                let value = registers.general(register);
                if value & !CR4_ALLOWED != 0 || value & PAGE_EXTENSIONS == 0 {
                    let why = format!("it set CR4 to {value:#x}, which its processor does not take");
                    return self.ended(EndReason::GuestFault(why), door);
                }
                self.vcpu.set_cr4(value | TIME_STAMP_DISABLE)?;
            }
            KernelTrap::GeneralProtection => {
                let linear = Linear::new(&self.memory, system.cr3);
                let answered = general_protection(linear, &mut registers, interrupt_return, &mut || {
                    door::tsc(&mut ask)
                })?;
                if !answered {
                    return Ok(Step::Continues);
                }
            }
        }
        self.vcpu.set_registers(&registers)?;
        self.trap_general_protection(&system);
        Ok(Step::Continues)
    }

    /// Puts the trap at the beginning of the handler of #GP, where one is found that begins with
    /// nothing.
    fn trap_general_protection(&self, system: &SystemRegisters) {
        let linear = Linear::new(&self.memory, system.cr3);
        let Some(handler) = handler(linear, system) else {
            return;
        };
        let trap = KernelTrap::GeneralProtection.instruction();
        let Some(first) = linear.bytes::<4>(handler) else {
            return;
        };
        let [one, two, three, _] = first;
        if first == ENDBR64 {
            let [nop, second] = NOP_2;
            let _ = linear.write(handler, &[trap[0], trap[1], nop, second]);
        } else if THREE_BYTES.contains(&[one, two, three]) {
            let _ = linear.write(handler, &[trap[0], trap[1], NOP]);
        }
    }
}

/// The handler of #GP.
fn handler(linear: Linear<'_>, system: &SystemRegisters) -> Option<u64> {
    let offset = GENERAL_PROTECTION_VECTOR * GATE_BYTES;
    if u64::from(system.interrupts_limit) < offset + GATE_BYTES - 1 {
        return None;
    }
    let gate = system.interrupts_base.checked_add(offset)?;
    let upper_half = gate.checked_add(GATE_BYTES / 2)?;
    let (low, high): (u64, u64) = (linear.aligned(gate)?, linear.aligned(upper_half)?);
    // Intel SDM volume 3A, figure 6-8: offset in bits 15 to 0, 63 to 48, and the low half of the
    // upper word; present in bit 47.
    let present = low >> 47 & 1 != 0;
    present.then_some(low & 0xffff | low >> 32 & 0xffff_0000 | high << 32)
}

/// Answers RDTSC and RDTSCP in ring 3, where they are what has caused this exception, and leads to
/// the IRETQ; whether it was one.
fn general_protection<E>(
    linear: Linear<'_>,
    registers: &mut Registers,
    interrupt_return: u64,
    tsc: &mut dyn FnMut() -> Result<u64, E>,
) -> Result<bool, E> {
    let Some(frame) = frame(linear, registers.rsp) else {
        return Ok(false);
    };
    let code: [u8; 3] = match (linear.bytes(frame.rip), linear.bytes::<2>(frame.rip)) {
        (Some(three), _) => three,
        (None, Some([one, two])) => [one, two, 0],
        (None, None) => return Ok(false),
    };
    let length = match code {
        RDTSCP => RDTSCP.len(),
        [one, two, _] if [one, two] == RDTSC => RDTSC.len(),
        _ => return Ok(false),
    };
    if frame.ring != 3 {
        return Ok(false);
    }
    let behind = frame.rip.wrapping_add(length as u64);
    if !linear.write(registers.rsp + ERROR_CODE_BYTES, &behind.to_le_bytes()) {
        return Ok(false);
    }
    set_tsc(registers, tsc()?);
    if length == RDTSCP.len() {
        registers.rcx = 0;
    }
    registers.rsp += ERROR_CODE_BYTES;
    registers.rip = interrupt_return;
    Ok(true)
}

fn frame(linear: Linear<'_>, stack: u64) -> Option<Frame> {
    let word = |index: u64| {
        let address = stack.checked_add(8 * index)?;
        linear.bytes::<8>(address).map(u64::from_le_bytes)
    };
    Some(Frame {
        rip: word(1)?,
        ring: word(2)? & 3,
    })
}
