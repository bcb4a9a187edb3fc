//! A process that another program replaces loses no signal. A program of its own: what is tested
//! holds for a whole process, and a test's harness has threads that would take signals.
//!
//! ```text
//!   judge ---> first: a signal comes as it is replaced ---> second: hears it
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail"
)]

use lockstep_process::signals::{Signals, replace_process, watch};
use lockstep_process::status::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::time::Duration;

const ROLE_VARIABLE: &str = "LOCKSTEP_TEST_ROLE";
/// Status of a second program that heard the signal: none of Lockstep's, nor of the test harness.
const HEARD: i32 = 77;
/// Much longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    match std::env::var(ROLE_VARIABLE).as_deref() {
        Err(_) => judge(),
        Ok("first") => first(),
        Ok("first, which was told before") => first_told_before(),
        Ok(_) => second(),
    }
}

/// This program, in the role.
fn program(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(ROLE_VARIABLE, role);
    command
}

fn judge() {
    let status = program("first").status().unwrap();
    assert_eq!(status.code(), Some(HEARD), "the signal is the second program's");
    let status = program("first, which was told before").status().unwrap();
    assert_eq!(
        status.code(),
        Some(Status::Success as i32),
        "no second program after a signal"
    );
    println!("a signal that comes as a process is replaced is heard: ok");
}

/// A signal that nobody listens for would end this process at once, with this status.
const ENDED_AT_ONCE: Status = Status::Host;

fn first() {
    watch(ENDED_AT_ONCE).unwrap();
    let why = replace_process(|| {
        kill(Pid::this(), Signal::SIGTERM).unwrap();
        // The thread that waits for signals has all the time to take it.
        std::thread::sleep(Duration::from_millis(200));
        program("second").exec()
    });
    panic!("not replaced: {why:?}");
}

fn first_told_before() {
    watch(ENDED_AT_ONCE).unwrap();
    let mut signals = Signals::listen();
    kill(Pid::this(), Signal::SIGTERM).unwrap();
    within_patience(signals.received());
    assert!(replace_process(|| program("second").exec()).is_none());
    exit(Status::Success as i32);
}

fn second() {
    watch(ENDED_AT_ONCE).unwrap();
    let mut signals = Signals::listen();
    within_patience(signals.received());
    exit(HEARD);
}

fn within_patience(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, work)
            .await
            .expect("a signal is heard")
    });
}
