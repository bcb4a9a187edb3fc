//! Machines whose disk is full or fails: what they report, where they give way, and how they end.

use super::disks::{self, image, wait_for_more};
use super::web::expect_armed;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Guest, Process, Replica, Scratch, VolatileDisk, kvm, lockstep, namespace, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Load without an end, on more blocks than the small disk has room for beside its ballast.
const ENDLESS: &str = "seed=3 requests=0 area_kib=3072 report=200";
const SIZE_BYTES: u64 = 8 << 20;
/// The small disk: it has room for what the load writes, and not for the ballast with it.
const SMALL_KIB: u64 = 5 << 10;

/// What the sides share, and the image of the one whose disk is large.
struct Hosts {
    scratch: Scratch,
}

impl Hosts {
    fn new() -> Self {
        let scratch = Scratch::new();
        scratch.directory("shared");
        image(&scratch, "large.img", SIZE_BYTES);
        Self { scratch }
    }

    fn start(&self, command: &mut Command, report: &str) -> Replica {
        let path = self.scratch.join(&format!("{report}.jsonl"));
        Replica::start(report, command, path)
    }

    fn on_large(&self, report: &str) -> Replica {
        let disk = self.scratch.text("large.img");
        self.start(&mut disks::replica(&self.scratch, ENDLESS, &disk, report), report)
    }

    /// A side whose image is on a small disk, in a mount namespace of its own.
    fn on_small(&self, options: &str, report: &str) -> Replica {
        let script = format!(
            "mount -t tmpfs -o size={SMALL_KIB}k lockstep /mnt && truncate -s {SIZE_BYTES} /mnt/disk.img \
             && exec \"$0\" \"$@\""
        );
        let disk = format!("/mnt/disk.img{options}");
        let side = disks::replica(&self.scratch, ENDLESS, &disk, report);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(side.get_program())
            .args(side.get_args());
        for (name, value) in side.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        self.start(&mut command, report)
    }

    fn status(&self) -> Value {
        let mut command = lockstep();
        command
            .args(["status", "disks", "--json", "--shared-directory"])
            .arg(self.scratch.join("shared"));
        let ended = run(&mut command).expect_code(0);
        serde_json::from_str(&ended.stdout).unwrap()
    }
}

/// The file that fills the small disk of `replica`.
fn ballast(replica: &Replica) -> PathBuf {
    format!("/proc/{}/root/mnt/ballast", replica.process.id()).into()
}

/// Fills the small disk of `replica` until it reports `event`: its guest gives room back, too.
fn fill_until(replica: &Replica, event: &str) -> Value {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(ballast(replica))
        .unwrap();
    let bytes = [7; 4096];
    wait_until(
        || {
            while file.write_all(&bytes).is_ok() {}
            replica.event(event)
        },
        || format!("{event}: {}", replica.account()),
    )
}

fn can_run() -> bool {
    namespace::offered() && Guest::Disk.image().exists()
}

#[test]
fn an_error_of_the_host_is_reported_shown_and_waited_for_where_nobody_can_take_over() {
    let Some(_kvm) = kvm::alone() else { return };
    if !can_run() {
        return;
    }
    for aio in ["io_uring", "threads"] {
        let hosts = Hosts::new();
        let mut side = hosts.on_small(&format!(",aio={aio},on-error=give-way"), "side");
        side.wait_for("begun");
        wait_for_more(&side);
        let failed = fill_until(&side, "disk_failed");
        assert_eq!(failed["disk"], "disk 0 (/mnt/disk.img)");
        assert_eq!(failed["error"], "No space left on device (os error 28)");
        assert!(failed["request"].as_str().unwrap().contains(" bytes"), "{failed}");
        let shown = wait_until(
            || {
                let status = hosts.status();
                let disk = status["disks"][0].clone();
                (disk["failures"].as_u64() >= Some(2)).then_some(disk)
            },
            || format!("two failures in the status: {}", hosts.status()),
        );
        assert!(
            shown["error"].as_str().unwrap().contains("No space left"),
            "{shown}"
        );
        assert!(
            shown["since_unix_s"].as_u64() >= failed["since_unix_s"].as_u64(),
            "{shown}, {failed}"
        );
        std::fs::remove_file(ballast(&side)).unwrap();
        side.wait_for("disk_works");
        wait_for_more(&side);
        assert_eq!(side.event("gives_way"), None);
        let _ = side.stop().expect_code(0);
        assert!(side.summary()["disk_failures"].as_u64() >= Some(2));
    }
}

#[test]
fn a_primary_that_gives_way_hands_its_machine_over() {
    let Some(_kvm) = kvm::alone() else { return };
    if !can_run() {
        return;
    }
    let hosts = Hosts::new();
    let mut holder = hosts.on_small(",on-error=give-way", "small");
    holder.wait_for("begun");
    let mut backup = hosts.on_large("large");
    expect_armed(&mut holder, &mut backup);
    let given = fill_until(&holder, "gives_way");
    assert_eq!(given["error"], "No space left on device (os error 28)");
    holder.wait_for("handed_over");
    backup.wait_for("live");
    wait_for_more(&backup);
    assert_eq!(backup.event("disk_failed"), None);
    // It joins again, and its disk is still full.
    let ended = holder.process.wait().expect_code(3);
    ended.expect_named(&["/mnt/disk.img", "No space left"]);
    let _ = backup.stop().expect_code(0);
}

#[test]
fn a_backup_that_gives_way_leaves_and_its_primary_goes_on_alone() {
    let Some(_kvm) = kvm::alone() else { return };
    if !can_run() {
        return;
    }
    let hosts = Hosts::new();
    let mut holder = hosts.on_large("large");
    holder.wait_for("begun");
    let mut backup = hosts.on_small(",on-error=give-way", "small");
    expect_armed(&mut holder, &mut backup);
    fill_until(&backup, "gives_way");
    let ended = backup.process.wait().expect_code(4);
    ended.expect_named(&[
        "disk 0 (/mnt/disk.img)",
        "No space left",
        "left the machine to its primary",
    ]);
    holder.wait_for("solo");
    wait_for_more(&holder);
    let _ = holder.stop().expect_code(0);
}

#[test]
fn a_machine_whose_last_sync_fails_ends_with_an_error() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    scratch.directory("shared");
    let Some(volatile) = VolatileDisk::build(&scratch) else {
        return;
    };
    let path = image(&scratch, "disk.img", SIZE_BYTES);
    let disk = scratch.text("disk.img");
    let mut unprotected = lockstep();
    unprotected.arg("run").arg(Guest::Disk.image());
    unprotected.args(["--command-line", ENDLESS, "--disk", &disk]);
    let alone = disks::replica(&scratch, ENDLESS, &disk, "alone");
    volatile.fail();
    for (name, mut command) in [("run", unprotected), ("replica", alone)] {
        let mut process = Process::start(name, volatile.use_for(&mut command, &path, 1));
        process.wait_for_stderr("cannot be flushed");
        process.signal(Signal::SIGTERM);
        let ended = process.wait().expect_code(4);
        ended.expect_named(&["disk", "may not be durable", "lockstep disk check"]);
    }
}
