//! Keys on the terminal of a guest: they are the guest's once it reads its console, but for those
//! behind Ctrl-A; the terminal is as it was found at every end.

use lockstep_tests::harness::terminal::{CTRL_A, CTRL_C, CTRL_Z, Keys, OnTerminal};
use lockstep_tests::harness::{Guest, Scratch, kvm, lockstep};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// Line with which the guest begins.
const BEGINS: &str = "steady: computes";

/// A guest that echoes what is typed, a line at a time, until it reads Ctrl-C.
fn echoing(verb: &str) -> Command {
    let mut command = lockstep();
    command.arg(verb).arg(Guest::Steady.image());
    command.args(["--command-line", "interrupts=0 pages=8 echo=console"]);
    command
}

/// The same, as a job of a shell that takes it back when a line is typed.
fn as_job(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "set -m; \"$@\"; read -r line; fg %1; exit $?", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

#[test]
fn every_key_goes_to_a_guest_that_reads_its_console() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut running = OnTerminal::start(&echoing("run"));
    running.wait_until_it_has(Keys::Every);
    running.wait_for("Ctrl-A x stops lockstep");
    // What would suspend, end, quit, and hold a terminal, and the key of this program twice.
    running.type_in("<\x1a\x04\x1c\x13\x11\r\x01\x01>\n");
    running.wait_for("<\x1a\x04\x1c\x13\x11\r\x01>");
    running.type_in(CTRL_C);
    assert_eq!(running.wait().code(), Some(0), "{}", running.shown());
    running.wait_for("steady: 11 bytes typed");
    assert!(running.has(Keys::Lines));
}

#[test]
fn the_keys_behind_ctrl_a_are_not_the_guest_s() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut running = OnTerminal::start(&echoing("run"));
    running.wait_until_it_has(Keys::Every);
    running.type_in(CTRL_A);
    running.type_in("h");
    running.wait_for("suspend lockstep");
    running.type_in(CTRL_A);
    running.type_in("q<>\n");
    running.wait_for("\r\n<>");
    running.resize(50, 132);
    running.type_in(CTRL_A);
    running.type_in("s\n");
    running.wait_for("stty rows 50 cols 132");
    running.type_in(CTRL_A);
    running.type_in("x");
    assert_eq!(running.wait().code(), Some(0), "{}", running.shown());
    running.wait_for("SIGINT: stopping");
    assert!(running.has(Keys::Lines));
}

#[test]
fn a_guest_that_takes_nothing_can_be_left() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut running = OnTerminal::start(&run_for_ever());
    running.wait_until_it_has(Keys::WithSignals);
    // More reads than there is room for behind the guest, and less than may wait before them.
    for _ in 0..20 {
        running.type_in(&"never read ".repeat(100));
    }
    running.type_in(CTRL_A);
    running.type_in("x");
    assert_eq!(running.wait().code(), Some(0), "{}", running.shown());
    assert!(running.has(Keys::Lines));
}

/// A guest that does not read its console.
fn run_for_ever() -> Command {
    let mut command = lockstep();
    command.arg("run").arg(Guest::Compute.image());
    command.args(["--command-line", "megarounds=100000000"]);
    command
}

#[test]
fn ctrl_c_stops_lockstep_where_its_guest_does_not_read() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut running = OnTerminal::start(&run_for_ever());
    running.wait_until_it_has(Keys::WithSignals);
    running.type_in(CTRL_C);
    assert_eq!(running.wait().code(), Some(0), "{}", running.shown());
    assert!(!running.shown().contains("every key is the guest's"));
    assert!(running.has(Keys::Lines));
}

#[test]
fn a_job_that_is_suspended_by_its_key_takes_every_key_again_when_it_goes_on() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut shell = OnTerminal::start(&as_job(&echoing("run")));
    shell.wait_until_it_has(Keys::Every);
    shell.type_in(CTRL_A);
    shell.type_in("z");
    shell.wait_until_it_has(Keys::Lines);
    shell.type_in("go on\n");
    shell.wait_until_it_has(Keys::Every);
    shell.type_in(&format!("<{CTRL_Z}>\n{CTRL_C}"));
    assert_eq!(shell.wait().code(), Some(0), "{}", shell.shown());
    shell.wait_for("<\x1a>");
    assert!(shell.has(Keys::Lines));
}

#[test]
fn signals_that_end_at_once_put_the_terminal_back() {
    let Some(_kvm) = kvm::shared() else { return };
    for signal in [
        Signal::SIGQUIT,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGUSR2,
    ] {
        let command = echoing("run");
        let mut without_core = Command::new("sh");
        without_core.args(["-c", "ulimit -c 0; exec \"$@\"", "sh"]);
        without_core.arg(command.get_program()).args(command.get_args());
        let mut running = OnTerminal::start(&without_core);
        running.wait_until_it_has(Keys::Every);
        running.signal(signal);
        let status = running.wait();
        assert_eq!(status.signal(), Some(signal as i32), "{}", running.shown());
        assert!(running.has(Keys::Lines), "{signal}");
    }
}

#[test]
fn a_replay_has_the_keys_of_its_log_and_reads_none() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let mut recorded = OnTerminal::start(echoing("record").arg("--log").arg(&log));
    recorded.wait_until_it_has(Keys::Every);
    recorded.type_in(&format!("<{CTRL_Z}>\n"));
    recorded.wait_for("<\x1a>");
    recorded.type_in(CTRL_C);
    assert_eq!(recorded.wait().code(), Some(0), "{}", recorded.shown());
    let mut replayed = OnTerminal::start(echoing("replay").arg("--log").arg(&log));
    replayed.wait_for(BEGINS);
    assert!(replayed.has(Keys::Lines));
    replayed.type_in("not for it\n");
    assert_eq!(replayed.wait().code(), Some(0), "{}", replayed.shown());
    replayed.wait_for("the replay equals the log");
    assert!(replayed.shown().contains("<\x1a>"));
    assert_eq!(replayed.unread(), "not for it\n");
}
