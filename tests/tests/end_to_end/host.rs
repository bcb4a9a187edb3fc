//! Hosts without a usable KVM: one error that names what is missing and what mends it, status 4,
//! and the way to the lab.

use lockstep_tests::harness::namespace::{self, Kvm};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Guest, Scratch, lockstep_path};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The status of what the host lacks.
const HOST: i32 = 4;

const CASES: [(Kvm, &[&str]); 3] = [
    (Kvm::Missing, &["/dev/kvm does not exist", "modprobe"]),
    (Kvm::Forbidden, &["/dev/kvm may not be opened", "usermod -aG kvm"]),
    (Kvm::Foreign, &["does not answer KVM_GET_API_VERSION", "modprobe"]),
];

/// The command and a guest where every user can read them.
struct Readable {
    scratch: Scratch,
    command: PathBuf,
    image: PathBuf,
}

fn readable() -> Readable {
    let scratch = Scratch::new();
    let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    let (command, image) = (scratch.join("lockstep"), scratch.join("smoke.elf"));
    std::fs::copy(lockstep_path(), &command).unwrap();
    std::fs::copy(Guest::Smoke.image(), &image).unwrap();
    for path in [scratch.path(), &command, &image] {
        open(path);
    }
    Readable {
        scratch,
        command,
        image,
    }
}

impl Readable {
    fn lockstep(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.command);
        command
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .current_dir(self.scratch.path());
        command.args(words);
        command
    }
}

#[test]
fn what_is_wrong_with_the_device_is_said_once_with_what_mends_it() {
    if !namespace::offered() {
        return;
    }
    let place = readable();
    let image = place.image.to_str().unwrap();
    let commands: [&[&str]; 4] = [
        &["run", image],
        &["record", image, "--log", "log"],
        &["verify", image],
        &["demo", "--image", image],
    ];
    for (kvm, named) in CASES {
        for words in commands {
            let ended = run(&mut namespace::with(kvm, &place.lockstep(words))).expect_code(HOST);
            ended.expect_named(named);
            ended.expect_named(&["make lab-demo", "make lab-test"]);
            assert_eq!(ended.stderr.matches("ERROR").count(), 1, "one error: {ended}");
            assert_eq!(ended.stdout, "", "{ended}");
        }
    }
    assert_eq!(
        place.scratch.names(),
        ["lockstep", "smoke.elf"],
        "something was left behind"
    );
}

#[test]
fn the_doctor_says_it_in_its_report() {
    if !namespace::offered() {
        return;
    }
    let place = readable();
    for (kvm, named) in CASES {
        let table = run(&mut namespace::with(kvm, &place.lockstep(&["doctor", "--quick"]))).expect_code(HOST);
        // The table breaks lines.
        let said = table.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in named {
            assert!(said.contains(text), "`{text}` is not named by {table}");
        }
        let json = run(&mut namespace::with(kvm, &place.lockstep(&["doctor", "--json"]))).expect_code(HOST);
        let report: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(report["usable"], false);
        assert_eq!(report["findings"][0]["property"], "kvm.access");
        assert_eq!(report["verdicts"][0]["holds"], false);
    }
}

#[test]
fn make_offers_the_lab_before_it_builds_anything() {
    if !namespace::offered() {
        return;
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut demo = Command::new("make");
    demo.current_dir(root).args(["--no-print-directory", "demo"]);
    demo.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let ended = run(&mut namespace::with(Kvm::Missing, &demo));
    assert!(!ended.status.success(), "{ended}");
    ended.expect_named(&["/dev/kvm does not exist", "make demo LAB=1"]);
    assert_eq!(ended.stdout, "", "{ended}");

    // All of `make test` would run this test again: its first step says it.
    let mut plan = Command::new("make");
    plan.current_dir(root)
        .args(["--dry-run", "test"])
        .env_remove("MAKEFLAGS");
    let planned = run(&mut plan).expect_code(0);
    assert!(planned.stdout.contains("tests/kvm-here test"), "{planned}");
    let mut first = Command::new(format!("{root}/tests/kvm-here"));
    let said = run(&mut namespace::with(Kvm::Missing, first.arg("test"))).expect_code(HOST);
    said.expect_named(&["/dev/kvm does not exist", "make lab-test"]);
}
