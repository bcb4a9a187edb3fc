//! Recordings on a disk that is full, or nearly.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Guest, kvm, lockstep, namespace};
use std::path::Path;
use std::process::Command;

/// Runs `script` on a disk of so many bytes, which is its working directory, in a mount namespace
/// of its own. `$0` is the command, `$1` the image.
fn on_small_disk(kib: u64, script: &str, image: &Path) -> Ended {
    let script = format!("mount -t tmpfs -o size={kib}k lockstep /mnt && cd /mnt || exit 125\n{script}");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg(lockstep().get_program())
        .arg(image);
    run(&mut command)
}

#[test]
fn a_snapshot_that_the_disk_has_no_room_for_is_given_up_and_the_recording_goes_on() {
    let Some(_kvm) = kvm::shared() else { return };
    if !namespace::offered() {
        return;
    }
    let script = "\"$0\" record \"$1\" --log log --snapshot-every=100ms --command-line megarounds=200 || exit\n\
         ls . log.snapshots || true\n\
         exec \"$0\" replay \"$1\" --log log --command-line megarounds=200";
    // 16 MiB are kept for the log. A first snapshot may find the table of the guest unused.
    let ended = on_small_disk(18 << 10, script, &Guest::Compute.image()).expect_code(0);
    let said = "a snapshot was given up, and the recording goes on";
    assert_eq!(ended.stderr.matches(said).count(), 1, "{ended}");
    ended.expect_named(&["the replay equals the log", "are kept for the log"]);
    assert!(ended.stdout.lines().any(|line| line == "log"), "{ended}");
    assert!(!ended.stdout.contains("partial"), "{ended}");
}

#[test]
fn a_log_that_a_full_disk_takes_nothing_of_is_one_error_and_no_file() {
    let Some(_kvm) = kvm::shared() else { return };
    if !namespace::offered() {
        return;
    }
    let script = "head -c 4096 /dev/zero >full\n\
                  \"$0\" record \"$1\" --log log && exit 99\n\
                  rm full && ls && exec \"$0\" record \"$1\" --log log";
    let ended = on_small_disk(4, script, &Guest::Smoke.image()).expect_code(0);
    assert_eq!(ended.stderr.matches("ERROR").count(), 1, "{ended}");
    ended.expect_named(&["cannot write log log", "No space left on device"]);
}

#[test]
fn a_log_that_a_full_disk_takes_no_more_of_is_one_error_and_keeps_what_it_has() {
    let Some(_kvm) = kvm::shared() else { return };
    if !namespace::offered() {
        return;
    }
    let script = "\"$0\" record \"$1\" --log log --command-line 'sources=tsc,halt rounds=2000'\n\
                  status=$?\n\
                  \"$0\" log info log 2>/dev/null\n\
                  exit $status";
    let ended = on_small_disk(32, script, &Guest::Entropy.image()).expect_code(3);
    assert_eq!(ended.stderr.matches("ERROR").count(), 1, "{ended}");
    ended.expect_named(&["cannot write log log", "No space left on device"]);
    assert!(
        ended
            .stdout
            .contains("end           none: the log is not complete"),
        "{ended}"
    );
}
