//! `lockstep inspect` of disk images: the modules on an ext4, and what is refused by name.

use lockstep_tests::fuzz::corpus::seeds;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Scratch, lockstep};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of an image here.
const SIZE: &str = "4M";

fn inspect(file: &Path, flags: &[&str]) -> Ended {
    run(lockstep().arg("inspect").args(flags).arg(file))
}

/// A disk with an ext4 that has these modules.
fn disk(scratch: &Scratch, modules: &[(&str, &[u8])]) -> PathBuf {
    let tree = scratch.directory("tree");
    for (path, content) in modules {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let image = scratch.join("root.img");
    let mut make = Command::new("mke2fs");
    // Where the tools of administrators are, who a test need not be.
    let path = std::env::var("PATH").unwrap_or_default();
    make.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    make.args(["-q", "-t", "ext4", "-d"]).arg(tree);
    let _ = run(make.arg(&image).arg(SIZE)).expect_code(0);
    image
}

/// A module with an RDTSC.
fn module() -> Vec<u8> {
    let seeds = seeds("kernel");
    let seed = seeds.iter().find(|seed| seed.name == "module.hex");
    seed.expect("a seed of this name").bytes[1..].to_vec()
}

#[test]
fn modules_on_a_disk_are_counted_and_those_with_sites_are_named_and_refused() {
    let scratch = Scratch::new();
    let module = module();
    let modules = [
        ("lib/modules/1/kernel/a.ko", &module[..]),
        ("lib/modules/1/kernel/text.ko.xz", b"text"),
        ("etc/a-file", b"text"),
    ];
    let image = disk(&scratch, &modules);
    let ended = inspect(&image, &[]).expect_code(3);
    for said in [
        "root.img: disk image\n",
        "raw, 4194304 bytes, with ext4",
        "2 modules",
        "module     /lib/modules/1/kernel/a.ko (1 RDTSC)",
        "module     /lib/modules/1/kernel/text.ko.xz (cannot be read",
        "refused: 2 of its modules have instructions that tell of the host",
    ] {
        assert!(ended.stdout.contains(said), "`{said}` in {ended}");
    }
    let ended = inspect(&image, &["--json"]).expect_code(3);
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(said["type"], "disk image", "{ended}");
    assert_eq!(said["format"], "raw", "{ended}");
    assert_eq!(said["file_system"], "ext4", "{ended}");
    assert_eq!(said["size_bytes"], 4 << 20, "{ended}");
    assert_eq!(said["modules"], 2, "{ended}");
    assert_eq!(said["refused_modules"].as_array().unwrap().len(), 2, "{ended}");
}

#[test]
fn a_disk_without_such_modules_can_be_used() {
    let scratch = Scratch::new();
    let image = disk(&scratch, &[("etc/a-file", b"text")]);
    let ended = inspect(&image, &[]).expect_code(0);
    assert!(ended.stdout.contains("result     it can be used"), "{ended}");
}

#[test]
fn disks_that_are_not_read_are_refused_by_name() {
    let scratch = Scratch::new();
    let xfs = scratch.write("xfs.img", [b"XFSB".as_slice(), &[0; 4092]].concat());
    let ended = inspect(&xfs, &[]).expect_code(3);
    assert!(ended.stdout.contains("refused: the disk has xfs"), "{ended}");
    let mut sectors = vec![0; 4096];
    sectors[510..512].copy_from_slice(b"\x55\xaa");
    let ended = inspect(&scratch.write("partitions.img", sectors), &[]).expect_code(3);
    assert!(
        ended.stdout.contains("refused: the disk has partitions"),
        "{ended}"
    );
    let empty = scratch.join("empty.qcow2");
    let mut create = lockstep();
    create.args(["disk", "create", "--format=qcow2", "--size=4MiB"]);
    let _ = run(create.arg(&empty)).expect_code(0);
    let ended = inspect(&empty, &[]).expect_code(3);
    assert!(
        ended
            .stdout
            .contains("no file system that is known is on the disk"),
        "{ended}"
    );
}

#[test]
fn a_disk_that_is_cut_off_is_refused_by_name() {
    let scratch = Scratch::new();
    let image = disk(&scratch, &[("etc/a-file", b"text")]);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    file.set_len(1 << 20).unwrap();
    let ended = inspect(&image, &[]).expect_code(3);
    assert!(ended.stdout.contains("it is cut off"), "{ended}");
}
