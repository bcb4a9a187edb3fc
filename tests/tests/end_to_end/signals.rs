//! SIGTERM, SIGINT and SIGHUP end a command in every state: while it measures, while it waits in a
//! system call that does not return, and with everything it has started.

use super::disks::image;
use lockstep_tests::fuzz::mutate::Random;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Guest, PairSpec, Process, Scratch, Trouble, TroubledStorage, kvm, lockstep, wait_until,
};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// One side of a pair whose report is on storage that hangs: opening it does not return.
fn inside_an_open(role: &str, scratch: &Scratch) -> Option<Command> {
    let storage = TroubledStorage::build(scratch)?;
    storage.begin(Trouble::Hang);
    let (shared, away) = (scratch.directory("shared"), scratch.directory("away"));
    let channel = format!("unix:{}", scratch.join("channel").display());
    let mut command = PairSpec::new(Guest::Smoke).command(role, &channel, &shared, &away.join("report"));
    command.arg("-v").envs(storage.variables(&away));
    Some(command)
}

#[test]
fn a_system_call_that_does_not_return_keeps_no_command() {
    let Some(_kvm) = kvm::shared() else { return };
    for signal in SIGNALS {
        for role in ["primary", "backup"] {
            let scratch = Scratch::new();
            let Some(mut command) = inside_an_open(role, &scratch) else {
                return;
            };
            let mut side = Process::start(role, &mut command);
            // The last message before the report is opened.
            side.wait_for_stderr("events enter");
            side.signal(signal);
            let _ = side.wait().expect_code(0);
            assert!(!scratch.names().contains(&"channel".to_owned()));
        }
    }
}

#[test]
fn what_is_ended_in_a_system_call_puts_the_terminal_back() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let Some(storage) = TroubledStorage::build(&scratch) else {
        return;
    };
    let away = scratch.directory("away");
    let terminal = openpty(None, None).unwrap();
    let flags = || tcgetattr(&terminal.slave).unwrap().local_flags;
    let mut command = lockstep();
    command.arg("record").arg(Guest::KeyValue.image());
    command.arg("--log").arg(away.join("log"));
    command.envs(storage.variables(&away));
    command.stdin(terminal.slave.try_clone().unwrap());
    let console = scratch.join("console");
    let mut record = command
        .stdout(std::fs::File::create(&console).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let runs = || {
        std::fs::read_to_string(&console)
            .unwrap()
            .contains("ready")
            .then_some(())
    };
    wait_until(runs, || "the guest's first words".to_owned());
    let is_taken = || (!flags().contains(LocalFlags::ICANON)).then_some(());
    wait_until(is_taken, || format!("the terminal taken: {:?}", flags()));
    // The log is synced in good order, which does not return.
    storage.begin(Trouble::Hang);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(record.id() as i32), Signal::SIGTERM).unwrap();
    let status = wait_until(|| record.try_wait().unwrap(), || "its end".to_owned());
    assert_eq!(status.code(), Some(1));
    assert!(
        flags().contains(LocalFlags::ICANON | LocalFlags::ECHO),
        "{:?}",
        flags()
    );
}

#[test]
fn a_stop_in_good_order_that_takes_long_can_be_ended_at_once() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let Some(storage) = TroubledStorage::build(&scratch) else {
        return;
    };
    let away = scratch.directory("away");
    let mut command = lockstep();
    command.arg("record").arg(Guest::KeyValue.image());
    command.arg("--log").arg(away.join("log"));
    // Its disks have some seconds more to finish.
    command.arg("--disk").arg(image(&scratch, "disk", 1 << 20));
    command.envs(storage.variables(&away));
    let mut record = Process::start("record", &mut command);
    record.wait_for_stdout("ready");
    storage.begin(Trouble::Hang);
    record.signal(Signal::SIGTERM);
    record.wait_for_stderr("SIGTERM: stopping");
    record.signal(Signal::SIGALRM);
    let ended = record.wait();
    assert_eq!(ended.status.signal(), Some(Signal::SIGALRM as i32), "{ended}");
}

#[test]
fn a_survey_of_the_host_is_given_up() {
    let Some(_kvm) = kvm::shared() else { return };
    for signal in SIGNALS {
        let mut doctor = Process::start(
            "doctor",
            lockstep().args(["doctor", "-v", "--length=10000000000"]),
        );
        doctor.wait_for_stderr("probing");
        doctor.signal(signal);
        let _ = doctor.wait().expect_code(1);
    }
}

#[test]
fn a_command_that_was_told_to_ignore_sighup_does() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    command
        .arg(lockstep().get_program())
        .arg("run")
        .arg(Guest::Compute.image());
    command.args(["--command-line", "megarounds=100000000"]);
    let mut running = Process::start("run", &mut command);
    running.wait_for_stdout("megarounds");
    running.signal(Signal::SIGHUP);
    running.signal(Signal::SIGTERM);
    let ended = running.wait().expect_code(0);
    assert!(!ended.stderr.contains("SIGHUP"), "{ended}");
}

#[test]
fn a_limit_on_files_is_an_error_of_the_log() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 1; exec \"$@\"", "sh"]);
    command
        .arg(lockstep().get_program())
        .arg("record")
        .arg(Guest::Entropy.image());
    run(command.arg("--log").arg(&log)).expect_code(3).expect_named(&[
        "cannot write log",
        &log.display().to_string(),
        "File too large",
    ]);
}

/// Numbers of the processes whose command line names `directory`.
fn processes_of(directory: &Path) -> Vec<String> {
    let name = directory.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names_it = |number: &String| {
        let command = std::fs::read_to_string(format!("/proc/{number}/cmdline")).unwrap_or_default();
        command.contains(&name)
    };
    numbers.filter(names_it).collect()
}

/// A demonstration in `scratch`.
fn demonstration_of(scratch: &Scratch, options: &[&str]) -> Process {
    let mut command = lockstep();
    command.args(["demo", "--timeout-ms", "2000"]).args(options);
    Process::start("demo", command.env("TMPDIR", scratch.path()))
}

/// A demonstration under load, in `scratch`.
fn demonstration(scratch: &Scratch) -> Process {
    let mut demo = demonstration_of(scratch, &["--kill", "none", "--duration", "600"]);
    demo.wait_for_stdout("nothing is lost");
    assert_eq!(processes_of(scratch.path()).len(), 3);
    demo
}

/// Ends a demonstration in good order, which leaves nothing.
fn expect_nothing_left(mut demo: Process, signal: Signal, scratch: &Scratch) {
    demo.signal(signal);
    demo.wait().expect_code(1).expect_named(&["stopped by a signal"]);
    assert_eq!(processes_of(scratch.path()), Vec::<String>::new());
    assert_eq!(scratch.names(), Vec::<String>::new());
}

#[test]
fn a_demonstration_that_is_ended_leaves_nothing() {
    let Some(_kvm) = kvm::alone() else { return };
    for signal in SIGNALS {
        let scratch = Scratch::new();
        let demo = demonstration(&scratch);
        expect_nothing_left(demo, signal, &scratch);
    }
}

#[test]
fn a_demonstration_that_is_ended_while_memory_is_copied_leaves_nothing() {
    let Some(_kvm) = kvm::alone() else { return };
    for signal in SIGNALS {
        let scratch = Scratch::new();
        let times = ["--after", "500ms", "--duration", "1"];
        let demo = demonstration_of(
            &scratch,
            &[&times[..], &["--rounds", "2", "--transfer-mbit", "1"]].concat(),
        );
        let report = || {
            let folder = scratch.names().into_iter().next()?;
            std::fs::read_to_string(scratch.join(&folder).join("replica-3.report")).ok()
        };
        let receives = || report().filter(|report| report.contains("\"receiving\""));
        let seen = wait_until(receives, || format!("a new backup: {}", demo.stdout()));
        assert!(!seen.contains("\"received\""), "the copy is over: {seen}");
        assert_eq!(processes_of(scratch.path()).len(), 3);
        expect_nothing_left(demo, signal, &scratch);
    }
}

/// True where no process holds the lock on this folder.
fn is_free(scratch: &Scratch, name: &str) -> bool {
    let folder = std::fs::File::open(scratch.join(name)).unwrap();
    folder.try_lock().is_ok()
}

/// A demonstration of rounds of a second each, and of more of them than there are seconds to the
/// latest moment.
const OF_A_SECOND: [&str; 6] = ["--after", "500ms", "--duration", "1", "--rounds", "20"];

/// Demonstrations killed at moments of their own.
const KILLED: u64 = 6;
/// The latest such moment: each starts in about a second, and its first round is over in two more.
const KILLED_MS_MAX: u64 = 4_000;

#[test]
fn a_demonstration_that_is_killed_leaves_no_process_and_its_folder_to_the_next() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let seed = Random::seed();
    println!("LOCKSTEP_SEED={seed}");
    let mut random = Random::new(seed);
    for _ in 0..KILLED {
        let mut demo = demonstration_of(&scratch, &OF_A_SECOND);
        std::thread::sleep(Duration::from_millis(random.number() % KILLED_MS_MAX));
        let _ = demo.kill();
        wait_until(
            || processes_of(scratch.path()).is_empty().then_some(()),
            || {
                format!(
                    "the end of {:?}, LOCKSTEP_SEED={seed}",
                    processes_of(scratch.path())
                )
            },
        );
    }
    // Under load for certain.
    let _ = demonstration(&scratch).kill();
    assert!(!scratch.names().is_empty(), "LOCKSTEP_SEED={seed}");
    // A process that ends has no command line any more before it has closed everything.
    wait_until(
        || {
            scratch
                .names()
                .iter()
                .all(|name| is_free(&scratch, name))
                .then_some(())
        },
        || {
            format!(
                "the end of everything in {:?}, LOCKSTEP_SEED={seed}",
                scratch.names()
            )
        },
    );
    let next = demonstration(&scratch);
    assert!(
        next.stderr().contains("its demonstration was killed"),
        "{}",
        next.stderr()
    );
    assert_eq!(scratch.names().len(), 1, "LOCKSTEP_SEED={seed}");
    expect_nothing_left(next, Signal::SIGTERM, &scratch);
}
