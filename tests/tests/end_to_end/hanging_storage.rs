//! Shared storage that hangs, or is not there yet. A system call that hangs never comes back, as on a mount whose server is lost; the
//! question is asked again on another thread.

use lockstep_tests::harness::{Guest, Load, Pair, PairSpec, Replica, Scratch, Trouble, TroubledStorage, kvm};

/// A pair with a client network, of which the side called `role` uses storage that can be troubled.
fn troubled_pair(role: &'static str) -> Option<(TroubledStorage, Pair)> {
    let scratch = Scratch::new();
    let storage = TroubledStorage::build(&scratch)?;
    let mut spec = PairSpec::new(Guest::KeyValue).with_switch();
    for (name, value) in storage.variables(&scratch.join("shared")) {
        spec = spec.variable(role, name, &value);
    }
    Some((storage, spec.start_in(scratch)))
}

#[test]
fn a_backup_asks_again_where_its_claim_hangs() {
    let Some(_kvm) = kvm::alone() else { return };
    let Some((storage, mut pair)) = troubled_pair("backup") else {
        return;
    };
    let load = Load::start(pair.switch().client_address(), 4);
    storage.begin(Trouble::Hang);
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("storage_silent");
    assert!(pair.backup.event("won").is_none());
    storage.end();
    pair.backup.wait_for("live");
    load.wait_for_more(20);
    load.stop_and_check();
    let _ = pair.backup.stop().expect_code(0);
}

#[test]
fn a_primary_asks_again_where_its_claim_hangs() {
    let Some(_kvm) = kvm::alone() else { return };
    let Some((storage, mut pair)) = troubled_pair("primary") else {
        return;
    };
    let load = Load::start(pair.switch().client_address(), 4);
    storage.begin(Trouble::Hang);
    let _ = pair.backup.process.kill();
    pair.primary.wait_for("storage_silent");
    assert!(pair.primary.event("won").is_none());
    storage.end();
    pair.primary.wait_for("solo");
    load.wait_for_more(20);
    load.stop_and_check();
    let _ = pair.primary.stop().expect_code(0);
}

/// One side of a pair, alone.
fn start(scratch: &Scratch, role: &str, variables: &[(&str, String)]) -> Replica {
    let channel = format!("unix:{}", scratch.text("channel"));
    let report = scratch.join(&format!("{role}.jsonl"));
    let mut command = PairSpec::new(Guest::Smoke).command(role, &channel, &scratch.join("shared"), &report);
    command.envs(variables.iter().map(|(name, value)| (*name, value)));
    Replica::start(role, &mut command, report)
}

/// A primary and a backup start while the storage is in `trouble`, and say so with `named`; they become a pair when it is over.
fn expect_patience(trouble: Trouble, named: &str) {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let shared = scratch.directory("shared");
    let Some(storage) = TroubledStorage::build(&scratch) else {
        return;
    };
    let variables = storage.variables(&shared);
    storage.begin(trouble);
    let mut sides = ["primary", "backup"].map(|role| start(&scratch, role, &variables));
    for side in &mut sides {
        side.process.wait_for_stderr(named);
        assert!(side.event("listening").is_none() && side.event("protected").is_none());
    }
    storage.end();
    for side in &mut sides {
        side.wait_for("protected");
        let _ = side.process.wait().expect_code(0);
    }
}

#[test]
fn storage_that_is_stale_at_the_start_is_waited_for() {
    expect_patience(Trouble::Stale, "cannot be reached");
}

#[test]
fn storage_that_hangs_at_the_start_is_asked_again() {
    expect_patience(Trouble::Hang, "does not answer");
}

#[test]
fn a_side_whose_storage_hangs_at_the_start_can_be_stopped() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let shared = scratch.directory("shared");
    let Some(storage) = TroubledStorage::build(&scratch) else {
        return;
    };
    storage.begin(Trouble::Hang);
    for role in ["primary", "backup"] {
        let mut side = start(&scratch, role, &storage.variables(&shared));
        side.process.wait_for_stderr("does not answer");
        let _ = side.stop().expect_code(0);
    }
}

#[test]
fn a_directory_that_is_not_mounted_yet_is_waited_for() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let mut primary = start(&scratch, "primary", &[]);
    let said = primary
        .process
        .wait_for_stderr("create it, or mount the file system");
    assert!(said.contains(&scratch.text("shared")), "{said}");
    scratch.directory("shared");
    primary.wait_for("listening");
    let _ = primary.stop().expect_code(0);
}
