//! A switchover: the backup becomes the primary, and the primary its backup, under load and without
//! a hand; and whoever dies on the way, nothing is lost.

use super::web::{Web, expect_good_end};
use lockstep_tests::harness::{
    Ended, Guest, Load, PairSpec, Process, Replica, Trouble, TroubledStorage, kvm, lockstep, wait_until,
};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The command that switches a machine over.
fn command(name: &str, shared: &Path, more: &[&str]) -> Command {
    let mut command = lockstep();
    command
        .args(["switchover", name, "--shared-directory"])
        .arg(shared)
        .args(more);
    command
}

/// Starts it for the machine `web`.
fn start(web: &Web, more: &[&str]) -> Process {
    let mut command = command("web", &web.scratch.join("shared"), more);
    Process::start("switchover", &mut command)
}

/// Switches over from `holder` to `backup`, which then holds `generation`, protected by the other.
fn switch(name: &str, shared: &Path, holder: &Replica, backup: &Replica, generation: u64) {
    let mut asking = Process::start("switchover", &mut command(name, shared, &["--json"]));
    let ended: Ended = asking.wait().expect_code(0);
    let status: Value = serde_json::from_str(&ended.stdout).unwrap();
    let processes = [&backup.process, &holder.process].map(Process::id);
    for (side, process) in processes.iter().enumerate() {
        assert_eq!(status["sides"][side]["process"], *process, "{status}");
    }
    assert_eq!(
        (&status["generation"], &status["protected"]),
        (&generation.into(), &true.into())
    );
}

/// Waits until the store shows that the machine `default` is protected: it does within a second.
fn wait_until_protected(shared: &Path) {
    let status = || {
        let mut command = lockstep();
        command.args(["status", "default", "--json", "--shared-directory"]);
        let output = command.arg(shared).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    wait_until(
        || (status()["protected"] == true).then_some(()),
        || format!("a protected machine: {}", status()),
    );
}

/// The machine has no backup until it has joined.
#[test]
fn a_side_that_was_switched_over_does_not_measure_its_host_again() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let nowhere = web.scratch.write("no directory", "");
    let start = |name: &str| {
        let mut command = web.command(name);
        command.env("XDG_CACHE_HOME", &nowhere);
        command.args(["-v", "--requalify"]);
        web.start_by(name, command)
    };
    let mut first = start("first");
    first.wait_for("listening");
    let mut second = start("second");
    first.wait_for_count("armed", 1);
    let shared = web.scratch.join("shared");
    switch("web", &shared, &first, &second, 2);
    let stderr = first.process.stderr();
    let (before, after) = stderr.split_once("joining the side that goes on").unwrap();
    assert!(!before.contains("measured=0"), "{stderr}");
    assert!(after.contains("measured=0"), "{stderr}");
    for side in [&mut second, &mut first] {
        let _ = side.stop().expect_code(0);
    }
}

#[test]
fn a_machine_is_switched_over_and_back_under_load() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let shared = web.scratch.join("shared");
    let mut first = web.begin();
    let mut second = web.join("second", &mut first);
    let load = web.load();
    switch("web", &shared, &first, &second, 2);
    load.wait_for_more(50);
    switch("web", &shared, &second, &first, 3);
    load.wait_for_more(50);
    switch("web", &shared, &first, &second, 4);
    load.wait_for_more(50);
    load.stop_and_check();
    first.wait_for_count("handed_over", 2);
    second.wait_for_count("handed_over", 1);
    // Nobody has lost anybody.
    for side in [&first, &second] {
        assert!(side.event("noticed").is_none(), "{}", side.account());
        assert!(side.event("fenced").is_none(), "{}", side.account());
    }
    let _ = first.stop().expect_code(0);
    second.wait_for("solo");
    expect_good_end(&mut second);
}

#[test]
fn sides_that_were_begun_by_role_are_switched_over_too() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = PairSpec::new(Guest::KeyValue).with_switch().start();
    let shared = pair.shared.clone();
    let load = Load::start(pair.switch().client_address(), 4);
    wait_until_protected(&shared);
    switch("default", &shared, &pair.primary, &pair.backup, 2);
    load.wait_for_more(50);
    switch("default", &shared, &pair.backup, &pair.primary, 3);
    load.wait_for_more(50);
    load.stop_and_check();
    let _ = pair.backup.stop().expect_code(0);
    pair.primary.wait_for("solo");
    expect_good_end(&mut pair.primary);
}

/// A machine under load that is being switched over, and stands: its backup has been told, and its
/// claim hangs.
struct Standing {
    web: Web,
    storage: TroubledStorage,
    first: Replica,
    second: Replica,
    load: Load,
    asking: Process,
}

impl Standing {
    fn new(more: &[&str]) -> Option<Self> {
        let web = Web::new();
        let storage = TroubledStorage::build(&web.scratch)?;
        let mut first = web.begin();
        let mut command = web.command("second");
        command.envs(storage.variables(&web.scratch.join("shared")));
        let mut second = web.start_by("second", command);
        second.wait_for("armed");
        first.wait_for_count("armed", 1);
        let load = web.load();
        storage.begin(Trouble::Hang);
        let asking = start(&web, more);
        first.wait_for("handed_over");
        second.wait_for("claiming");
        Some(Self {
            web,
            storage,
            first,
            second,
            load,
            asking,
        })
    }
}

#[test]
fn a_backup_that_dies_before_it_claims_leaves_the_machine_where_it_was() {
    let Some(_kvm) = kvm::alone() else { return };
    let Some(mut standing) = Standing::new(&[]) else {
        return;
    };
    let _ = standing.second.process.kill();
    let solo = standing.first.wait_for("solo");
    assert_eq!(solo["generation"], 2);
    standing.load.wait_for_more(50);
    standing
        .asking
        .wait()
        .expect_code(1)
        .expect_named(&["lost its backup meanwhile", "goes on alone in generation 2"]);
    standing.load.stop_and_check();
    expect_good_end(&mut standing.first);
}

#[test]
fn a_primary_that_dies_when_it_has_handed_over_takes_nothing_with_it() {
    let Some(_kvm) = kvm::alone() else { return };
    let Some(mut standing) = Standing::new(&["--timeout", "10"]) else {
        return;
    };
    let _ = standing.first.process.kill();
    standing.storage.end();
    standing.second.wait_for("live");
    standing.load.wait_for_more(50);
    standing
        .asking
        .wait()
        .expect_code(1)
        .expect_named(&["web was switched over to", "no backup has joined"]);
    // A third side takes the place.
    let mut third = standing.web.join("third", &mut standing.second);
    standing.load.wait_for_more(20);
    standing.load.stop_and_check();
    let _ = third.stop().expect_code(0);
    expect_good_end(&mut standing.second);
}

#[test]
fn what_cannot_be_switched_over_is_named() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web::new();
    let refused = |name: &str, code: i32, named: &[&str]| {
        let mut command = command(name, &web.scratch.join("shared"), &[]);
        let mut asking = Process::start("switchover", &mut command);
        asking.wait().expect_code(code).expect_named(named);
    };
    refused("web", 3, &["no machine is called web"]);
    let mut holder = web.begin();
    refused("web", 1, &["web is not switched over: no backup has joined"]);
    refused("Web!", 3, &["`Web!` is not a name"]);
    let _ = holder.process.kill();
    refused("web", 1, &["is dead, and nobody has taken over"]);
}
