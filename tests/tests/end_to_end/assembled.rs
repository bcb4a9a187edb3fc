//! Images that are put together byte by byte: without section headers and symbols.

use lockstep_tests::harness::bare::{CODE, elf};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Guest, Scratch, kvm, lockstep};

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
