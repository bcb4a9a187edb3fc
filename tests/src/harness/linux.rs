//! Debian guests of `guest-images/debian`: a kernel, and an initrd for what it runs.

use super::busy::Beside;
use super::images::folder;
use super::process::run;
use super::{Ended, PATIENCE, Process, Scratch, kvm, lockstep};
use lockstep_logging_channel::{Body, LogReader};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Folder of the clients, and of their dynamic loader and libraries, below that of the guests.
const CLIENTS: &str = "clients";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "lib/x86_64-linux-gnu";

/// Line by which every one of them ends, with the status of what it ran.
pub const ENDED: &str = "guest: ended with status";

/// Time that one may take to boot, do what it is for, and end: all of Debian takes some minutes in
/// an emulator of a busy machine.
pub const LONG: Duration = PATIENCE.saturating_mul(2);

/// Text for the kernel that has it say little: every byte on the console is an exit.
pub const QUIET: &str = "quiet";

/// Property of a host that such a guest needs, as the doctor names it.
const NEEDED: &str = "kernel_instructions.ring0";

/// An initrd of `guest-images/debian/build`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linux {
    /// busybox: a shell, or what the command line says.
    Shell,
    /// The same with Debian 11's kernel.
    Shell11,
    /// With Debian 13's.
    Shell13,
    /// With that of what becomes Debian 14.
    Shell14,
    /// A small Debian with systemd.
    Systemd,
    /// Debian's redis-server.
    Redis,
    /// Programs that compute: openssl, xz, python3.
    Computing,
    /// The programs of both, in a mixed load that goes on until it is stopped.
    Mixed,
    /// Debian's nginx, and a file that it serves.
    Nginx,
    /// Debian's dropbear, which lets anybody in.
    Ssh,
    /// Debian's PostgreSQL, with a database in a tmpfs.
    Postgresql,
}

impl Linux {
    /// True if it and its kernel have been built.
    #[must_use]
    pub fn is_built(self) -> bool {
        self.initrd().is_file() && file("vmlinuz").is_file()
    }

    fn initrd(self) -> PathBuf {
        file(match self {
            Self::Shell => "shell.initrd",
            Self::Shell11 => "shell-11.initrd",
            Self::Shell13 => "shell-13.initrd",
            Self::Shell14 => "shell-14.initrd",
            Self::Systemd => "systemd.initrd",
            Self::Redis => "redis.initrd",
            Self::Computing => "computing.initrd",
            Self::Mixed => "mixed.initrd",
            Self::Nginx => "nginx.initrd",
            Self::Ssh => "ssh.initrd",
            Self::Postgresql => "postgresql.initrd",
        })
    }

    /// Memory that it gets, in MiB.
    #[must_use]
    pub fn memory_mib(self) -> &'static str {
        match self {
            Self::Postgresql => "384",
            Self::Systemd => "512",
            _ => "256",
        }
    }

    /// TCP port of what it serves.
    ///
    /// # Panics
    /// It serves nothing.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Redis | Self::Mixed => 6379,
            Self::Nginx => 80,
            Self::Ssh => 22,
            Self::Postgresql => 5432,
            Self::Shell | Self::Shell11 | Self::Shell13 | Self::Shell14 | Self::Systemd | Self::Computing => {
                panic!("{self:?} serves nothing")
            }
        }
    }

    /// Arguments that name it on Lockstep's command line, where another guest has its image.
    #[must_use]
    pub fn arguments(self) -> Vec<OsString> {
        let kernel = file(match self {
            Self::Shell11 => "vmlinuz-11",
            Self::Shell13 => "vmlinuz-13",
            Self::Shell14 => "vmlinuz-14",
            _ => "vmlinuz",
        });
        vec![
            "--kernel".into(),
            kernel.into(),
            "--initrd".into(),
            self.initrd().into(),
        ]
    }

    /// The command `verb` for it, with this text for its kernel.
    #[must_use]
    pub fn command(self, verb: &str, command_line: &str) -> Command {
        self.command_with(verb, self.memory_mib(), command_line)
    }

    /// The same with so much memory, in MiB.
    #[must_use]
    pub fn command_with(self, verb: &str, memory_mib: &str, command_line: &str) -> Command {
        let mut command = lockstep();
        command.arg(verb).args(self.arguments());
        command.args(["--memory-mib", memory_mib]);
        command.arg(format!("--command-line={QUIET} {command_line}"));
        command
    }

    /// Text for the kernel that has the guest run `program` for a shell and end.
    #[must_use]
    pub fn running(program: &str) -> String {
        format!("lockstep.run=\"{program}\"")
    }
}

/// Records the guest while it runs `program`, and replays it; gives what was recorded.
///
/// # Panics
/// It fails, or its replay is another.
#[must_use]
pub fn record_and_replay(guest: Linux, memory_mib: &str, program: &str) -> Ended {
    record_and_replay_told(guest, memory_mib, &Linux::running(program))
}

/// The same with this text for its kernel.
///
/// # Panics
/// It fails, or its replay is another.
#[must_use]
pub fn record_and_replay_told(guest: Linux, memory_mib: &str, command_line: &str) -> Ended {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    record_and_replay_in(&log, guest, memory_mib, command_line, &[], &[Beside::Nothing])
}

/// The same with digests each `digest_interval_exits` exits, and a replay beside each of `loads`.
///
/// # Panics
/// It fails, a replay is another, or the log has too few digests.
#[must_use]
pub fn record_and_replay_beside(
    guest: Linux,
    memory_mib: &str,
    program: &str,
    digest_interval_exits: u64,
    loads: &[Beside],
) -> Ended {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let interval = format!("--digest-interval-exits={digest_interval_exits}");
    let command_line = Linux::running(program);
    let recorded = record_and_replay_in(&log, guest, memory_mib, &command_line, &[&interval], loads);
    let (mut exits, mut digests) = (0, 0);
    for entry in LogReader::open(&log).unwrap() {
        let entry = entry.unwrap();
        exits = entry.point.exits;
        digests += u64::from(matches!(entry.body, Body::Digests(_)));
    }
    // One that is due within an instruction is taken behind it, and may be another's, too.
    let due = exits / digest_interval_exits;
    assert!(digests > due / 10 * 9, "{digests} digests of {due}");
    recorded
}

fn record_and_replay_in(
    log: &Path,
    guest: Linux,
    memory_mib: &str,
    command_line: &str,
    options: &[&str],
    loads: &[Beside],
) -> Ended {
    let machine = |verb: &str| {
        let mut command = guest.command_with(verb, memory_mib, command_line);
        command.arg("--log").arg(log).args(options);
        let mut process = Process::start(verb, &mut command);
        process.wait_within(LONG).expect_code(0)
    };
    let recorded = machine("record");
    for load in loads {
        let busy = load.start();
        let replayed = machine("replay");
        drop(busy);
        replayed.expect_named(&["the replay equals the log"]);
        assert_eq!(replayed.stdout, recorded.stdout, "beside {load:?}");
    }
    recorded
}

/// A program of Debian's that talks to one of them, from outside.
///
/// # Panics
/// It has not been built.
#[must_use]
pub fn client(name: &str) -> Command {
    let clients = file(CLIENTS);
    let places = ["usr/bin", "sbin", "usr/lib/postgresql/15/bin"];
    let program = places.map(|place| clients.join(place).join(name));
    let program = program.into_iter().find(|program| program.is_file());
    let mut command = Command::new(clients.join(LOADER));
    command.arg("--library-path").arg(clients.join(LIBRARIES));
    command.arg(program.unwrap_or_else(|| panic!("no {name} in {}", clients.display())));
    command
}

pub(super) fn file(name: &str) -> PathBuf {
    folder().join("debian").join(name)
}

/// True if this host can run them and they have been built. Otherwise the current test is skipped,
/// and what is missing is named.
#[must_use]
pub fn offered() -> bool {
    // What is needed is not looked for where nothing may be skipped: a start that fails names it.
    if std::env::var_os(kvm::NO_SKIP_VARIABLE).is_some() {
        return true;
    }
    if !file("vmlinuz").is_file() {
        kvm::skip("there is no Debian guest: `make guests-debian` builds them");
        return false;
    }
    kernels_offered()
}

/// True if this host can run a kernel in ring 0. Otherwise the current test is skipped, and what is
/// missing is named.
#[must_use]
pub fn kernels_offered() -> bool {
    if let Some(seen) = lacking() {
        kvm::skip(&format!(
            "this host cannot run a kernel in ring 0 ({seen}); `make lab-linux` does"
        ));
    }
    runs_kernels()
}

/// True if this host can run a kernel in ring 0, or nothing may be skipped.
#[must_use]
pub fn runs_kernels() -> bool {
    lacking().is_none()
}

/// The behaviour of this host in place of running a kernel in ring 0, where it cannot.
#[must_use]
pub fn lacking() -> Option<&'static String> {
    // What is needed is not looked for where nothing may be skipped: a start that fails names it.
    if std::env::var_os(kvm::NO_SKIP_VARIABLE).is_some() {
        return None;
    }
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING.get_or_init(missing).as_ref()
}

/// Finding of the doctor where the needed property is missing.
fn missing() -> Option<String> {
    let ended = run(lockstep().args(["doctor", "--quick", "--json"]));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|why| panic!("{why}: {ended}"));
    let mut findings = report["findings"].as_array().into_iter().flatten();
    let found = findings.find(|finding| finding["property"] == NEEDED);
    let found = found.unwrap_or_else(|| panic!("the doctor does not know {NEEDED}: {ended}"));
    (found["judgement"] != "yes").then(|| found["seen"].as_str().unwrap_or_default().to_owned())
}
