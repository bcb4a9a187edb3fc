//! An unmodified Debian kernel with Debian's own programs: it boots, and is recorded and replayed.
//! What it serves while it is protected is in `linux_redis` and beside it.
//!
//! The guests come from `make guests-debian`. Hosts whose KVM cannot run a kernel in ring 0 skip
//! these tests; `make lab-linux` runs them all.

use lockstep_tests::harness::linux::{self, ENDED, record_and_replay};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::terminal::{CTRL_A, CTRL_C, CTRL_Z, Keys, OnTerminal};
use lockstep_tests::harness::{Ended, Linux, Process, kvm};

/// Line with which busybox's shell begins.
const SHELL: &str = "built-in shell (ash)";
/// Status of what `timeout` has ended, by SIGTERM.
const TERMINATED: i32 = 128 + 15;
/// Digest (SHA-256) of 4 MiB of zeros.
const ZEROS: &str = "bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8";

/// Results that a guest has marked as such.
fn results(ended: &Ended) -> Vec<&str> {
    let lines = ended.stdout.lines();
    lines.filter(|line| line.starts_with("result: ")).collect()
}

fn expect_ended(ended: &Ended, status: i32) {
    assert!(ended.stdout.contains(&format!("{ENDED} {status}")), "{ended}");
}

/// Records the guest while it runs `program`, and replays it; gives what was recorded.
fn recorded_and_replayed(guest: Linux, program: &str) -> Ended {
    record_and_replay(guest, guest.memory_mib(), program)
}

#[test]
fn a_shell_answers_and_its_end_powers_the_machine_off() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let mut machine = Process::start("run", &mut Linux::Shell.command("run", ""));
    machine.wait_for_stdout(SHELL);
    machine.type_in("echo \"the sum is $((40 + 2))\"; uname -s\n");
    let said = machine.wait_for_stdout("the sum is 42");
    assert!(!said.contains(ENDED), "{said}");
    // A shell that ends drops what its terminal has not sent yet.
    machine.wait_for_stdout("Linux");
    machine.type_in("exit 3\n");
    let ended = machine.wait_with_input().expect_code(0);
    expect_ended(&ended, 3);
}

#[test]
fn keys_on_a_terminal_are_those_of_the_shell_in_the_guest() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let mut machine = OnTerminal::start(&Linux::Shell.command("run", ""));
    machine.wait_for(SHELL);
    machine.wait_until_it_has(Keys::Every);
    // Each says that it has begun, by what is not in the command itself.
    machine.type_in("sh -c 'echo first $((6 * 7)); exec sleep 1000'\r");
    machine.wait_for("first 42");
    machine.type_in(CTRL_C);
    machine.type_in("sh -c 'echo second $((6 * 8)); exec sleep 1000'\r");
    machine.wait_for("second 48");
    machine.type_in(CTRL_Z);
    machine.wait_for("Stopped");
    machine.type_in("echo third $((6 * 9)); fg\r");
    machine.wait_for("third 54");
    machine.type_in(CTRL_C);
    machine.resize(50, 132);
    machine.type_in(CTRL_A);
    machine.type_in("s");
    machine.type_in("stty size; exit 3\r");
    machine.wait_for("50 132");
    assert_eq!(machine.wait().code(), Some(0), "{}", machine.shown());
    machine.wait_for(&format!("{ENDED} 3"));
    assert!(machine.has(Keys::Lines));
}

#[test]
fn a_boot_and_what_computes_in_it_are_replayed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    // What has no end is ended by a timer, which has to enter where there is no exit.
    let program = "cat /proc/sys/kernel/random/uuid; date; ls /sys/bus/virtio/drivers; \
         timeout 1 sha256sum /dev/zero; echo no end: $?; truncate -s 4M /tmp/a; sha256sum /tmp/a";
    let recorded = recorded_and_replayed(Linux::Shell, program);
    for said in ["virtio_net", &format!("no end: {TERMINATED}"), ZEROS] {
        assert!(recorded.stdout.contains(said), "{said}: {recorded}");
    }
    expect_ended(&recorded, 0);
}

#[test]
fn an_alarm_comes_to_a_program_that_makes_no_exit_and_its_replay_is_equal() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let recorded = recorded_and_replayed(
        Linux::Computing,
        "openssl speed -seconds 1 -bytes 1024 sha256 2>&1",
    );
    let timed = "Doing sha256 for 1s on 1024 size blocks: ";
    assert!(recorded.stdout.contains(timed), "{recorded}");
    expect_ended(&recorded, 0);
}

#[test]
fn what_computes_computes_the_same_when_it_is_recorded() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    // How far `openssl speed` comes depends on the time; a derived key does not.
    let program = "cat /usr/lib/python3.*/os.py >/tmp/a; \
         { python3 -c 'print(sum(i * i for i in range(100000)))'; /usr/bin/xz -6 </tmp/a | sha256sum; \
         openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt iter:50000 \
         -kdfopt pass:a -kdfopt salt:b PBKDF2; } | sed -n 's/^./result: &/p'; \
         timeout 1 /usr/bin/xz -6 </dev/zero >/dev/null; echo xz: $?; \
         timeout 1 python3 -c 'while True: pass'; echo python: $?";
    let alone = run(&mut Linux::Computing.command("run", &Linux::running(program))).expect_code(0);
    let recorded = recorded_and_replayed(Linux::Computing, program);
    assert_eq!(results(&recorded), results(&alone), "{recorded}");
    assert_eq!(results(&recorded).len(), 3, "{recorded}");
    // The sum of the squares of 0 to 99,999.
    assert_eq!(results(&recorded)[0], "result: 333328333350000");
    for endless in ["xz", "python"] {
        let timed = format!("{endless}: {TERMINATED}");
        assert!(recorded.stdout.contains(&timed), "{timed}: {recorded}");
    }
    expect_ended(&recorded, 0);
}
