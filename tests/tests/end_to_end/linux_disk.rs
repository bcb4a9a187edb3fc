//! Debian guests whose root is on a disk: recorded and replayed, and protected by a mirrored pair
//! whose sides are lost and join again.
//!
//! The images come from `make guests-debian`; `make lab-linux` runs these tests inside the lab.

use ext4_view::Ext4;
use lockstep_tests::harness::linux::ENDED;
use lockstep_tests::harness::linux_disk::Root;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Ended, Linux, Process, Replica, SLOWNESS, Scratch, Switch, kvm, linux, lockstep, wait_until,
};
use std::path::{Path, PathBuf};

/// Writes file after file, each durable before it is told, until a line is typed.
const WRITING: &str = "n=0; mkdir /written; while ! read -t 0; do n=$((n+1)); echo content $n >/written/$n; sync; \
     echo written $n; done";
/// Text that ends [`WRITING`], and the programs of the other images.
pub const ENOUGH: &str = "\n";

/// Two hosts with an image each, and what they share.
pub struct Hosts {
    pub scratch: Scratch,
    pub switch: Option<Switch>,
    root: Root,
    command_line: String,
}

impl Hosts {
    pub fn new(root: Root, program: &str) -> Self {
        let scratch = Scratch::new();
        scratch.directory("shared");
        for host in ["left", "right"] {
            let _ = root.image(&scratch, &format!("{host}.img"));
        }
        Self {
            scratch,
            switch: None,
            root,
            command_line: Linux::running(program),
        }
    }

    pub fn image(&self, host: &str) -> PathBuf {
        self.scratch.join(&format!("{host}.img"))
    }

    /// Starts the side of `host`; `time` tells its starts apart.
    pub fn start(&self, host: &str, time: usize) -> Replica {
        let name = format!("{host}-{time}");
        let report = self.scratch.join(&format!("{name}.jsonl"));
        let mut command = self
            .root
            .command("replica", &self.image(host), &self.command_line);
        command
            .args(["--name=linux", "--lag-ms-max=60000"])
            .arg(format!("--timeout-ms={}", 4_000 * SLOWNESS))
            .arg("--shared-directory")
            .arg(self.scratch.join("shared"))
            .arg("--report")
            .arg(&report);
        if let Some(switch) = &self.switch {
            command.arg("--network").arg(switch.attachment());
        }
        Replica::start(&name, &mut command, report)
    }

    /// The machine, begun on the left host and protected by the right one.
    pub fn start_both(&self) -> Sides {
        let mut holder = self.start("left", 0);
        holder.wait_for("begun");
        let mut newcomer = self.start("right", 0);
        newcomer.wait_for("armed");
        holder.wait_for_count("armed", 1);
        Sides {
            holder,
            newcomer,
            newcomers_host: "right",
            failures: 0,
        }
    }

    /// Expects a machine that has ended in good order on both hosts, after which the guest powered
    /// it off: equal images, and clean file systems.
    pub fn expect_good_end(&self, sides: Sides) {
        let mut sides = sides;
        let _ = sides.holder.process.wait().expect_code(0);
        let _ = sides.newcomer.process.wait().expect_code(0);
        let mut compare = lockstep();
        compare
            .args(["disk", "compare"])
            .args([self.image("left"), self.image("right")]);
        let _ = run(&mut compare).expect_code(0);
        self.root.check(&self.image("left"));
        self.root.check(&self.image("right"));
    }
}

/// The two sides of a protected machine.
pub struct Sides {
    pub holder: Replica,
    pub newcomer: Replica,
    newcomers_host: &'static str,
    failures: usize,
}

impl Sides {
    /// Kills the side that acts, waits until the other one does, and starts the killed one again.
    pub fn fail_over(mut self, hosts: &Hosts) -> Self {
        let _ = self.holder.process.kill();
        self.newcomer.wait_for("live");
        let host = match self.newcomers_host {
            "right" => "left",
            _ => "right",
        };
        let failures = self.failures + 1;
        let mut again = hosts.start(host, failures);
        again.wait_for("armed");
        // Once it was armed itself.
        self.newcomer.wait_for_count("armed", 2);
        Self {
            holder: self.newcomer,
            newcomer: again,
            newcomers_host: host,
            failures,
        }
    }
}

/// Waits until the guest has printed another line on the side that acts.
pub fn wait_for_more(replica: &Replica) {
    let lines = || replica.process.stdout().lines().count();
    let before = lines();
    wait_until(
        || (lines() > before).then_some(()),
        || format!("more of the guest: {}", replica.account()),
    );
}

/// The last number that a guest has told by a line with `word` before it.
pub fn last_number(stdout: &str, word: &str) -> u32 {
    let number = |line: &str| {
        let rest = line.trim().strip_prefix(word)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    stdout.lines().filter_map(number).next_back().unwrap_or(0)
}

fn expect_written(image: &Path, count: u32) {
    let files = Ext4::load_from_path(image).unwrap();
    for number in 1..=count {
        let text = files.read_to_string(format!("/written/{number}").as_str());
        assert_eq!(text.unwrap(), format!("content {number}\n"));
    }
}

/// Records a guest with its root on a disk, and replays it: the image is left as it was.
fn recorded_and_replayed(root: Root, program: &str) -> Ended {
    let scratch = Scratch::new();
    let image = root.image(&scratch, "root.img");
    let before = std::fs::read(&image).unwrap();
    let command_line = Linux::running(program);
    let machine = |verb: &str| {
        let mut command = root.command(verb, &image, &command_line);
        command.arg("--log").arg(scratch.join("log"));
        Process::start(verb, &mut command)
            .wait_within(linux::LONG)
            .expect_code(0)
    };
    let recorded = machine("record");
    let replayed = machine("replay");
    replayed.expect_named(&["the replay equals the log"]);
    assert_eq!(replayed.stdout, recorded.stdout);
    assert!(
        std::fs::read(&image).unwrap() == before,
        "the image was written to"
    );
    recorded
}

#[test]
fn a_root_on_ext4_is_recorded_and_replayed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let program = "mount | grep vda; echo kept >/file; sync; echo 3 >/proc/sys/vm/drop_caches; cat /file";
    let recorded = recorded_and_replayed(Root::SHELL, program);
    for said in ["/dev/vda on / type ext4", "kept", &format!("{ENDED} 0")] {
        assert!(recorded.stdout.contains(said), "{recorded}");
    }
}

#[test]
fn a_root_on_xfs_is_recorded_and_replayed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let program = "mount | grep vda; echo kept >/file; sync; echo 3 >/proc/sys/vm/drop_caches; cat /file";
    let recorded = recorded_and_replayed(Root::SHELL_XFS, program);
    for said in ["/dev/vda on / type xfs", "kept", &format!("{ENDED} 0")] {
        assert!(recorded.stdout.contains(said), "{recorded}");
    }
}

#[test]
fn a_mirrored_root_is_whole_on_both_sides_after_its_holder_was_killed_and_has_joined_again() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let hosts = Hosts::new(Root::SHELL, WRITING);
    let mut sides = hosts.start_both();
    sides.holder.process.wait_for_stdout("written 10");
    sides = sides.fail_over(&hosts);
    wait_for_more(&sides.holder);
    sides.holder.process.type_in(ENOUGH);
    sides.holder.process.wait_for_stdout(ENDED);
    let written = last_number(&sides.holder.process.stdout(), "written");
    assert!(written >= 10, "{written}");
    hosts.expect_good_end(sides);
    expect_written(&hosts.image("left"), written);
}
