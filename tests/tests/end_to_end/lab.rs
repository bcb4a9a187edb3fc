//! The lab's script from outside, with a QEMU that is a few lines of shell: what it does when something is missing, how a status and an
//! output come out, and that nothing stays. With the real one it is `make lab-test`.

use lockstep_tests::harness::process::{Process, run};
use lockstep_tests::harness::{Scratch, wait_until};
use nix::sys::signal::Signal;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/lab/lab");
const HOST: i32 = 4;
/// Everything ordinary that the script uses.
const TOOLS: [&str; 32] = [
    "awk", "bash", "cat", "chmod", "cp", "dirname", "env", "find", "grep", "head", "id", "ln", "ls", "mkdir",
    "mkfifo", "mktemp", "mv", "paste", "realpath", "rm", "rustc", "sed", "setpriv", "sh", "sleep", "sort",
    "stty", "tail", "tee", "timeout", "tr", "wc",
];

/// A machine that has the script's ordinary tools, and of the rest what a test puts there.
struct Host {
    scratch: Scratch,
    programs: PathBuf,
    cache: PathBuf,
}

fn found(tool: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .map(|folder| folder.join(tool))
        .find(|path| path.is_file())
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (programs, cache) = (scratch.directory("bin"), scratch.directory("cache"));
        for tool in TOOLS {
            if let Some(path) = found(tool) {
                symlink(path, programs.join(tool)).unwrap();
            }
        }
        // The compiler of a toolchain manager is known by its name, and finds its own linker.
        let linker = found("cc").expect("a C compiler, which Rust links with");
        symlink(linker, programs.join("cc")).unwrap();
        for part in ["ld", "as", "gcc"] {
            if let Some(path) = found(part) {
                symlink(path, programs.join(part)).unwrap();
            }
        }
        Self {
            scratch,
            programs,
            cache,
        }
    }

    /// With a program of this name that does this.
    fn with(self, name: &str, script: &str) -> Self {
        // One of the ordinary tools is a link to the system's own.
        let _ = std::fs::remove_file(self.programs.join(name));
        write_script(&self.programs.join(name), script);
        self
    }

    /// With a kernel and a busybox that only look like them.
    fn with_packages(self) -> Self {
        let modules = self.cache.join("kernel/lib/modules/0");
        std::fs::create_dir_all(&modules).unwrap();
        std::fs::create_dir_all(self.cache.join("kernel/boot")).unwrap();
        std::fs::create_dir_all(self.cache.join("busybox/bin")).unwrap();
        std::fs::write(self.cache.join("kernel/boot/vmlinuz-0"), "").unwrap();
        for module in [
            "irqbypass",
            "kvm",
            "kvm-amd",
            "tun",
            "llc",
            "stp",
            "bridge",
            "veth",
        ] {
            std::fs::write(modules.join(format!("{module}.ko")), "").unwrap();
        }
        write_script(&self.cache.join("busybox/bin/busybox"), "cat >/dev/null");
        self
    }

    fn lab(&self, words: &[&str]) -> Command {
        let mut command = Command::new(SCRIPT);
        command
            .args(words)
            .env("PATH", &self.programs)
            .env("LAB_CACHE", &self.cache);
        command
    }

    fn leftovers(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.cache).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name != "kernel" && name != "busybox")
            .collect()
    }
}

fn write_script(path: &Path, script: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// A QEMU that takes the files of its serial ports from its arguments, as `$console`, `$out`, `$err` and `$status`.
fn emulator(then: &str) -> String {
    format!(
        "for word; do
             case $word in file:*) ports=\"$ports ${{word#file:}}\" ;; esac
         done
         set -- $ports
         console=$1 out=$2 err=$3 status=$4
         {then}"
    )
}

#[test]
fn what_is_missing_and_cannot_be_installed_is_named_with_its_command() {
    let absent = |host: Host, named: &[&str]| {
        let ended = run(&mut host.lab(&["setup"])).expect_code(HOST);
        ended.expect_named(named);
        assert_eq!(ended.stdout, "", "{ended}");
        assert_eq!(host.leftovers(), Vec::<String>::new(), "{ended}");
    };
    let nothing = "exit 100";
    let qemu = ["qemu-system-x86_64 is missing", "apt-get install"];
    absent(Host::new(), &qemu);
    absent(Host::new().with("apt-get", nothing), &qemu);
    let with_qemu = || Host::new().with("qemu-system-x86_64", "");
    absent(with_qemu(), &["busybox-static", "docker run"]);
    absent(
        with_qemu().with("apt-get", nothing),
        &["busybox-static", "apt-get update"],
    );
    let with_busybox = || {
        let host = with_qemu().with_packages();
        std::fs::remove_dir_all(host.cache.join("kernel")).unwrap();
        host
    };
    absent(with_busybox(), &["linux-image-cloud-amd64", "docker run"]);
    let knows_nothing = with_busybox().with("apt-get", nothing).with("apt-cache", "");
    absent(knows_nothing, &["linux-image-cloud-amd64", "apt-get update"]);
}

#[test]
fn both_outputs_and_the_status_come_out() {
    let says = emulator("echo out >$out; echo err >$err; echo exit=7 >$status");
    let host = Host::new().with_packages().with("qemu-system-x86_64", &says);
    let ended = run(&mut host.lab(&["run", "probe"])).expect_code(7);
    assert_eq!(ended.stdout, "out\n", "{ended}");
    ended.expect_named(&["err\n"]);
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn output_comes_while_the_command_still_runs() {
    let waits = emulator(
        "echo first >$out; while [ ! -e \"$GO_ON\" ]; do sleep 0.01; done; echo second >$out; echo exit=0 >$status",
    );
    let host = Host::new().with_packages().with("qemu-system-x86_64", &waits);
    let go_on = host.scratch.join("go-on");
    let mut lab = Process::start("lab", host.lab(&["run", "probe"]).env("GO_ON", &go_on));
    let said = lab.wait_for_stdout("first\n");
    assert_eq!(said, "first\n", "the rest has to wait");
    std::fs::write(&go_on, "").unwrap();
    assert_eq!(lab.wait().expect_code(0).stdout, "first\nsecond\n");
}

#[test]
fn a_virtual_machine_that_dies_is_not_taken_for_a_success() {
    let dies = emulator("echo 'Kernel panic' >$console; exit 0");
    let host = Host::new().with_packages().with("qemu-system-x86_64", &dies);
    let ended = run(&mut host.lab(&["run", "probe"])).expect_code(125);
    ended.expect_named(&["Kernel panic", "without a word"]);
}

/// A QEMU that never ends and leaves its number, and that of a child, where the test finds them.
fn endless(host: &Host) -> (Command, PathBuf) {
    let numbers = host.scratch.join("numbers");
    let mut command = host.lab(&["run", "probe"]);
    command.env("NUMBERS", &numbers);
    (command, numbers)
}

const ENDLESS: &str = "sleep 1000 & echo $$ $! >\"$NUMBERS.new\"; mv \"$NUMBERS.new\" \"$NUMBERS\"; wait";

fn expect_gone(numbers: &Path) {
    let text = std::fs::read_to_string(numbers).unwrap();
    for number in text.split_whitespace() {
        // A number that is taken by another process again has another command line.
        let line = format!("/proc/{number}/cmdline");
        wait_until(
            || {
                let words = std::fs::read_to_string(&line).unwrap_or_default();
                (!words.contains("sleep") && !words.contains("qemu")).then_some(())
            },
            || format!("the end of process {number}"),
        );
    }
}

#[test]
fn what_does_not_end_is_stopped_at_the_bound() {
    let host = Host::new().with_packages().with("qemu-system-x86_64", ENDLESS);
    let (mut command, numbers) = endless(&host);
    let ended = run(command.env("LAB_TIMEOUT", "1")).expect_code(124);
    ended.expect_named(&["LAB_TIMEOUT"]);
    expect_gone(&numbers);
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

/// Ends the script on `host` by `signal` once its machine, which never ends, has begun: nothing stays.
fn expect_nothing_stays(host: &Host, signal: Signal) {
    let (mut command, numbers) = endless(host);
    let mut lab = Process::start("lab", &mut command);
    wait_until(
        || numbers.exists().then_some(()),
        || "a virtual machine".to_owned(),
    );
    lab.signal(signal);
    let ended = lab.wait();
    assert!(!ended.status.success(), "{ended}");
    expect_gone(&numbers);
}

#[test]
fn nothing_stays_when_the_script_is_killed() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let host = Host::new().with_packages().with("qemu-system-x86_64", ENDLESS);
        expect_nothing_stays(&host, signal);
    }
}

#[test]
fn a_machine_ends_with_a_bound_that_does_not_know_it_yet() {
    // As timeout(1) is between its fork and its next step.
    let bound = "while [ \"$1\" != setpriv ]; do shift; done; trap 'exit 143' TERM; \"$@\" & wait";
    let machine = "echo $$ >\"$NUMBERS.new\"; mv \"$NUMBERS.new\" \"$NUMBERS\"; exec sleep 1000";
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let host = Host::new()
            .with_packages()
            .with("timeout", bound)
            .with("qemu-system-x86_64", machine);
        expect_nothing_stays(&host, signal);
    }
}

#[test]
fn a_machine_that_stands_still_is_ended_and_booted_once_more() {
    // The first stands still; the second writes what a machine writes.
    let then = "if [ -e $console.first ]; then echo here >$out; echo exit=3 >$status
         else : >$console.first; : >$out; : >$err; exec sleep 600; fi";
    let host = Host::new()
        .with_packages()
        .with("qemu-system-x86_64", &emulator(then));
    let mut lab = host.lab(&["run", "probe"]);
    let ended = run(lab.env("LAB_STILL", "3")).expect_code(3);
    assert_eq!(ended.stdout, "here\n", "{ended}");
    ended.expect_named(&["stood still for 3 s", "booting again"]);
}

#[test]
fn a_subshell_that_is_ended_with_the_traps_of_the_lab_removes_nothing() {
    let scratch = Scratch::new();
    let folder = scratch.directory("run");
    // Nearly each that is killed as it begins runs the traps of the script that began it.
    let script = "eval \"$(sed -n '/^leave_nothing() {/,/^}/p' \"$1\")\"
        run_folder=$2 child='' readers=()
        trap leave_nothing EXIT
        trap 'exit 143' TERM
        for ((i = 0; i < 50; i++)); do
            while sleep 1; do :; done &
            kill $!
            wait $!
        done
        [[ -d $run_folder ]] && echo kept";
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash", SCRIPT]).arg(&folder);
    let ended = run(&mut command).expect_code(0);
    assert_eq!(ended.stdout, "kept\n", "{ended}");
    assert!(!folder.exists(), "the script itself leaves nothing");
}

#[test]
fn an_unknown_test_is_named_with_those_there_are() {
    let ended = run(&mut Host::new().lab(&["test", "no-such-test"])).expect_code(2);
    ended.expect_named(&["no-such-test", "probe", "failover"]);
}
