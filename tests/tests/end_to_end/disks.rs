//! Disks of machines that run alone: run, recorded, replayed; images that cannot be used, and hosts
//! that cannot write.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Ended, Guest, Process, Replica, Scratch, kvm, lockstep, namespace, wait_until,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Load that ends, and that a second run on the same image checks first.
const LOAD: &str = "seed=7 requests=400 area_kib=512";
/// The same without an end.
const SAME_ENDLESS: &str = "seed=7 requests=0 area_kib=512 report=100";

/// A raw image in `scratch` that was never written.
pub fn image(scratch: &Scratch, name: &str, size_bytes: u64) -> PathBuf {
    let path = scratch.join(name);
    File::create(&path).unwrap().set_len(size_bytes).unwrap();
    path
}

/// A side of the machine `disks` that runs `load` on `disk`, with a report of this name.
pub fn replica(scratch: &Scratch, load: &str, disk: &str, report: &str) -> Command {
    let mut command = lockstep();
    command
        .arg("replica")
        .arg(Guest::Disk.image())
        .args(["--name=disks", "--timeout-ms=4000", "--lag-ms-max=60000"])
        .args(["--command-line", load])
        .arg("--shared-directory")
        .arg(scratch.join("shared"))
        .args(["--disk", disk])
        .arg("--report")
        .arg(scratch.join(&format!("{report}.jsonl")));
    command
}

/// Waits until the guest has printed another line.
pub fn wait_for_more(replica: &Replica) {
    let lines = || replica.process.stdout().lines().count();
    let before = lines();
    wait_until(
        || (lines() > before).then_some(()),
        || format!("more of the guest: {}", replica.account()),
    );
}

fn command(verb: &str, disks: &[String]) -> Command {
    let mut command = lockstep();
    command
        .arg(verb)
        .arg(Guest::Disk.image())
        .args(["--command-line", LOAD]);
    for disk in disks {
        command.args(["--disk", disk]);
    }
    command
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn what_a_guest_writes_and_flushes_is_there_when_it_begins_again() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let one = image(&scratch, "one.img", 4 << 20);
    let other = image(&scratch, "other.img", 8 << 20);
    let disks = [text(&one), format!("{},serial=second,block=4096", text(&other))];
    let ended = run(&mut command("run", &disks)).expect_code(0);
    ended.expect_named(&["disk 0 is", "disk 1 is"]);
    assert!(bytes(&one).iter().any(|byte| *byte != 0));
    assert!(bytes(&other).iter().any(|byte| *byte != 0));
    let _ = run(&mut command("run", &disks)).expect_code(0);
}

#[test]
fn an_image_that_another_machine_writes_is_refused() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let disk = [text(&image(&scratch, "disk.img", 4 << 20))];
    let mut endless = lockstep();
    endless
        .arg("run")
        .arg(Guest::Disk.image())
        .args(["--command-line", SAME_ENDLESS, "--disk", &disk[0]]);
    let mut first = Process::start("first", &mut endless);
    // It has written, so a guest of another load would not take the disk for its own.
    first.wait_for_stdout("100 requests");
    let second = run(&mut command("run", &disk)).expect_code(3);
    second.expect_named(&["disk.img"]);
    first.signal(nix::sys::signal::Signal::SIGTERM);
    let _ = first.wait().expect_code(0);
    let _ = run(&mut command("run", &disk)).expect_code(0);
}

#[test]
fn a_guest_whose_image_is_moved_away_waits_until_it_is_put_back() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let path = image(&scratch, "disk.img", 4 << 20);
    let mut endless = lockstep();
    endless
        .arg("run")
        .arg(Guest::Disk.image())
        .args(["--command-line", "requests=0 report=100", "--disk"])
        .arg(&path);
    let mut machine = Process::start("machine", &mut endless);
    machine.wait_for_stdout("100 requests");
    std::fs::rename(&path, scratch.join("elsewhere")).unwrap();
    machine.wait_for_stderr("its file is gone");
    std::fs::rename(scratch.join("elsewhere"), &path).unwrap();
    machine.wait_for_stderr("works again");
    machine.signal(nix::sys::signal::Signal::SIGTERM);
    let _ = machine.wait().expect_code(0);
}

#[test]
fn images_that_cannot_be_used_are_refused_by_name() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let missing = scratch.text("missing.img");
    let odd = scratch.write("odd.img", [0; 1000]);
    for (disk, named) in [
        (missing, "missing.img"),
        (text(&odd), "odd.img"),
        (text(scratch.path()), "lockstep-"),
        ("a.img,wrong".to_owned(), "`wrong`"),
    ] {
        let ended = run(&mut command("run", &[disk])).expect_code(3);
        ended.expect_named(&[named]);
    }
}

#[test]
fn a_recording_leaves_its_base_alone_and_is_replayed_over_it() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let base = image(&scratch, "base.img", 4 << 20);
    let _ = run(&mut command("run", &[text(&base)])).expect_code(0);
    let before = bytes(&base);
    let disks = [text(&base)];
    let log = scratch.text("log");
    let recorded = run(command("record", &disks).args(["--log", &log])).expect_code(0);
    assert!(bytes(&base) == before, "a recording does not write to its base");
    assert!(scratch.join("log.disk0").is_file());
    let replayed = run(command("replay", &disks).args(["--log", &log])).expect_code(0);
    replayed.expect_named(&["the replay equals the log"]);
    assert_eq!(replayed.stdout, recorded.stdout);
    let _ = run(command("verify", &disks).args(["--log", &log])).expect_code(0);
    assert!(bytes(&base) == before, "nor does a replay");

    let mut other = before.clone();
    other[1 << 20] ^= 1;
    let other = [text(&scratch.write("other.img", other))];
    let refused = run(command("replay", &other).args(["--log", &log])).expect_code(43);
    refused.expect_named(&["disks differs"]);
    let without = run(command("replay", &[]).args(["--log", &log])).expect_code(43);
    without.expect_named(&["disks differs"]);
    let again = run(command("record", &disks).args(["--log", &log])).expect_code(3);
    again.expect_named(&["--overwrite"]);
    let _ = run(command("record", &disks).args(["--log", &log, "--overwrite"])).expect_code(0);
}

/// Runs `script` on a disk of so many bytes, in a mount namespace of its own. `$0` is the command,
/// `$1` the guest, `$2` its command line, `$3` its disk.
fn on_small_disk(kib: u64, script: &str, disk: &str) -> Ended {
    let script = format!("mount -t tmpfs -o size={kib}k lockstep /mnt && cd /mnt || exit 125\n{script}");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg(lockstep().get_program())
        .arg(Guest::Disk.image())
        .args([LOAD, disk]);
    run(&mut command)
}

#[test]
fn a_guest_whose_image_a_full_disk_takes_no_more_of_waits_and_goes_on_when_there_is_room() {
    let Some(_kvm) = kvm::shared() else { return };
    if !namespace::offered() {
        return;
    }
    let script = "truncate -s 4M disk.img && head -c 900K /dev/zero >ballast\n\
                  \"$0\" run \"$1\" --command-line \"$2\" --disk \"$3\" 2>said &\n\
                  machine=$!\n\
                  until grep -q 'No space left' said || ! kill -0 $machine; do :; done\n\
                  rm ballast\n\
                  wait $machine; status=$?\n\
                  cat said >&2\n\
                  exit $status";
    for (disk, by) in [
        ("disk.img,aio=io_uring", "io_uring carries its requests out"),
        ("disk.img,aio=threads", "4 threads carry its requests out"),
    ] {
        let ended = on_small_disk(1024, script, disk).expect_code(0);
        ended.expect_named(&[by, "cannot write", "tried again each second", "works again"]);
        assert_eq!(ended.stderr.matches("No space left").count(), 1, "{ended}");
    }
}

/// Ends of commands that run where io_uring is refused, by a filter of system calls.
fn without_io_uring(commands: Vec<Command>) -> Vec<Ended> {
    let filtered = move || {
        let rules = [(nix::libc::SYS_io_uring_setup, Vec::new())].into();
        let refuse = SeccompAction::Errno(nix::libc::EPERM as u32);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        apply_filter(&program).unwrap();
        commands
            .into_iter()
            .map(|mut command| run(&mut command))
            .collect()
    };
    // The filter is for this thread, and for the processes that it starts.
    std::thread::spawn(filtered).join().unwrap()
}

#[test]
fn without_io_uring_threads_carry_requests_out_unless_it_was_asked_for() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let path = text(&image(&scratch, "disk.img", 4 << 20));
    let disks = [path.clone(), format!("{path},aio=io_uring")];
    let commands = disks.map(|disk| command("run", &[disk])).into();
    let mut ended = without_io_uring(commands).into_iter();
    let fallen_back = ended.next().unwrap().expect_code(0);
    fallen_back.expect_named(&["4 threads carry its requests out", "(seccomp) refuses io_uring"]);
    let refused = ended.next().unwrap().expect_code(4);
    refused.expect_named(&[
        "disk.img",
        "io_uring cannot carry its requests out",
        "aio=threads",
    ]);
}
