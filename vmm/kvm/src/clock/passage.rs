//! How a single step passes an instruction, and what it leaves behind in the guest.
//!
//! A step is made with the trap flag set (Intel SDM volume 3B, 17.3.1.4). Most instructions pass
//! unharmed. Some are not stepped at all, because a step over them is not one instruction
//! everywhere, or its exit gets lost; some take the trap flag along, to where the guest would find
//! it.

use crate::vcpu::Core;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};
use kvm_bindings::kvm_regs;
use lockstep_core::machine::cpu::CpuError;

const TRAP_FLAG: u64 = 1 << 8;
const WORD_BYTES: u64 = 8;
/// An interrupt frame of 64-bit mode: RIP, CS, RFLAGS, RSP, SS (Intel SDM volume 3A, 6.14.2).
const FRAME_FLAGS: u64 = 2 * WORD_BYTES;
const FRAME_STACK: u64 = 3 * WORD_BYTES;
const FRAME_BYTES: u64 = 5 * WORD_BYTES;

/// Exceptions (Intel SDM volume 3A, 6.15).
const VECTOR_DIVISION: u8 = 0;
const VECTOR_DEBUG: u8 = 1;
const VECTOR_UNDEFINED: u8 = 6;
const VECTOR_DOUBLE_FAULT: u8 = 8;
const VECTOR_PROTECTION: u8 = 13;
const VECTOR_PAGE_FAULT: u8 = 14;

/// Handlers of an interrupt that is about to be delivered, and of what may happen instead.
///
/// # Errors
/// The host's failure.
pub fn deliveries(core: &Core, vector: u8) -> Result<Vec<u64>, CpuError> {
    let vectors = [vector, VECTOR_PAGE_FAULT, VECTOR_PROTECTION, VECTOR_DOUBLE_FAULT];
    let places: Result<Vec<_>, _> = vectors.into_iter().map(|vector| core.handler(vector)).collect();
    Ok(places?.into_iter().flatten().collect())
}

/// How an instruction is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// By one step.
    Step,
    /// By steps until the instruction pointer moves: a step makes one iteration on hardware, and
    /// many in an emulator.
    Repeat,
    /// Running: it leaves the guest, and some hosts lose that exit when it is stepped.
    Exits,
    /// Running, and what follows is not counted: a step over it makes more than one instruction,
    /// ends in a ring that cannot be stepped, or begins to step the guest by its own trap flag,
    /// whose traps are the guest's.
    Uncounted,
}

/// An instruction about to be executed.
pub struct Step {
    /// How to pass it.
    pub passage: Passage,
    /// Behind it, the guest's own trap flag and that of a step could not be told apart.
    pub entangles: bool,
    instruction: Instruction,
    before: kvm_regs,
}

impl Step {
    /// The one at the instruction pointer. `everywhere`: this host steps both rings exactly.
    ///
    /// # Errors
    /// The host's failure.
    pub fn at(core: &mut Core, everywhere: bool) -> Result<Self, CpuError> {
        let before = core.registers()?;
        let instruction = decode(&core.bytes_at(before.rip)?, before.rip);
        let sets_trap_flag = match flags_loaded(&instruction, &before) {
            None => false,
            Some(Loaded::Value(flags)) => flags & TRAP_FLAG != 0,
            // Flags that come from a device cannot be read without asking it.
            Some(Loaded::At(address)) => core.word_at(address)?.is_none_or(|flags| flags & TRAP_FLAG != 0),
        };
        let pushes = matches!(instruction.mnemonic(), Mnemonic::Pushf | Mnemonic::Pushfq);
        // What was pushed to a device cannot be taken back.
        let entangles =
            sets_trap_flag || pushes && core.word_at(before.rsp.wrapping_sub(WORD_BYTES))?.is_none();
        let passage = if entangles {
            Passage::Uncounted
        } else {
            passage(&instruction, everywhere)
        };
        Ok(Self {
            passage,
            entangles,
            instruction,
            before,
        })
    }

    /// The step was made: takes the trap flag from where the guest could find it. Whether the
    /// instruction is done.
    ///
    /// # Errors
    /// The host's failure.
    pub fn made(&self, core: &mut Core) -> Result<bool, CpuError> {
        let after = core.registers()?;
        match self.instruction.mnemonic() {
            Mnemonic::Syscall if after.rcx == self.instruction.next_ip() => {
                let r11 = after.r11 & !TRAP_FLAG;
                core.set_registers(kvm_regs { r11, ..after });
            }
            Mnemonic::Pushf | Mnemonic::Pushfq if after.rip == self.instruction.next_ip() => {
                clear_trap_flag(core, after.rsp)?;
            }
            _ if !self.leads_to(after.rip) => {
                self.clean_frame(core, &after)?;
                self.left(core)?;
            }
            _ => {}
        }
        Ok(self.passage != Passage::Repeat || after.rip != self.before.rip)
    }

    /// Addresses that the guest can come to when it runs on from here in ring 0, one of which it
    /// reaches within two instructions: the one behind this instruction if it entangles, or else
    /// the handler of the trap that the guest's own flag makes behind it; the handler of an
    /// exception that it causes.
    ///
    /// # Errors
    /// The host's failure.
    pub fn ends(&self, core: &Core) -> Result<Vec<u64>, CpuError> {
        let mnemonic = self.instruction.mnemonic();
        let behind = if self.entangles {
            Some(self.lands(core)?)
        } else {
            core.handler(VECTOR_DEBUG)?
        };
        let system_call = match mnemonic {
            Mnemonic::Syscall => core.system_call_entry()?,
            _ => None,
        };
        let other = match (mnemonic, system_call) {
            (_, Some(entry)) => Some(entry),
            (Mnemonic::Div | Mnemonic::Idiv, None) => core.handler(VECTOR_DIVISION)?,
            _ => core.handler(VECTOR_UNDEFINED)?,
        };
        let places = [
            behind,
            core.handler(VECTOR_PAGE_FAULT)?,
            core.handler(VECTOR_PROTECTION)?,
            other,
        ];
        // A breakpoint where the guest stands would hold it there.
        Ok(places
            .into_iter()
            .flatten()
            .filter(|place| *place != self.before.rip)
            .collect())
    }

    /// Address that the instruction leads to if it causes no exception, and is not a branch.
    fn lands(&self, core: &Core) -> Result<u64, CpuError> {
        let mask = match self.instruction.mnemonic() {
            Mnemonic::Iret => u64::from(u16::MAX),
            Mnemonic::Iretd => u64::from(u32::MAX),
            Mnemonic::Iretq => u64::MAX,
            Mnemonic::Sysret | Mnemonic::Sysretq => return Ok(self.before.rcx),
            _ => return Ok(self.instruction.next_ip()),
        };
        let returns_to = core.word_at(self.before.rsp)?;
        Ok(returns_to.map_or(self.instruction.next_ip(), |rip| rip & mask))
    }

    /// The guest has left the step's way: hardware does not step through the handler of an
    /// exception, but runs it to its first exit, or past its return. Takes the trap flag out of the
    /// frame with which ring 3 entered ring 0, which may be waiting, or be left over.
    ///
    /// # Errors
    /// The host's failure.
    pub fn left(&self, core: &mut Core) -> Result<(), CpuError> {
        let Some(stack) = core.ring_0_stack()? else {
            return Ok(());
        };
        let frame = stack.wrapping_sub(FRAME_BYTES);
        let returns_to = core.word_at(frame)?;
        let is_frame = returns_to == Some(self.before.rip) || returns_to == Some(self.instruction.next_ip());
        if is_frame && core.word_at(frame.wrapping_add(FRAME_STACK))? == Some(self.before.rsp) {
            clear_trap_flag(core, frame.wrapping_add(FRAME_FLAGS))?;
        }
        Ok(())
    }

    /// Whether the instruction itself may have led there; else an exception has.
    fn leads_to(&self, rip: u64) -> bool {
        let branches = matches!(
            self.instruction.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call
        );
        rip == self.instruction.next_ip()
            || (self.passage == Passage::Repeat && rip == self.before.rip)
            || (branches && rip == self.instruction.near_branch_target())
    }

    /// If an exception has pushed its frame, with or without an error code, takes the trap flag out
    /// of it.
    fn clean_frame(&self, core: &mut Core, after: &kvm_regs) -> Result<(), CpuError> {
        for frame in [after.rsp, after.rsp.wrapping_add(WORD_BYTES)] {
            let returns_to = core.word_at(frame)?;
            let stack = core.word_at(frame.wrapping_add(FRAME_STACK))?;
            let is_frame =
                returns_to == Some(self.before.rip) || returns_to == Some(self.instruction.next_ip());
            if is_frame && stack == Some(self.before.rsp) {
                return clear_trap_flag(core, frame.wrapping_add(FRAME_FLAGS));
            }
        }
        Ok(())
    }
}

/// Flags on the stack, in two bytes or eight: the trap flag is in the second byte of both.
fn clear_trap_flag(core: &mut Core, address: u64) -> Result<(), CpuError> {
    match core.word_at(address)? {
        Some(flags) if flags & TRAP_FLAG != 0 => core.set_word_at(address, flags & !TRAP_FLAG),
        _ => Ok(()),
    }
}

/// Flags that an instruction loads: TF is in the second byte, whatever their size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loaded {
    Value(u64),
    At(u64),
}

fn flags_loaded(instruction: &Instruction, before: &kvm_regs) -> Option<Loaded> {
    let behind = |bytes: u64| Some(Loaded::At(before.rsp.wrapping_add(bytes)));
    match instruction.mnemonic() {
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => behind(0),
        Mnemonic::Iret => behind(2 * 2),
        Mnemonic::Iretd => behind(2 * 4),
        Mnemonic::Iretq => behind(FRAME_FLAGS),
        Mnemonic::Sysret | Mnemonic::Sysretq => Some(Loaded::Value(before.r11)),
        _ => None,
    }
}

fn decode(bytes: &[u8], rip: u64) -> Instruction {
    Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE).decode()
}

fn passage(instruction: &Instruction, everywhere: bool) -> Passage {
    let to_stack_segment = instruction.op_count() > 0 && instruction.op0_register() == Register::SS;
    match instruction.mnemonic() {
        Mnemonic::Hlt | Mnemonic::In | Mnemonic::Out => Passage::Exits,
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => Passage::Exits,
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => Passage::Exits,
        // Bytes that cannot be read, or are no instruction.
        Mnemonic::INVALID => Passage::Uncounted,
        // The instruction behind one of these is never trapped.
        Mnemonic::Mov | Mnemonic::Pop if to_stack_segment => Passage::Uncounted,
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq if !everywhere => Passage::Uncounted,
        Mnemonic::Sysret | Mnemonic::Sysretq | Mnemonic::Sysexit | Mnemonic::Sysexitq if !everywhere => {
            Passage::Uncounted
        }
        _ if instruction.has_rep_prefix() || instruction.has_repne_prefix() => Passage::Repeat,
        _ => Passage::Step,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8], everywhere: bool) -> Passage {
        passage(&decode(bytes, 0x10_0000), everywhere)
    }

    #[test]
    fn what_leaves_the_guest_is_not_stepped() {
        let leaving: [&[u8]; 6] = [&[0xf4], &[0xe4, 0x10], &[0xec], &[0xef], &[0xf3, 0x6c], &[0x6f]];
        for bytes in leaving {
            assert_eq!(of(bytes, true), Passage::Exits, "{bytes:x?}");
        }
    }

    #[test]
    fn a_return_is_stepped_only_where_every_ring_is() {
        for bytes in [&[0x48_u8, 0xcf][..], &[0xcf], &[0x48, 0x0f, 0x07], &[0x0f, 0x35]] {
            assert_eq!(of(bytes, true), Passage::Step, "{bytes:x?}");
            assert_eq!(of(bytes, false), Passage::Uncounted, "{bytes:x?}");
        }
    }

    #[test]
    fn what_loads_flags_is_known_with_the_place_they_come_from() {
        let before = kvm_regs {
            rsp: 0x1000,
            r11: 0x302,
            ..Default::default()
        };
        let from = |bytes: &[u8]| flags_loaded(&decode(bytes, 0x10_0000), &before);
        assert_eq!(from(&[0x9d]), Some(Loaded::At(0x1000)), "popfq");
        assert_eq!(from(&[0x66, 0x9d]), Some(Loaded::At(0x1000)), "popf");
        assert_eq!(from(&[0x48, 0xcf]), Some(Loaded::At(0x1010)), "iretq");
        assert_eq!(from(&[0xcf]), Some(Loaded::At(0x1008)), "iretd");
        assert_eq!(from(&[0x48, 0x0f, 0x07]), Some(Loaded::Value(0x302)), "sysretq");
        assert_eq!(from(&[0x9c]), None, "pushfq");
    }

    #[test]
    fn what_hides_the_trap_behind_it_is_not_counted() {
        for bytes in [&[0x8e_u8, 0xd0][..], &[0x8e, 0x10]] {
            assert_eq!(of(bytes, true), Passage::Uncounted, "{bytes:x?}");
        }
        assert_eq!(of(&[0x8e, 0xd8], true), Passage::Step, "mov ds, ax");
    }

    #[test]
    fn bytes_that_cannot_be_decoded_are_not_counted() {
        assert_eq!(of(&[], true), Passage::Uncounted);
        assert_eq!(
            of(&[0x48, 0xb8, 0], true),
            Passage::Uncounted,
            "cut off by the page"
        );
    }

    #[test]
    fn a_repeated_instruction_is_one_however_many_steps_it_takes() {
        assert_eq!(of(&[0xf3, 0xaa], true), Passage::Repeat);
        assert_eq!(of(&[0x66, 0xf2, 0xa6], false), Passage::Repeat);
        assert_eq!(of(&[0xaa], true), Passage::Step);
    }
}
