//! What single stepping does on this host, found by doing it.
//!
//! Software-assisted KVM gives the debug exception of a step in ring 3 to the guest; upstream KVM
//! stops before the next instruction. The probe is a few instructions in ring 3 of a machine of its
//! own, without an interrupt table: where the guest gets the exception, that machine shuts down.

use crate::host::{Host, HostError};
use crate::vcpu::Ran;
use crate::vm::Vm;
use lockstep_core::machine::boot;
use lockstep_core::machine::cpu::cpuid;
use lockstep_core::machine::memory::{self, MEMORY_BYTES_MIN};
use vm_memory::{Bytes, GuestAddress};

/// Behind the boot structures.
const CODE_ADDRESS: u64 = 0x10_0000;
/// Three NOPs to step, and a HLT, which ring 3 may not execute: nothing runs away.
const CODE: [u8; 4] = [0x90, 0x90, 0x90, 0xf4];
const STEPS: u64 = 3;

/// Whether a step in ring 3 comes back after exactly one instruction.
///
/// # Errors
/// [`HostError`]: the host could not be asked.
pub fn steps_ring_3() -> Result<bool, HostError> {
    let failed = |why: String| HostError::Failed {
        action: "probe single stepping",
        why,
    };
    let memory = memory::allocate(MEMORY_BYTES_MIN).map_err(|why| failed(why.to_string()))?;
    boot::small::write(&memory, "", 0).map_err(|why| failed(why.to_string()))?;
    memory
        .write_slice(&CODE, GuestAddress(CODE_ADDRESS))
        .map_err(|why| failed(why.to_string()))?;
    let mut core =
        Vm::new(&Host::open()?, memory)?.core(&boot::small::entry_state(CODE_ADDRESS), &cpuid::TABLE, 3)?;
    for step in 1..=STEPS {
        core.set_stepping(true).map_err(|why| failed(why.to_string()))?;
        let ran = core.run_once().map_err(|why| failed(why.to_string()))?;
        if ran != Ran::Stepped || core.rip() != Some(CODE_ADDRESS + step) {
            return Ok(false);
        }
    }
    Ok(true)
}
