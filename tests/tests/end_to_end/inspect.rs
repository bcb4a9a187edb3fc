//! `lockstep inspect`: files as a user has them, what is said of them, and the status.

use lockstep_tests::fuzz::corpus::seeds;
use lockstep_tests::fuzz::kernel::{bzimage, initrd};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Guest, Scratch, lockstep};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn inspect(files: &[&Path], flags: &[&str]) -> Ended {
    run(lockstep().arg("inspect").args(flags).args(files))
}

/// Content of a seed of the fuzz target `kernel`, which has small kernels and modules.
fn content(name: &str) -> Vec<u8> {
    let mut found = seeds("kernel").into_iter().filter(|seed| seed.name == name);
    found.next().expect("a seed of this name").bytes[1..].to_vec()
}

fn file(scratch: &Scratch, name: &str, content: &[u8]) -> PathBuf {
    let path = scratch.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn a_guest_image_can_be_used() {
    let image = Guest::Entropy.image();
    let ended = inspect(&[&image], &[]).expect_code(0);
    assert!(ended.stdout.contains(": guest image\n"), "{ended}");
    assert!(ended.stdout.contains("sites      RDTSC: 2 in code"), "{ended}");
    assert!(ended.stdout.contains("result     it can be used"), "{ended}");
}

#[test]
fn a_kernel_is_told_with_its_sites_whatever_its_payload() {
    let scratch = Scratch::new();
    for (seed, compression) in [
        ("gzip.hex", "gzip"),
        ("xz.hex", "xz"),
        ("zstd.hex", "zstd"),
        ("uncompressed.hex", "none"),
    ] {
        let kernel = file(&scratch, "vmlinuz", &bzimage(&content(seed)));
        let ended = inspect(&[&kernel], &["--json"]).expect_code(0);
        let said: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(said["type"], "Linux bzImage", "{ended}");
        assert_eq!(said["compression"], compression, "{ended}");
        assert_eq!(said["boot_protocol"], "2.15", "{ended}");
        assert_eq!(said["sites"]["RDTSC"][".text"], 1, "{ended}");
        assert_eq!(said["sites"]["MOV to CR4"][".text"], 1, "{ended}");
        assert_eq!(said["refused"], Value::Null, "{ended}");
    }
}

#[test]
fn what_would_be_refused_is_status_3_with_the_reason_and_the_rest_is_told() {
    let scratch = Scratch::new();
    let kernel = bzimage(&content("gzip.hex"));
    let good = file(&scratch, "good", &kernel);
    let cut = file(&scratch, "cut", &kernel[..kernel.len() - 1]);
    let module = file(&scratch, "a.ko", &content("module.hex"));
    let with_module = file(&scratch, "initrd", &initrd(&content("module.hex")));
    let text = file(&scratch, "text", b"#!/bin/sh\n");
    let ended = inspect(&[&cut, &module, &with_module, &text, &good], &[]).expect_code(3);
    for said in [
        "cut: Linux bzImage\n  result     refused: it is cut off: the payload ends at byte",
        "a.ko: Linux module\n",
        "refused: the module has instructions that tell of the host, and modules are not rewritten: 1 RDTSC",
        "module     lib/modules/a.ko (1 RDTSC)",
        "text: not known\n  result     refused: it is neither a Linux bzImage nor an ELF file: it begins with 23 21",
        "good: Linux bzImage\n",
    ] {
        assert!(ended.stdout.contains(said), "`{said}` in {ended}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let scratch = Scratch::new();
    let absent = scratch.join("absent");
    let ended = inspect(&[&absent], &[]).expect_code(3);
    ended.expect_named(&["cannot read", "absent"]);
    inspect(&[scratch.path()], &[])
        .expect_code(3)
        .expect_named(&["cannot read"]);
    inspect(&[], &[]).expect_code(2).expect_named(&["<FILE>"]);
}
