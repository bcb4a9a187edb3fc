//! Recordings of the last release, of a guest that is assembled here: each replays, or is refused
//! by name. They are in `recordings/`, with the code of the guest.

use lockstep_tests::fuzz::corpus::from_hex;
use lockstep_tests::harness::bare::{CODE, elf};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Scratch, kvm, lockstep};

/// Refusal by this version: `None` where they replay, else the exit status and the words.
const REFUSED: Option<(i32, &[&str])> = None;

const NO_CLOCK: &str = "none";

/// A recording, and the settings that it was made with.
struct Recording {
    hex: &'static str,
    command_line: &'static str,
    digest_interval_exits: &'static str,
    clock: &'static str,
}

const GUEST: &str = include_str!("recordings/guest.hex");

fn replayed(recording: &Recording) -> Ended {
    let scratch = Scratch::new();
    let code = from_hex(GUEST).unwrap();
    let image = scratch.write("guest.elf", elf(&[(CODE, 5, &code)]));
    let log = scratch.write("log", from_hex(recording.hex).unwrap());
    run(lockstep()
        .arg("replay")
        .arg(image)
        .arg("--log")
        .arg(log)
        .args(["--memory-mib", "2", "--command-line", recording.command_line])
        .args(["--digest-interval-exits", recording.digest_interval_exits]))
}

fn is_replayed_or_refused(recording: &Recording) {
    let Some(_kvm) = kvm::shared() else { return };
    let ended = replayed(recording);
    // Every KVM can do without an instruction clock.
    if recording.clock != NO_CLOCK && ended.code() == Some(4) {
        ended.expect_named(&[recording.clock]);
        kvm::skip(&format!(
            "this host's KVM has no instruction clock `{}`",
            recording.clock
        ));
        return;
    }
    match REFUSED {
        None => {
            let ended = ended.expect_code(0);
            assert!(ended.stdout.ends_with("\nx\n"), "{ended}");
        }
        Some((status, named)) => ended.expect_code(status).expect_named(named),
    }
}

#[test]
fn one_without_a_clock_and_without_digests_on_the_way() {
    is_replayed_or_refused(&Recording {
        hex: include_str!("recordings/plain.hex"),
        command_line: "",
        digest_interval_exits: "1000000",
        clock: NO_CLOCK,
    });
}

#[test]
fn one_with_digests() {
    is_replayed_or_refused(&Recording {
        hex: include_str!("recordings/digests.hex"),
        command_line: "",
        digest_interval_exits: "16",
        clock: NO_CLOCK,
    });
}

#[test]
fn one_with_the_clock_step() {
    is_replayed_or_refused(&Recording {
        hex: include_str!("recordings/step.hex"),
        command_line: "spin",
        digest_interval_exits: "16",
        clock: "step",
    });
}

#[test]
fn one_with_the_clock_statistic() {
    is_replayed_or_refused(&Recording {
        hex: include_str!("recordings/statistic.hex"),
        command_line: "spin",
        digest_interval_exits: "16",
        clock: "statistic",
    });
}
