//! Ports and device memory, in every size and in both rings.

use crate::code::{Code, Register};
use crate::guest::{BOTH, RESULTS, Ring, host, result_at, run};
use crate::moving::MAC;
use Register::{Rax, Rbx, Rcx, Rdx};
use lockstep_core::machine::devices::board::small;
use lockstep_logging_channel::{EndReason, OutputTarget};

const DONE: EndReason = EndReason::PoweredOff(99);

/// MOVZX EAX, byte; MOVZX EAX, word; MOV EAX; MOV RAX: each from [RBX].
const LOADS: [&[u8]; 4] = [
    &[0x0f, 0xb6, 0x03],
    &[0x0f, 0xb7, 0x03],
    &[0x8b, 0x03],
    &[0x48, 0x8b, 0x03],
];

/// What each load finds at `address`.
fn loaded(ring: Ring, address: u32) -> Option<[u64; 4]> {
    let begin = Code::default().mov(Rbx, address);
    let code = (0..).zip(LOADS).fold(begin, |code, (index, load)| {
        code.raw(load).store(Rax, result_at(index))
    });
    let outcome = run(&host()?, ring, code.power_off(99));
    assert_eq!((outcome.reason.clone(), outcome.exits), (DONE, 5), "an exit each");
    Some([0, 1, 2, 3].map(|index| outcome.result(index)))
}

#[test]
fn device_memory_is_read_in_every_size() {
    for ring in BOTH {
        // The network device's address, from its configuration.
        let Some(found) = loaded(ring, 0xd000_0100) else {
            return;
        };

        let [a, b, c, d, e, f] = MAC;
        let whole = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        assert_eq!(
            found,
            [whole & 0xff, whole & 0xffff, whole & 0xffff_ffff, whole],
            "{ring:?}"
        );
    }
}

#[test]
fn nothing_reads_as_all_ones() {
    for ring in BOTH {
        let Some(found) = loaded(ring, 0xe000_0000) else {
            return;
        };

        assert_eq!(found, [0xff, 0xffff, 0xffff_ffff, u64::MAX], "{ring:?}");
    }
}

#[test]
fn writes_to_nothing_go_nowhere() {
    let Some(host) = host() else { return };
    for ring in BOTH {
        // MOV [RBX], AL; AX; EAX; RAX.
        let writes = [0x88, 0x03, 0x66, 0x89, 0x03, 0x89, 0x03, 0x48, 0x89, 0x03];
        let outcome = run(
            &host,
            ring,
            Code::default()
                .fill(Rax)
                .mov(Rbx, 0xe000_0000)
                .raw(&writes)
                .power_off(99),
        );

        assert_eq!((outcome.reason, outcome.exits), (DONE, 5), "{ring:?}");
    }
}

#[test]
fn a_16_byte_read_of_device_memory_is_two_of_8() {
    let Some(host) = host() else { return };
    // MOVDQU XMM0, [RBX]; MOVQ RAX, XMM0: ring 0 has no SSE on every host.
    let code = Code::default()
        .mov(Rbx, 0xe000_0000)
        .raw(&[0xf3, 0x0f, 0x6f, 0x03, 0x66, 0x48, 0x0f, 0x7e, 0xc0]);
    let outcome = run(&host, Ring::Three, code.store(Rax, result_at(0)).power_off(99));

    assert_eq!((outcome.reason.clone(), outcome.result(0)), (DONE, u64::MAX));
}

#[test]
fn ports_are_read_in_every_size() {
    let Some(host) = host() else { return };
    for ring in BOTH {
        // IN AL, AX, EAX from a port of nothing: a 32-bit result clears the upper half, shorter
        // ones leave the rest.
        let code = Code::default().mov(Rdx, 0x80);
        let code = code.mov(Rax, 0).raw(&[0xec]).store(Rax, result_at(0));
        let code = code.mov(Rax, 0).raw(&[0x66, 0xed]).store(Rax, result_at(1));
        let code = code.fill(Rax).raw(&[0xed]).store(Rax, result_at(2));
        let outcome = run(&host, ring, code.power_off(99));

        let found = [0, 1, 2].map(|index| outcome.result(index));
        assert_eq!(found, [0xff, 0xffff, 0xffff_ffff], "{ring:?}");
    }
}

#[test]
fn a_string_is_written_to_a_port_byte_by_byte() {
    let Some(host) = host() else { return };
    for ring in BOTH {
        // MOV ESI; REP OUTSB.
        let from = [&[0xbe], &RESULTS.to_le_bytes()[..], &[0xf3, 0x6e]].concat();
        let text = u32::from_le_bytes(*b"hey\n");
        let code = Code::default()
            .mov(Rax, text)
            .store(Rax, RESULTS)
            .mov(Rcx, 4)
            .mov(Rdx, 0x3f8)
            .raw(&from);
        let outcome = run(&host, ring, code.power_off(99));

        assert_eq!(
            outcome.outputs,
            [(OutputTarget::console(small::CONSOLE), b"hey\n".to_vec())],
            "{ring:?}"
        );
        assert_eq!((outcome.reason, outcome.exits), (DONE, 5));
    }
}

#[test]
fn a_byte_is_read_from_a_port_into_memory() {
    let Some(host) = host() else { return };
    for ring in BOTH {
        // MOV EDI; INSB.
        let to = [&[0xbf], &RESULTS.to_le_bytes()[..], &[0x6c]].concat();
        let outcome = run(&host, ring, Code::default().mov(Rdx, 0x80).raw(&to).power_off(99));

        assert_eq!(
            (outcome.reason.clone(), outcome.result(0)),
            (DONE, 0xff),
            "{ring:?}"
        );
    }
}

#[test]
fn reading_a_string_from_a_port_is_a_fault_that_says_so() {
    let Some(host) = host() else { return };
    for ring in BOTH {
        // MOV EDI; REP INSB.
        let to = [&[0xbf], &RESULTS.to_le_bytes()[..], &[0xf3, 0x6c]].concat();
        let outcome = run(
            &host,
            ring,
            Code::default().mov(Rdx, 0x80).mov(Rcx, 5).raw(&to).power_off(99),
        );

        let EndReason::GuestFault(why) = outcome.reason else {
            panic!("{:?}", outcome.reason)
        };
        assert!(why.contains("INS with a count on port 0x80"), "{why}");
    }
}
