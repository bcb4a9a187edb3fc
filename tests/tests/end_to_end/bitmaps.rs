//! Mirrored pairs whose sides come back: what is compared then is what either has written since both
//! images were known to be equal, and everything where that is not known.

use super::disks::wait_for_more;
use super::mirrored_disks::Hosts;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Replica, kvm, lockstep};
use lockstep_tests::simulator::rng::Rng;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

const SIZE_BYTES: u64 = 64 << 20;
const BLOCKS: u64 = SIZE_BYTES / (64 << 10);
/// Blocks of the regions, of 1 MiB, that the guest writes to: the first of the disk has its header,
/// and its area of 1 MiB begins within it.
const WRITTEN_BLOCKS: u64 = 2 * 16;
/// A load that ends within some seconds.
const LOAD: &str = "seed=3 requests=40000 area_kib=1024 report=200";
const ENDLESS: &str = "seed=3 requests=0 area_kib=1024 report=200";

fn hosts(load: &'static str) -> Hosts {
    Hosts::with_images(load, SIZE_BYTES)
}

/// What was compared of the disk of the newcomer whose machine was sent last.
fn compared(holder: &Replica) -> Value {
    let events = holder.events();
    let sent = events.iter().rfind(|line| line["event"] == "sent");
    sent.unwrap_or_else(|| panic!("nothing was sent: {events:?}"))["disks"][0].clone()
}

/// Starts the side of `host` again, and waits until the `holder` has armed it. Gives it, and what
/// was compared.
fn joins_again(hosts: &Hosts, holder: &Replica, host: &str, report: &str) -> (Replica, Value) {
    let armed = holder.count("armed");
    let mut newcomer = hosts.start(host, report);
    newcomer.wait_for("armed");
    holder.wait_for_count("armed", armed + 1);
    (newcomer, compared(holder))
}

/// Kills `backup`, and waits until `holder` goes on alone, and has written.
fn loses(holder: &Replica, mut backup: Replica) {
    let alone = holder.count("solo");
    let _ = backup.process.kill();
    holder.wait_for_count("solo", alone + 1);
    wait_for_more(holder);
}

fn bitmap_of(hosts: &Hosts, host: &str) -> PathBuf {
    let mut path = hosts.image(host).into_os_string();
    path.push(".changed");
    path.into()
}

fn expect_equal(hosts: &Hosts) {
    let mut compare = lockstep();
    compare.args(["disk", "compare"]);
    compare.arg(hosts.image("left")).arg(hosts.image("right"));
    let ended = run(&mut compare).expect_code(0);
    assert!(ended.stdout.contains("are equal"), "{}", ended.stdout);
}

#[test]
fn a_side_that_comes_back_is_compared_where_either_side_has_written() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = hosts(LOAD);
    let (mut holder, backup) = hosts.start_both();
    let first = compared(&holder);
    assert_eq!(
        (&first["blocks_compared"], &first["blocks"]),
        (&BLOCKS.into(), &BLOCKS.into())
    );
    assert_eq!(first["why"], "no bitmap of the holder's image: there is none");
    loses(&holder, backup);
    let (mut backup, again) = joins_again(&hosts, &holder, "right", "right-again");
    assert_eq!(again["bitmap_generation"], 1, "{again}");
    let blocks = again["blocks_compared"].as_u64().unwrap();
    assert!(0 < blocks && blocks <= WRITTEN_BLOCKS, "{again}");
    let said = format!("{blocks} of {BLOCKS} blocks compared; bitmap of generation 1");
    holder.process.wait_for_stderr(&said);
    backup.process.wait_for_stderr(&said);
    hosts.expect_end([holder, backup]);
    expect_equal(&hosts);
}

#[test]
fn all_is_compared_where_a_bitmap_is_gone_damaged_or_an_older_one() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = hosts(ENDLESS);
    let (mut holder, mut backup) = hosts.start_both();
    let path = bitmap_of(&hosts, "right");
    let old = fs::read(&path).unwrap();
    let damages: [(&str, &dyn Fn()); 4] = [
        ("there is none", &|| fs::remove_file(&path).unwrap()),
        ("its marks are damaged", &|| {
            let mut bytes = fs::read(&path).unwrap();
            bytes[4096] ^= 1;
            fs::write(&path, bytes).unwrap();
        }),
        ("it is not as long as its disk needs", &|| {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("and the holder's of generation", &|| {
            fs::write(&path, &old).unwrap()
        }),
    ];
    for (nth, (why, damage)) in damages.iter().enumerate() {
        loses(&holder, backup);
        damage();
        let (again, compared) = joins_again(&hosts, &holder, "right", &format!("right-{nth}"));
        backup = again;
        assert_eq!(compared["blocks_compared"], BLOCKS, "{compared}");
        assert!(compared["why"].as_str().unwrap().contains(why), "{compared}");
    }
    // Then it has one again.
    loses(&holder, backup);
    let (mut backup, again) = joins_again(&hosts, &holder, "right", "right-last");
    assert!(
        again["blocks_compared"].as_u64() <= Some(WRITTEN_BLOCKS),
        "{again}"
    );
    let mut info = lockstep();
    info.args(["disk", "info", "--json"]).arg(hosts.image("right"));
    let said = run(&mut info).expect_code(0).stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["bitmap"]["state"], "kept", "{said}");
    assert_eq!(said["bitmap"]["blocks"], BLOCKS, "{said}");
    let _ = backup.stop().expect_code(0);
    let _ = holder.stop().expect_code(0);
}

#[test]
fn sides_that_are_killed_at_any_time_become_equal_again() {
    let Some(_kvm) = kvm::alone() else { return };
    let seed = std::process::id();
    println!("seed {seed}");
    let mut random = Rng::new(seed.into());
    let mut hosts = hosts(ENDLESS);
    let (holder, backup) = hosts.start_both();
    // Each with the host that it is on.
    let (mut holder, mut backup) = ((holder, "left"), (backup, "right"));
    for round in 0..6 {
        (0..random.below(3)).for_each(|_| wait_for_more(&holder.0));
        if random.once_in(2) {
            std::mem::swap(&mut holder, &mut backup);
            let _ = backup.0.process.kill();
            holder.0.wait_for_count("live", 1);
        } else {
            let alone = holder.0.count("solo");
            let _ = backup.0.process.kill();
            holder.0.wait_for_count("solo", alone + 1);
        }
        let host = backup.1;
        let (again, compared) = joins_again(&hosts, &holder.0, host, &format!("{host}-{round}"));
        println!("round {round}: {host} was killed; {compared}");
        assert!(compared["bitmap_generation"].is_u64(), "{compared}");
        assert!(
            compared["blocks_compared"].as_u64() <= Some(WRITTEN_BLOCKS),
            "{compared}"
        );
        backup = (again, host);
    }
    let _ = backup.0.stop().expect_code(0);
    let _ = holder.0.stop().expect_code(0);
    // Both are gone, and the machine begins anew: what they have in common is beside the images.
    hosts.load = LOAD;
    let mut begun = hosts.start(holder.1, "begun");
    begun.wait_for("begun");
    let (joined, compared) = joins_again(&hosts, &begun, backup.1, "joined");
    println!("begun again: {compared}");
    assert!(
        compared["blocks_compared"].as_u64() <= Some(WRITTEN_BLOCKS),
        "{compared}"
    );
    hosts.expect_end([begun, joined]);
    expect_equal(&hosts);
}
