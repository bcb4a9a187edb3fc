//! The console on a terminal: bytes as they are typed while the guest runs, and the terminal as it
//! was found afterwards.

use lockstep_tests::harness::process::with_default_signals;
use lockstep_tests::harness::{Guest, Process, Scratch, Switch, kvm, lockstep, wait_until};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};
use std::process::{Child, Command, Stdio};

/// A child on a terminal of its own; killed and reaped with this value.
struct OnTerminal {
    child: Child,
    terminal: OpenptyResult,
}

impl OnTerminal {
    fn start(command: &mut Command) -> Self {
        let terminal = openpty(None, None).unwrap();
        let stdin = terminal.slave.try_clone().unwrap();
        command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
        let child = with_default_signals(command).spawn().unwrap();
        Self { child, terminal }
    }

    fn flags(&self) -> LocalFlags {
        tcgetattr(&self.terminal.slave).unwrap().local_flags
            & (LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    /// With the keys that are signals or without: the guest may read its console.
    fn is_taken(&self) -> bool {
        !self.flags().intersects(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    fn is_as_found(&self) -> bool {
        self.flags() == LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG
    }

    fn wait_until_taken(&self) {
        wait_until(
            || self.is_taken().then_some(()),
            || format!("the terminal taken: {:?}", self.flags()),
        );
    }

    fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn wait(&mut self) -> Option<i32> {
        wait_until(|| self.child.try_wait().unwrap(), || "its end".to_owned()).code()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run_for_ever() -> Command {
    let mut command = lockstep();
    command
        .arg("run")
        .arg(Guest::Compute.image())
        .args(["--command-line", "megarounds=100000000"]);
    command
}

#[test]
fn signals_put_the_terminal_back() {
    let Some(_kvm) = kvm::shared() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running = OnTerminal::start(&mut run_for_ever());
        running.wait_until_taken();
        running.signal(signal);
        assert_eq!(running.wait(), Some(0));
        assert!(running.is_as_found(), "{:?}", running.flags());
    }
}

#[test]
fn the_end_of_the_guest_puts_the_terminal_back() {
    let Some(_kvm) = kvm::shared() else { return };
    // The console source waits for a line: by then the terminal is taken.
    let mut command = lockstep();
    command
        .arg("run")
        .arg(Guest::Entropy.image())
        .args(["--command-line", "sources=console console_ms=60000"]);
    let mut running = OnTerminal::start(&mut command);
    running.wait_until_taken();
    assert_eq!(nix::unistd::write(&running.terminal.master, b"a line\n"), Ok(7));
    assert_eq!(running.wait(), Some(0));
    assert!(running.is_as_found(), "{:?}", running.flags());
}

#[test]
fn an_error_puts_the_terminal_back() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let mut switch = Switch::start(&scratch);
    let mut running = OnTerminal::start(run_for_ever().args(["--network", "switch:/no/such/socket"]));
    assert_eq!(running.wait(), Some(3));
    assert!(running.is_as_found(), "{:?}", running.flags());
    let mut fenced = OnTerminal::start(run_for_ever().arg("--network").arg(switch.attachment()));
    fenced.wait_until_taken();
    let _ = switch.stop().expect_code(0);
    fenced.signal(Signal::SIGTERM);
    let _ = fenced.wait();
    assert!(fenced.is_as_found(), "{:?}", fenced.flags());
}

#[test]
fn what_is_no_terminal_is_left_alone() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut process = Process::start("run", lockstep().arg("run").arg(Guest::Smoke.image()));
    let _ = process.wait().expect_code(0);
}
