//! Mirrored pairs of which a side cannot write beside its image: what would be written unmarked is not
//! written before the bitmap is gone for good.

use super::disks::{self, image, wait_for_more};
use super::web::expect_armed;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::troubled::{Trouble, TroubledStorage};
use lockstep_tests::harness::{Replica, Scratch, kvm, lockstep, wait_until};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// A load without an end, which soon writes to a block that has no mark.
const ENDLESS: &str = "seed=3 requests=0 area_kib=32768 report=200";
const SIZE_BYTES: u64 = 64 << 20;
/// Tries that fail while nothing may be written.
const FAILURES: u64 = 3;

/// A side whose image is alone in a folder, where all but the image meets trouble, and one without.
struct Hosts {
    scratch: Scratch,
    trouble: TroubledStorage,
}

impl Hosts {
    fn new() -> Option<Self> {
        let scratch = Scratch::new();
        scratch.directory("shared");
        scratch.directory("troubled");
        image(&scratch, "troubled/disk.img", SIZE_BYTES);
        image(&scratch, "other.img", SIZE_BYTES);
        let trouble = TroubledStorage::build(&scratch)?;
        Some(Self { scratch, trouble })
    }

    fn image(&self) -> PathBuf {
        self.scratch.join("troubled/disk.img")
    }

    fn troubled(&self, options: &str) -> Replica {
        let path = self.image();
        let disk = format!("{}{options}", path.display());
        let mut command = disks::replica(&self.scratch, ENDLESS, &disk, "troubled-side");
        let folder = self.scratch.join("troubled");
        command
            .envs(self.trouble.variables(&folder))
            .env("LOCKSTEP_SHIM_SPARED", &path);
        let report = self.scratch.join("troubled-side.jsonl");
        Replica::start("troubled-side", &mut command, report)
    }

    fn other(&self) -> Replica {
        let disk = self.scratch.text("other.img");
        let mut command = disks::replica(&self.scratch, ENDLESS, &disk, "other-side");
        let report = self.scratch.join("other-side.jsonl");
        Replica::start("other-side", &mut command, report)
    }

    /// The holder's disk in the status, once this many tries have failed.
    fn failures(&self, enough: u64) -> Value {
        let status = || {
            let mut command = lockstep();
            command
                .args(["status", "disks", "--json", "--shared-directory"])
                .arg(self.scratch.join("shared"));
            let ended = run(&mut command).expect_code(0);
            serde_json::from_str::<Value>(&ended.stdout).unwrap()["disks"][0].clone()
        };
        wait_until(
            || Some(status()).filter(|disk| disk["failures"].as_u64() >= Some(enough)),
            || format!("{enough} failures in the status: {}", status()),
        )
    }

    fn has_bitmap(&self) -> bool {
        self.image().with_extension("img.changed").exists()
    }
}

#[test]
fn a_guest_waits_until_a_bitmap_that_cannot_be_marked_is_gone_for_good() {
    let Some(_kvm) = kvm::alone() else { return };
    let Some(hosts) = Hosts::new() else { return };
    let mut holder = hosts.troubled("");
    holder.wait_for("begun");
    let mut backup = hosts.other();
    expect_armed(&mut holder, &mut backup);
    assert!(hosts.has_bitmap());
    hosts.trouble.begin(Trouble::Stale);
    let failed = holder.wait_for("disk_failed");
    assert!(failed["error"].as_str().unwrap().contains("Stale"), "{failed}");
    // The file is gone already, and its folder does not say that this is durable.
    let shown = hosts.failures(FAILURES);
    assert!(!hosts.has_bitmap());
    let before = fs::read(hosts.image()).unwrap();
    let _ = hosts.failures(shown["failures"].as_u64().unwrap() + 1);
    assert!(fs::read(hosts.image()).unwrap() == before, "{}", holder.account());
    assert_eq!(holder.event("disk_works"), None);
    assert_eq!(holder.event("gives_way"), None);
    hosts.trouble.end();
    holder.wait_for("disk_works");
    wait_for_more(&holder);
    // Without marks the next join compares all.
    let _ = backup.process.kill();
    holder.wait_for_count("solo", 1);
    let mut again = hosts.other();
    holder.wait_for_count("armed", 2);
    let events = holder.events();
    let sent = events.iter().rfind(|line| line["event"] == "sent").unwrap();
    assert_eq!(sent["disks"][0]["bitmap_generation"], Value::Null, "{sent}");
    let _ = again.stop().expect_code(0);
    let _ = holder.stop().expect_code(0);
}

#[test]
fn a_backup_that_cannot_mark_what_it_writes_gives_way() {
    let Some(_kvm) = kvm::alone() else { return };
    let Some(hosts) = Hosts::new() else { return };
    let mut holder = hosts.other();
    holder.wait_for("begun");
    let mut backup = hosts.troubled(",on-error=give-way");
    expect_armed(&mut holder, &mut backup);
    hosts.trouble.begin(Trouble::Stale);
    let given = backup.wait_for("gives_way");
    assert!(given["error"].as_str().unwrap().contains("Stale"), "{given}");
    let ended = backup.process.wait().expect_code(4);
    ended.expect_named(&["Stale", "left the machine to its primary"]);
    assert!(!hosts.has_bitmap());
    holder.wait_for("solo");
    wait_for_more(&holder);
    let _ = holder.stop().expect_code(0);
}
