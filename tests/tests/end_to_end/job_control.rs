//! Replicas as jobs of a shell on a terminal: as the README starts them, and as a user moves them about.

use lockstep_tests::harness::process::{Process, run};
use lockstep_tests::harness::replica::read_report;
use lockstep_tests::harness::{Guest, PairSpec, Scratch, kvm, lockstep, wait_until};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Command;

const CTRL_C: &[u8] = b"\x03";
const CTRL_Z: &[u8] = b"\x1a";

/// `command` as words of a shell.
fn quoted(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<String> = words.map(|word| format!("'{}'", word.display())).collect();
    quoted.join(" ")
}

/// A shell with job control on a terminal of its own, and files of its replicas.
struct Shell {
    process: Process,
    terminal: OpenptyResult,
    scratch: Scratch,
}

impl Shell {
    /// Runs `script`, in which PRIMARY and BACKUP stand for the commands of a pair.
    fn start(script: &str) -> Self {
        let (scratch, terminal) = (Scratch::new(), openpty(None, None).unwrap());
        let shared = scratch.directory("shared");
        let channel = format!("unix:{}", scratch.join("channel").display());
        let spec = PairSpec::new(Guest::KeyValue);
        let side = |role: &str| {
            let report = scratch.join(&format!("{role}.jsonl"));
            quoted(&spec.command(role, &channel, &shared, &report))
        };
        let script = script
            .replace("PRIMARY", &side("primary"))
            .replace("BACKUP", &side("backup"));
        let path = nix::unistd::ttyname(&terminal.slave).unwrap();
        let mut command = Command::new("setsid");
        command.args(["--wait", "sh", "-c"]).arg(format!(
            // What a session leader opens first becomes its terminal.
            "exec <{0} >{0} 2>{0}; set -m\n{script}",
            path.display()
        ));
        let process = Process::start("a shell", &mut command);
        Self {
            process,
            terminal,
            scratch,
        }
    }

    fn report(&self, role: &str) -> PathBuf {
        self.scratch.join(&format!("{role}.jsonl"))
    }

    /// Waits until `role` reports `event`, and the shell is still there.
    fn wait_for(&mut self, role: &str, event: &str) {
        self.wait_for_report(role, event);
        assert!(self.process.is_running(), "the shell has ended");
    }

    /// Waits until `role` reports `event`.
    fn wait_for_report(&self, role: &str, event: &str) {
        let path = self.report(role);
        wait_until(
            || {
                read_report(&path)
                    .iter()
                    .any(|line| line["event"] == event)
                    .then_some(())
            },
            || format!("`{event}` of the {role}: {:?}", read_report(&path)),
        );
    }

    /// Its terminal takes bytes as they are typed, or lines.
    fn wait_for_terminal(&self, taken: bool) {
        let flags =
            || tcgetattr(&self.terminal.slave).unwrap().local_flags & (LocalFlags::ICANON | LocalFlags::ECHO);
        let wanted = if taken {
            LocalFlags::empty()
        } else {
            LocalFlags::ICANON | LocalFlags::ECHO
        };
        wait_until(
            || (flags() == wanted).then_some(()),
            || format!("a terminal with {wanted:?}: {:?}", flags()),
        );
    }

    fn assert_left_alone(&self) {
        let flags = tcgetattr(&self.terminal.slave).unwrap().local_flags;
        assert!(flags.contains(LocalFlags::ICANON | LocalFlags::ECHO), "{flags:?}");
    }

    /// Every process of the script, with its arguments.
    fn processes(&self) -> Vec<(Pid, String)> {
        let mark = self.scratch.join("shared").display().to_string();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let arguments = |number: &i32| std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        numbers
            .map(|number| (number, String::from_utf8_lossy(&arguments(&number)).into_owned()))
            .filter(|(_, arguments)| arguments.contains(&mark))
            .map(|(number, arguments)| (Pid::from_raw(number), arguments))
            .collect()
    }

    fn kill_primary(&self) {
        let processes = self.processes();
        let is_primary = |arguments: &str| arguments.split('\0').nth(1) == Some("primary");
        let found = processes.iter().find(|(_, arguments)| is_primary(arguments));
        kill(found.unwrap().0, Signal::SIGKILL).unwrap();
    }

    fn type_in(&self, bytes: &[u8]) {
        assert_eq!(nix::unistd::write(&self.terminal.master, bytes), Ok(bytes.len()));
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Those in the background do not end with the shell.
        for (process, _) in self.processes() {
            let _ = kill(process, Signal::SIGKILL);
        }
    }
}

#[test]
fn a_pair_in_the_background_is_protected_and_follows_its_shell() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut shell = Shell::start("stty tostop; PRIMARY & BACKUP & read -r line; fg %1; exit $?");
    shell.wait_for("primary", "protected");
    shell.wait_for("backup", "protected");
    shell.assert_left_alone();
    shell.type_in(b"go on\n");
    shell.wait_for_terminal(true);
    shell.type_in(CTRL_C);
    let _ = shell.process.wait().expect_code(0);
    // The backup goes live, and its shell has ended: the terminal is not its own.
    shell.wait_for_report("backup", "live");
    shell.assert_left_alone();
}

#[test]
fn a_stopped_replica_has_put_the_terminal_back() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut shell = Shell::start("PRIMARY\nread -r line; fg %1; exit $?");
    shell.wait_for("primary", "listening");
    shell.wait_for_terminal(true);
    shell.type_in(CTRL_Z);
    shell.wait_for_terminal(false);
    shell.type_in(b"go on\n");
    shell.wait_for_terminal(true);
    shell.type_in(CTRL_C);
    let _ = shell.process.wait().expect_code(0);
    shell.assert_left_alone();
}

#[test]
fn a_backup_takes_its_terminal_when_it_goes_live() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut shell = Shell::start("PRIMARY & BACKUP; exit $?");
    shell.wait_for("backup", "protected");
    shell.assert_left_alone();
    shell.kill_primary();
    shell.wait_for("backup", "live");
    shell.wait_for_terminal(true);
    shell.type_in(CTRL_C);
    let _ = shell.process.wait().expect_code(0);
    shell.assert_left_alone();
}

/// Runs `command` in a shell on a terminal, which ends with the status of the job once that has
/// stopped: at the first `exit` a shell may warn of a job that it takes for stopped still.
fn until_it_stops(command: &Command, messages: &Path) -> Shell {
    let (command, messages) = (quoted(command), messages.display());
    Shell::start(&format!(
        "{command} 2>'{messages}'; s=$?; kill -KILL %1; exit $s; exit $s"
    ))
}

/// Status of a shell for a job that SIGTSTP has stopped.
const STOPPED: i32 = 128 + Signal::SIGTSTP as i32;

#[test]
fn a_machine_that_waits_for_its_switch_can_be_stopped() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let mut command = lockstep();
    command.arg("run").arg(Guest::KeyValue.image());
    command.arg(format!("--network=switch:{}", scratch.join("nobody").display()));
    let mut shell = until_it_stops(&command, &scratch.join("messages"));
    shell.wait_for_terminal(true);
    shell.type_in(CTRL_Z);
    let _ = shell.process.wait().expect_code(STOPPED);
    shell.assert_left_alone();
}

#[test]
fn a_verification_of_a_log_can_be_stopped() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let (log, messages) = (scratch.join("log"), scratch.join("messages"));
    let on_log = |verb: &str| {
        let mut command = lockstep();
        command.arg(verb).arg(Guest::Compute.image());
        command
            .args(["--command-line", "megarounds=1", "--log"])
            .arg(&log);
        command
    };
    let _ = run(&mut on_log("record")).expect_code(0);
    let mut verify = on_log("verify");
    verify.arg("--runs=1000000");
    let mut shell = until_it_stops(&verify, &messages);
    let goes_on = || {
        let said = std::fs::read_to_string(&messages).unwrap_or_default();
        said.contains("replayed without divergence").then_some(())
    };
    wait_until(goes_on, || "a replay".to_owned());
    shell.type_in(CTRL_Z);
    let _ = shell.process.wait().expect_code(STOPPED);
}
