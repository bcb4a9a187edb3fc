//! Images that are put together here, byte by byte: without section headers and symbols. Format:
//! System V ABI, ELF-64.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Guest, Scratch, kvm, lockstep};

/// Address at which they are entered.
pub const CODE: u32 = 0x10_0000;

/// An ELF64 executable of these segments, each with its address and flags (1 executable, 2
/// writable, 4 readable), entered at [`CODE`].
pub fn elf(segments: &[(u32, u32, &[u8])]) -> Vec<u8> {
    const HEADER_BYTES: u64 = 64;
    const SEGMENT_HEADER_BYTES: u64 = 56;
    let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    image.extend(u64::from(CODE).to_le_bytes());
    image.extend(HEADER_BYTES.to_le_bytes());
    image.extend([0; 12]);
    image.extend([64, 0, 56, 0, segments.len() as u8, 0, 64, 0, 0, 0, 0, 0]);
    let mut offset = HEADER_BYTES + segments.len() as u64 * SEGMENT_HEADER_BYTES;
    for &(address, flags, bytes) in segments {
        image.extend([1, 0, 0, 0]);
        image.extend(flags.to_le_bytes());
        let bytes = bytes.len() as u64;
        for field in [offset, address.into(), address.into(), bytes, bytes, 1] {
            image.extend(field.to_le_bytes());
        }
        offset += bytes;
    }
    for &(_, _, bytes) in segments {
        image.extend(bytes);
    }
    image
}

const UNCLAIMED: &str = "rewritten outside every function";

#[test]
fn what_is_rewritten_and_no_function_claims_is_named_at_v() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    // NOP; CPUID; XOR EAX, EAX; OUT.
    let code = [0x90, 0x0f, 0xa2, 0x31, 0xc0, 0xe7, 0xf4];
    let image = scratch.write("guest.elf", elf(&[(CODE, 5, &code)]));
    let ended = run(lockstep().args(["run", "-v"]).arg(image)).expect_code(0);
    ended.expect_named(&[UNCLAIMED, "0x100001"]);
}

#[test]
fn a_guest_whose_functions_claim_all_has_nothing_of_the_kind_named() {
    let Some(_kvm) = kvm::shared() else { return };
    let ended = run(lockstep().args(["run", "-v"]).arg(Guest::Smoke.image())).expect_code(0);
    ended.expect_named(&["instructions rewritten to exit"]);
    assert!(!ended.stderr.contains(UNCLAIMED), "{ended}");
}
