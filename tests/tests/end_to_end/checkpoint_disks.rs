//! Disks of machines whose backup does not run: images are equal at the end, whatever was lost on the
//! way, and every write that a client was told of is there.

use super::append_only::{expect_all, set};
use super::checkpoints::EPOCH_MS;
use super::disks::{image, wait_for_more};
use super::mirrored_disks::Hosts;
use super::web::{Web, expect_armed};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Client, Guest, Replica, kvm, lockstep};
use std::path::Path;

const CHECKPOINTS: &[&str] = &["--mode", "checkpoint", "--epoch-ms", EPOCH_MS];

fn switch_over(name: &str, shared: &Path) {
    let mut command = lockstep();
    command.args(["switchover", name, "--shared-directory"]);
    let _ = run(command.arg(shared)).expect_code(0);
}

fn expect_equal(hosts: &Hosts) {
    let mut command = lockstep();
    command.args(["disk", "compare"]);
    let _ = run(command.arg(hosts.image("left")).arg(hosts.image("right"))).expect_code(0);
}

#[test]
fn images_of_each_side_are_equal_at_the_end_after_losses_and_a_switchover() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new("seed=3 requests=90000 area_kib=1024 report=200").with(CHECKPOINTS);
    let (mut holder, mut newcomer) = hosts.start_both();
    // The holder is killed: its image is ahead of the last checkpoint, and made the survivor's.
    wait_for_more(&holder);
    let _ = holder.process.kill();
    newcomer.wait_for("live");
    wait_for_more(&newcomer);
    let mut again = hosts.start("left", "left-again");
    expect_armed(&mut newcomer, &mut again);
    // The backup is killed, perhaps while its image is changed.
    wait_for_more(&newcomer);
    let _ = again.process.kill();
    newcomer.wait_for_count("solo", 1);
    wait_for_more(&newcomer);
    let mut last = hosts.start("left", "left-last");
    last.wait_for("armed");
    newcomer.wait_for_count("armed", 3);
    switch_over("disks", &hosts.scratch.join("shared"));
    newcomer.wait_for_count("switched_over", 1);
    last.wait_for_count("armed", 2);
    // The guest compares what it reads with what it has written.
    hosts.expect_end([last, newcomer]);
    expect_equal(&hosts);
}

#[test]
fn images_are_equal_when_a_guest_ends_that_has_lost_nothing() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new("seed=5 requests=6000 area_kib=1024 report=200").with(CHECKPOINTS);
    let (holder, newcomer) = hosts.start_both();
    hosts.expect_end([holder, newcomer]);
    expect_equal(&hosts);
}

/// Both sides are lost, one after the other and then at once, while a client writes: each side has
/// its image.
fn expect_every_acknowledged_write(web: &Web, disks: [&str; 2]) {
    let start = |name: &str, disk: &str| -> Replica {
        let mut command = web.command(name);
        command.args(["--disk", disk]);
        web.start_by(name, command)
    };
    let [left, right] = disks;
    let mut first = start("first", left);
    first.wait_for("listening");
    let mut second = start("second", right);
    expect_armed(&mut first, &mut second);
    let mut client = Client::connect(web.switch.client_address());
    set(&mut client, 0..40);
    let _ = first.process.kill();
    second.wait_for("live");
    set(&mut client, 40..80);
    expect_all(&mut client, 80);
    let mut third = start("third", left);
    third.wait_for("armed");
    second.wait_for_count("armed", 2);
    set(&mut client, 80..120);
    let _ = third.process.kill();
    let _ = second.process.kill();
    let mut again = start("again", right);
    again.wait_for("begun");
    let mut client = Client::connect(web.switch.client_address());
    expect_all(&mut client, 120);
    let _ = again.stop().expect_code(0);
}

fn key_value() -> Web {
    Web {
        guest: Guest::KeyValue,
        settings: &[
            "--mode",
            "checkpoint",
            "--epoch-ms",
            EPOCH_MS,
            "--command-line",
            "appendonly=always",
        ],
        ..Web::new()
    }
}

#[test]
fn what_a_client_was_told_of_is_in_the_images_of_both_sides() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = key_value();
    let images = ["left.img", "right.img"].map(|name| image(&web.scratch, name, 4 << 20));
    let [left, right] = [&images[0], &images[1]].map(|path| path.display().to_string());
    expect_every_acknowledged_write(&web, [&left, &right]);
}

#[test]
fn what_a_client_was_told_of_is_in_the_image_that_both_sides_share() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = key_value();
    let path = image(&web.scratch, "one.img", 4 << 20);
    let disk = format!("{},shared", path.display());
    expect_every_acknowledged_write(&web, [&disk, &disk]);
}

#[test]
fn a_machine_whose_images_differ_again_and_again_goes_on_with_checkpoints_and_its_disks() {
    let Some(_kvm) = kvm::alone() else { return };
    let settings = &["--mode", "replay-then-checkpoint", "--epoch-ms", EPOCH_MS];
    let hosts = Hosts::new("seed=3 requests=0 area_kib=1024 report=200").with(settings);
    let (mut holder, mut newcomer) = hosts.start_both();
    for times in 1..=5 {
        hosts.spoil_right();
        newcomer.wait_for_count("diverged", times);
        newcomer.wait_for_count("armed", times + 1);
    }
    assert_eq!(holder.event("fell_back").unwrap()["mode"], "checkpoint");
    // The guest compares all that it reads with what it has written, and ends where that differs.
    wait_for_more(&holder);
    let _ = holder.process.kill();
    newcomer.wait_for("live");
    wait_for_more(&newcomer);
    let mut again = hosts.start("left", "left-again");
    again.wait_for("armed");
    newcomer.wait_for_count("armed", 7);
    wait_for_more(&newcomer);
    let _ = newcomer.process.kill();
    again.wait_for("live");
    wait_for_more(&again);
    let _ = again.stop().expect_code(0);
}
