//! Shared storage that is not there when it is needed: output is held, that is said, and everything goes on when it is back.

use lockstep_tests::harness::{Guest, Load, PairSpec, Replica, kvm};
use std::fs;

/// Waits until `replica` has asked the storage `attempts` times in vain.
fn wait_for_attempts(replica: &mut Replica, attempts: u64) {
    replica.wait_for("storage_unreachable");
    let asked = |replica: &Replica| {
        replica
            .events()
            .iter()
            .filter_map(|event| event["attempts"].as_u64())
            .max()
    };
    lockstep_tests::harness::wait_until(
        || asked(replica).filter(|asked| *asked >= attempts),
        || format!("{attempts} attempts: {}", replica.account()),
    );
}

#[test]
fn a_backup_without_storage_holds_its_output_until_it_is_back() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = PairSpec::new(Guest::KeyValue).with_switch().start();
    let load = Load::start(pair.switch().client_address(), 4);
    let away = pair.scratch.join("away");
    fs::rename(&pair.shared, &away).unwrap();
    let _ = pair.primary.process.kill();
    wait_for_attempts(&mut pair.backup, 4);
    pair.backup.process.wait_for_stderr("output is held");
    assert_eq!(pair.switch().announced(2), None, "it spoke without the right to");
    assert!(pair.backup.event("won").is_none());
    let before = load.acknowledged();

    fs::rename(&away, &pair.shared).unwrap();
    pair.backup.wait_for("live");
    load.wait_for_more(20);
    assert!(load.acknowledged() > before);
    load.stop_and_check();
    let _ = pair.backup.stop().expect_code(0);
}

#[test]
fn a_primary_without_storage_holds_its_output_until_it_is_back() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = PairSpec::new(Guest::KeyValue).with_switch().start();
    let load = Load::start(pair.switch().client_address(), 4);
    let away = pair.scratch.join("away");
    fs::rename(&pair.shared, &away).unwrap();
    let _ = pair.backup.process.kill();
    wait_for_attempts(&mut pair.primary, 4);
    pair.primary.process.wait_for_stderr("output is held");
    assert!(pair.primary.event("solo").is_none());

    fs::rename(&away, &pair.shared).unwrap();
    pair.primary.wait_for("solo");
    load.wait_for_more(20);
    load.stop_and_check();
    let _ = pair.primary.stop().expect_code(0);
}

#[test]
fn a_replica_that_waits_for_storage_can_be_stopped() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = PairSpec::new(Guest::KeyValue).with_switch().start();
    let _client = pair.client();
    fs::rename(&pair.shared, pair.scratch.join("away")).unwrap();
    let _ = pair.primary.process.kill();
    wait_for_attempts(&mut pair.backup, 2);
    let _ = pair.backup.stop().expect_code(0);
}
