//! What a machine cannot go on from is an end with a name, and never a failure of the VMM.

use crate::code::{Code, Register};
use crate::guest::{RESULTS, Ring, host, run};
use lockstep_logging_channel::EndReason;

/// What the end of `code` says of the guest.
fn fault(ring: Ring, code: Code) -> Option<String> {
    match run(&host()?, ring, code).reason {
        EndReason::GuestFault(why) => Some(why),
        other => panic!("no fault: {other:?}"),
    }
}

#[test]
fn halting_with_interrupts_off_is_a_fault() {
    let Some(why) = fault(Ring::Zero, Code::default().raw(&[0xfa, 0xf4])) else {
        return;
    };

    assert!(why.contains("halted with interrupts disabled"), "{why}");
}

#[test]
fn a_triple_fault_is_reported() {
    // LIDT from zeros: no gate at all; UD2.
    let no_gates = [&[0x0f, 0x01, 0x1c, 0x25], &RESULTS.to_le_bytes()[..]].concat();
    let Some(why) = fault(Ring::Zero, Code::default().raw(&no_gates).raw(&[0x0f, 0x0b])) else {
        return;
    };

    assert!(why.contains("triple fault"), "{why}");
}

/// JMP to device memory.
fn jump_to_a_device() -> Code {
    Code::default().mov(Register::Rax, 0xd000_0000).raw(&[0xff, 0xe0])
}

#[test]
fn code_that_is_not_in_memory_is_reported() {
    let Some(why) = fault(Ring::Zero, jump_to_a_device()) else {
        return;
    };

    assert!(why.contains("cannot run"), "{why}");
}

#[test]
fn code_of_ring_3_that_is_not_in_memory_is_reported_or_the_guests_own_affair() {
    let Some(host) = host() else { return };
    let reason = run(&host, Ring::Three, jump_to_a_device()).reason;

    // Upstream KVM gives #UD to ring 3 where it cannot emulate; software-assisted KVM gives up.
    let reported = matches!(&reason, EndReason::GuestFault(why) if why.contains("cannot run"));
    assert!(reported || reason == EndReason::PoweredOff(6), "{reason:?}");
}

#[test]
fn privileged_instructions_of_ring_3_are_the_guests_own_affair() {
    let Some(host) = host() else { return };
    // HLT, CLI, RDMSR, MOV RAX CR0.
    for instruction in [&[0xf4][..], &[0xfa], &[0x0f, 0x32], &[0x0f, 0x20, 0xc0]] {
        let outcome = run(&host, Ring::Three, Code::default().raw(instruction).power_off(99));

        assert_eq!(outcome.reason, EndReason::PoweredOff(13), "{instruction:02x?}");
    }
}
