//! A Debian guest that restarts itself: in the same process, in its recording and the replay of it,
//! and in a pair, whose generation stays.
//!
//! As in [`super::linux`]: `make guests-debian` makes it, and `make lab-linux` runs these tests.

use lockstep_tests::harness::linux::{self, ENDED, LONG, QUIET};
use lockstep_tests::harness::{Ended, Linux, PairSpec, Process, Scratch, kvm, wait_until};
use std::process::Command;

/// Line with which busybox's shell begins.
const SHELL: &str = "built-in shell (ash)";
/// It says what the command itself has not.
const REBOOT: &str = "echo \"first: $((6 * 7))\" && reboot -f\n";

/// Waits for the shell of the second boot, behind what the first one said.
fn reboot(machine: &mut Process) {
    machine.wait_for_stdout(SHELL);
    machine.type_in(REBOOT);
    let said = machine.wait_for_stdout("first: 42");
    assert_eq!(said.matches(SHELL).count(), 1, "{said}");
    wait_until(
        || (machine.stdout().matches(SHELL).count() == 2).then_some(()),
        || format!("a second boot: {}", machine.stdout()),
    );
}

/// Runs `command` until its guest has restarted and has powered its machine off.
fn ended(command: &mut Command) -> Ended {
    let mut machine = Process::start("a guest that restarts", command);
    reboot(&mut machine);
    machine.type_in("exit 3\n");
    let ended = machine.wait_with_input().expect_code(0);
    assert!(ended.stdout.contains(&format!("{ENDED} 3")), "{ended}");
    ended
}

#[test]
fn a_restart_begins_the_guest_again_in_the_same_process() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let _ = ended(&mut Linux::Shell.command("run", ""));
}

#[test]
fn a_restart_is_replayed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let scratch = Scratch::new();
    let command = |verb| {
        let mut command = Linux::Shell.command(verb, "");
        command.arg("--log").arg(scratch.join("log"));
        command
    };
    let recorded = ended(&mut command("record"));
    let mut replay = Process::start("replay", &mut command("replay"));
    let replayed = replay.wait_within(LONG).expect_code(0);
    replayed.expect_named(&["the replay equals the log"]);
    assert_eq!(replayed.stdout, recorded.stdout);
}

#[test]
fn a_pair_whose_guest_restarts_stays_protected_in_its_generation() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let spec = PairSpec::new(Linux::Shell).setting("memory-mib", Linux::Shell.memory_mib());
    let mut pair = spec.setting("command-line", QUIET).start();
    reboot(&mut pair.primary.process);
    for side in [&mut pair.primary, &mut pair.backup] {
        assert!(side.process.is_running(), "{}", side.account());
        for event in ["solo", "live", "diverged"] {
            assert_eq!(side.count(event), 0, "{event}: {}", side.account());
        }
    }
    // The backup has gone the same way: it goes on where the second boot is.
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    pair.backup.process.type_in("echo \"second: $((6 * 8))\"\n");
    pair.backup.process.wait_for_stdout("second: 48");
    pair.backup.process.type_in("exit 3\n");
    let ended = pair.backup.process.wait_with_input().expect_code(0);
    assert!(ended.stdout.contains(&format!("{ENDED} 3")), "{ended}");
    assert_eq!(pair.backup.summary()["divergences"], 0);
}
