//! Debian's dropbear: a session that somebody types in goes on when its primary is killed.

use lockstep_tests::harness::{Linux, PairSpec, Process, kvm, linux, wait_until};
use nix::pty::openpty;
use std::fs::File;
use std::io::Write;

/// Line with which busybox's shell begins.
const SHELL: &str = "built-in shell (ash)";

/// A session of dbclient on a terminal of its own.
struct Session {
    client: Process,
    keyboard: File,
}

impl Session {
    /// Starts one, and waits for its shell. The switch turns a client away whose guest takes long to
    /// answer: then again.
    fn start(port: u16) -> Self {
        let started = || {
            let mut session = Self::open(port);
            let client = &mut session.client;
            wait_until(
                || (client.stdout().contains(SHELL) || !client.is_running()).then_some(()),
                || "a shell, or an end".to_owned(),
            );
            client.is_running().then_some(session)
        };
        wait_until(started, || "a session".to_owned())
    }

    fn open(port: u16) -> Self {
        let terminal = openpty(None, None).unwrap();
        let mut command = linux::client("dbclient");
        // Twice: whatever the key of the host is.
        command.args(["-y", "-y", "-p", &port.to_string(), "root@127.0.0.1"]);
        let client = Process::start_reading("dbclient", &mut command, terminal.slave);
        let keyboard = File::from(terminal.master);
        Self { client, keyboard }
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for an answer. The echo of what was typed has names where this has values.
    fn wait_for(&mut self, answer: &str) {
        let _ = self.client.wait_for_stdout(answer);
    }
}

#[test]
fn a_session_goes_on_when_its_primary_is_killed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let mut pair = PairSpec::serving(Linux::Ssh, "").start();
    pair.primary.process.wait_for_stdout("Not backgrounding");
    let mut session = Session::start(pair.switch().client_address().port());
    // A variable, a folder and a job are state of the shell.
    session.type_in("cd /sys; number=$((40 + 2)); sleep 100000 & echo \"at $PWD: $number\"\n");
    session.wait_for("at /sys: 42");

    // Typed on while nobody answers, too.
    session.type_in("number=$((number + 1)); echo \"before: $number\"\n");
    session.wait_for("before: 43");
    let _ = pair.primary.process.kill();
    for _ in 0..10 {
        session.type_in("number=$((number + 1)); echo \"meanwhile: $number\"\n");
    }
    pair.backup.wait_for("live");
    session.wait_for("meanwhile: 53");
    session.type_in("kill -0 $! && echo \"after: $number in $PWD\"\n");
    session.wait_for("after: 53 in /sys");
    session.type_in("kill $!; exit 7\n");
    let _ = session.client.wait().expect_code(7);
    let _ = pair.backup.stop().expect_code(0);
    assert_eq!(pair.backup.summary()["divergences"], 0);
}
