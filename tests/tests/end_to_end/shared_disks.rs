//! Machines whose two sides have one image: only the side that acts touches it, and nothing that
//! the guest was told of is lost with a side.

use super::disks::{self, image, wait_for_more};
use super::web::expect_armed;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Guest, Replica, Scratch, kvm, lockstep};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::Command;

/// What is shared by two hosts, an image among it.
struct Hosts {
    scratch: Scratch,
    load: &'static str,
}

impl Hosts {
    fn new(load: &'static str) -> Self {
        let scratch = Scratch::new();
        scratch.directory("shared");
        image(&scratch, "one.img", 8 << 20);
        Self { scratch, load }
    }

    fn image(&self) -> PathBuf {
        self.scratch.join("one.img")
    }

    fn command(&self, report: &str) -> Command {
        disks::replica(
            &self.scratch,
            self.load,
            &format!("{},shared", self.image().display()),
            report,
        )
    }

    fn start(&self, report: &str) -> Replica {
        let path = self.scratch.join(&format!("{report}.jsonl"));
        Replica::start(report, &mut self.command(report), path)
    }
}

/// Descriptors of this process that lead to the image.
fn opened(replica: &Replica, image: &std::path::Path) -> usize {
    let folder = format!("/proc/{}/fd", replica.process.id());
    let descriptors = std::fs::read_dir(folder).unwrap();
    descriptors
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|path| path == image)
        .count()
}

#[test]
fn the_backup_opens_the_image_when_it_has_won_and_goes_on_with_it() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new("seed=3 requests=8000 area_kib=1024 report=100 overlap=no");
    let mut holder = hosts.start("first");
    holder.wait_for("begun");
    let mut newcomer = hosts.start("second");
    expect_armed(&mut holder, &mut newcomer);
    wait_for_more(&holder);
    assert_eq!(opened(&newcomer, &hosts.image()), 0, "it only replays");
    assert!(opened(&holder, &hosts.image()) > 0);
    let _ = holder.process.kill();
    newcomer.wait_for("live");
    let mut third = hosts.start("third");
    expect_armed(&mut newcomer, &mut third);
    // The guest compares everything that it reads with what it has written.
    let _ = newcomer.process.wait().expect_code(0);
    let _ = third.process.wait().expect_code(0);
    // And what it has flushed, when it begins again.
    let mut alone = lockstep();
    alone
        .arg("run")
        .arg(Guest::Disk.image())
        .args([
            "--command-line",
            "seed=3 requests=100 area_kib=1024 overlap=no",
            "--disk",
        ])
        .arg(hosts.image());
    let _ = std::fs::remove_file(hosts.scratch.join("one.img.lockstep"));
    let _ = run(&mut alone).expect_code(0);
}

#[test]
fn a_survivor_waits_for_the_image_while_a_side_that_was_stopped_has_it_open() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new("seed=3 requests=0 area_kib=1024 report=100 overlap=no");
    let mut holder = hosts.start("first");
    holder.wait_for("begun");
    let mut newcomer = hosts.start("second");
    expect_armed(&mut holder, &mut newcomer);
    holder.process.signal(Signal::SIGSTOP);
    newcomer
        .process
        .wait_for_stderr("the guest waits for a shared disk");
    assert_eq!(opened(&newcomer, &hosts.image()), 0);
    holder.process.signal(Signal::SIGCONT);
    let _ = holder.process.wait().expect_code(41);
    wait_for_more(&newcomer);
    let _ = newcomer.stop().expect_code(0);
}

#[test]
fn an_image_of_qcow2_is_refused_as_a_shared_disk() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new("requests=1");
    let mut header = b"QFI\xfb".to_vec();
    header.resize(1 << 20, 0);
    std::fs::write(hosts.image(), header).unwrap();
    run(&mut hosts.command("first"))
        .expect_code(3)
        .expect_named(&["one.img", "qcow2"]);
}
