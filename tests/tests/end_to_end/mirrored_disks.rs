//! Machines whose two sides have an image each: both are equal at the end, whatever was lost on the
//! way, and no machine begins from the older one.

use super::disks::{self, image, wait_for_more};
use super::web::expect_armed;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Guest, Replica, Scratch, kvm, lockstep, wait_until};
use nix::sys::signal::Signal;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longest time in which a guest that gets on ends: several times that of the slowest host seen.
const END_MAX: Duration = Duration::from_secs(600);
pub const SIZE_BYTES: u64 = 8 << 20;
/// Load without an end.
const ENDLESS: &str = "seed=3 requests=0 area_kib=1024 report=200";

/// Two hosts, each with an image at a path of its own, and what they share.
pub struct Hosts {
    pub scratch: Scratch,
    pub load: &'static str,
    settings: &'static [&'static str],
}

impl Hosts {
    pub fn new(load: &'static str) -> Self {
        Self::with_images(load, SIZE_BYTES)
    }

    /// The same, with larger images.
    pub fn with_images(load: &'static str, size_bytes: u64) -> Self {
        let scratch = Scratch::new();
        scratch.directory("shared");
        image(&scratch, "left.img", size_bytes);
        image(&scratch, "right.img", size_bytes);
        Self {
            scratch,
            load,
            settings: &[],
        }
    }

    /// The same, with more of the command line of both sides.
    pub fn with(self, settings: &'static [&'static str]) -> Self {
        Self { settings, ..self }
    }

    pub fn image(&self, host: &str) -> PathBuf {
        self.scratch.join(&format!("{host}.img"))
    }

    fn command(&self, host: &str, report: &str) -> Command {
        let image = self.image(host);
        let mut command = disks::replica(&self.scratch, self.load, image.to_str().unwrap(), report);
        command.args(self.settings);
        command
    }

    pub fn start(&self, host: &str, report: &str) -> Replica {
        let report_path = self.scratch.join(&format!("{report}.jsonl"));
        Replica::start(report, &mut self.command(host, report), report_path)
    }

    /// The machine, begun on the left host and protected by the right one.
    pub fn start_both(&self) -> (Replica, Replica) {
        let mut holder = self.start("left", "left");
        holder.wait_for("begun");
        let mut newcomer = self.start("right", "right");
        expect_armed(&mut holder, &mut newcomer);
        (holder, newcomer)
    }

    pub fn are_equal(&self) -> bool {
        fs::read(self.image("left")).unwrap() == fs::read(self.image("right")).unwrap()
    }

    /// Waits until the guest has ended on both `sides`, with status 0: as long as it prints or an
    /// image is written, and not for ever. The backup may be as far behind as `--lag-ms-max` allows,
    /// and a host that is busy takes longer for the rest than for any single event.
    pub fn expect_end(&self, mut sides: [Replica; 2]) {
        let progress = |sides: &[Replica; 2]| {
            let printed = sides.each_ref().map(|side| side.process.stdout().len());
            let changed = |host| fs::metadata(self.image(host)).unwrap().modified().unwrap();
            (printed, ["left", "right"].map(changed))
        };
        let (begun, mut before) = (Instant::now(), None);
        while sides.iter_mut().any(|side| side.process.is_running()) {
            assert!(begun.elapsed() < END_MAX, "the guest does not end");
            before = wait_until(
                || {
                    let running = sides.iter_mut().any(|side| side.process.is_running());
                    let now = Some(progress(&sides));
                    (!running || now != before).then_some(now)
                },
                || "the guest gets on, or ends".to_owned(),
            );
        }
        for side in &mut sides {
            let _ = side.process.wait().expect_code(0);
        }
    }

    /// Writes into the image of the right host what its machine has not written.
    pub fn spoil_right(&self) {
        // Locks hold off those who ask for them only.
        let file = OpenOptions::new().write(true).open(self.image("right")).unwrap();
        file.write_all_at(&vec![0x5a; 1 << 20], 0).unwrap();
        file.sync_all().unwrap();
    }

    fn write(&self, host: &str, byte: u8) {
        fs::write(self.image(host), vec![byte; SIZE_BYTES as usize]).unwrap();
    }
}

#[test]
fn a_newcomers_image_is_made_the_holders_and_both_are_equal_when_the_guest_has_ended() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new("seed=3 requests=6000 area_kib=1024 report=200");
    hosts.write("right", 0xa5);
    let (mut holder, newcomer) = hosts.start_both();
    let sent = holder.wait_for("sent");
    assert_eq!(sent["disk_bytes_compared"], SIZE_BYTES);
    assert!(
        sent["disk_bytes_copied"].as_u64() >= Some(SIZE_BYTES / 2),
        "{sent}"
    );
    hosts.expect_end([holder, newcomer]);
    assert!(hosts.are_equal());
}

#[test]
fn after_each_loss_the_survivor_goes_on_and_the_next_newcomer_gets_what_it_lacks() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new("seed=3 requests=90000 area_kib=1024 report=200");
    let (mut holder, mut newcomer) = hosts.start_both();
    // The holder is killed, and joins again.
    wait_for_more(&holder);
    let _ = holder.process.kill();
    newcomer.wait_for("live");
    wait_for_more(&newcomer);
    let mut again = hosts.start("left", "left-again");
    expect_armed(&mut newcomer, &mut again);
    // The backup is killed, and joins again.
    let _ = again.process.kill();
    newcomer.wait_for_count("solo", 1);
    wait_for_more(&newcomer);
    let mut last = hosts.start("left", "left-last");
    last.wait_for("armed");
    newcomer.wait_for_count("armed", 3);
    hosts.expect_end([newcomer, last]);
    assert!(hosts.are_equal());
}

#[test]
fn after_both_sides_are_killed_only_the_last_holders_image_begins_the_machine() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new(ENDLESS);
    let (mut holder, mut newcomer) = hosts.start_both();
    wait_for_more(&holder);
    let _ = newcomer.process.kill();
    let _ = holder.process.kill();
    let refused = run(&mut hosts.command("right", "refused")).expect_code(3);
    refused.expect_named(&["right.img", "is not known to be the newest", "right.img.lockstep"]);
    let mut again = hosts.start("left", "left-again");
    again.wait_for("begun");
    wait_for_more(&again);
    let _ = again.stop().expect_code(0);
}

#[test]
fn after_both_sides_were_stopped_at_once_one_of_the_images_begins_the_machine() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new(ENDLESS);
    let (mut holder, mut newcomer) = hosts.start_both();
    wait_for_more(&holder);
    // The backup hears that the holder leaves, and takes over, before it is stopped itself.
    holder.process.signal(Signal::SIGTERM);
    newcomer.wait_for("claiming");
    newcomer.process.signal(Signal::SIGTERM);
    let _ = holder.process.wait().expect_code(0);
    let _ = newcomer.process.wait().expect_code(0);
    let refused = run(&mut hosts.command("left", "refused")).expect_code(3);
    refused.expect_named(&["left.img", "start that side first"]);
    let mut again = hosts.start("right", "right-again");
    again.wait_for("begun");
    wait_for_more(&again);
    let _ = again.stop().expect_code(0);
}

#[test]
fn an_image_that_differs_is_found_by_a_read_and_made_the_holders_again() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new("seed=3 requests=40000 area_kib=1024 report=200");
    let (holder, mut newcomer) = hosts.start_both();
    hosts.spoil_right();
    newcomer.wait_for_count("diverged", 1);
    newcomer.process.wait_for_stderr("digest");
    newcomer.wait_for_count("armed", 2);
    hosts.expect_end([holder, newcomer]);
    assert!(hosts.are_equal());
}

#[test]
fn an_image_of_a_pair_is_refused_by_run() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new(ENDLESS);
    let mut holder = hosts.start("left", "left");
    holder.wait_for("begun");
    wait_for_more(&holder);
    let _ = holder.stop().expect_code(0);
    let mut alone = lockstep();
    alone
        .arg("run")
        .arg(Guest::Disk.image())
        .arg("--disk")
        .arg(hosts.image("left"));
    run(&mut alone)
        .expect_code(3)
        .expect_named(&["belongs to the machine disks"]);
}
