//! One side of a pair is killed, stopped or cut off under load: the clients notice nothing, and one machine goes on.

use lockstep_tests::harness::proxy::Toward;
use lockstep_tests::harness::{Guest, Load, Pair, PairSpec, Replica, SLOWNESS, kvm, wait_until};
use nix::sys::signal::Signal;

const CLIENTS: usize = 8;

/// Where the timeout itself is what is waited for: short enough to wait for, long enough for a busy machine.
const TIMEOUT_MS: u64 = 1_500 * SLOWNESS;

fn pair() -> PairSpec {
    PairSpec::new(Guest::KeyValue).with_switch()
}

fn load(pair: &Pair) -> Load {
    Load::start(pair.switch().client_address(), CLIENTS)
}

/// Names of the events that a failover consists of, in the order in which they were reported.
fn course(replica: &Replica) -> Vec<String> {
    let names = ["noticed", "claiming", "won", "replayed", "live", "solo", "fenced"];
    let events = replica
        .events()
        .into_iter()
        .map(|event| event["event"].as_str().unwrap().to_owned());
    events.filter(|event| names.contains(&event.as_str())).collect()
}

/// The survivor serves on, has diverged from nothing, and stops when it is told to.
fn expect_good_end(survivor: &mut Replica) {
    let _ = survivor.stop().expect_code(0);
    assert_eq!(survivor.summary()["divergences"], 0);
}

#[test]
fn a_killed_primary_is_not_missed() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = pair().start();
    let load = load(&pair);
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    load.wait_for_more(50);
    load.stop_and_check();
    assert_eq!(
        course(&pair.backup),
        ["noticed", "claiming", "won", "replayed", "live"]
    );
    expect_good_end(&mut pair.backup);
}

#[test]
fn a_killed_backup_is_not_missed() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = pair().start();
    let load = load(&pair);
    let _ = pair.backup.process.kill();
    pair.primary.wait_for("solo");
    load.wait_for_more(50);
    load.stop_and_check();
    assert_eq!(course(&pair.primary), ["noticed", "claiming", "won", "solo"]);
    expect_good_end(&mut pair.primary);
}

#[test]
fn a_stopped_primary_that_wakes_is_fenced_and_has_said_nothing() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = pair().setting("timeout-ms", &TIMEOUT_MS.to_string()).start();
    let load = load(&pair);
    pair.primary.process.signal(Signal::SIGSTOP);
    pair.backup.wait_for("live");
    load.wait_for_more(20);
    pair.primary.process.signal(Signal::SIGCONT);
    pair.primary
        .process
        .wait()
        .expect_code(41)
        .expect_named(&["fenced"]);
    load.wait_for_more(20);
    load.stop_and_check();

    let (first, _) = pair.switch().announced(1).unwrap();
    let (second, place) = pair.switch().announced(2).unwrap();
    assert_ne!(first, second);
    let later = pair.switch().frames().split_off(place);
    assert!(later.len() > 20 * CLIENTS);
    assert!(
        later.iter().all(|frame| frame.interface != first),
        "the old primary has spoken after the failover"
    );
    expect_good_end(&mut pair.backup);
}

#[test]
fn a_stopped_backup_that_wakes_is_fenced() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = pair().setting("timeout-ms", &TIMEOUT_MS.to_string()).start();
    let load = load(&pair);
    pair.backup.process.signal(Signal::SIGSTOP);
    pair.primary.wait_for("solo");
    load.wait_for_more(20);
    pair.backup.process.signal(Signal::SIGCONT);
    pair.backup
        .process
        .wait()
        .expect_code(41)
        .expect_named(&["fenced"]);
    load.wait_for_more(20);
    load.stop_and_check();
    assert_eq!(pair.switch().announced(3), None);
    expect_good_end(&mut pair.primary);
}

#[test]
fn when_both_live_and_cannot_hear_each_other_exactly_one_goes_on() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = pair()
        .with_proxy()
        .setting("timeout-ms", &TIMEOUT_MS.to_string())
        .start();
    let load = load(&pair);
    pair.proxy().cut();
    let lost = wait_until(
        || {
            [&pair.primary, &pair.backup]
                .iter()
                .position(|side| side.event("fenced").is_some())
        },
        || "one that is fenced".to_owned(),
    );
    let (winner, loser) = if lost == 0 {
        (&mut pair.backup, &mut pair.primary)
    } else {
        (&mut pair.primary, &mut pair.backup)
    };
    let _ = loser.process.wait().expect_code(41);
    winner.wait_for("won");
    load.wait_for_more(20);
    load.stop_and_check();
    assert!(loser.event("won").is_none() && winner.event("fenced").is_none());
    expect_good_end(winner);
}

#[test]
fn who_finds_the_channel_damaged_parts_and_the_other_hears_of_it() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = pair().with_proxy().start();
    let load = load(&pair);
    pair.proxy().damage(Toward::Backup);
    let noticed = pair.primary.wait_for("noticed");
    assert_eq!(noticed["cause"], "it closed the connection", "{noticed}");
    pair.primary.wait_for("solo");
    let _ = pair.backup.process.wait().expect_code(41);
    load.wait_for_more(20);
    load.stop_and_check();
    expect_good_end(&mut pair.primary);
}

#[test]
fn a_guest_that_ends_ends_its_pair() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = PairSpec::new(Guest::Compute)
        .setting("command-line", "megarounds=20")
        .start();
    let primary = pair.primary.process.wait().expect_code(0);
    let backup = pair.backup.process.wait().expect_code(0);
    assert!(primary.stdout.contains("checksum: "), "{primary}");
    assert_eq!(backup.stdout, "", "{backup}");
    assert_eq!(course(&pair.primary), Vec::<String>::new());
    assert_eq!(
        course(&pair.backup),
        ["noticed"],
        "its primary has said goodbye, and nobody claims"
    );
    assert_eq!(
        pair.backup.summary()["log_entries"],
        pair.primary.summary()["log_entries"]
    );
}

#[test]
fn a_killed_primary_s_console_output_is_said_by_its_backup() {
    let Some(_kvm) = kvm::alone() else { return };
    let options = "sources=halt rounds=200";
    let spec = PairSpec::new(Guest::Entropy)
        .setting("command-line", options)
        .setting("memory-mib", "16");
    let mut pair = spec.with_held_acknowledgements().start();
    let says = |entry: &lockstep_logging_channel::Entry| {
        matches!(entry.body, lockstep_logging_channel::Body::Output(_))
    };
    wait_until(
        || pair.proxy().entries().iter().any(says).then_some(()),
        || "a first line".to_owned(),
    );
    let _ = pair.primary.process.kill();
    let backup = pair.backup.process.wait().expect_code(0);
    assert_eq!(pair.primary.process.stdout(), "", "it was never acknowledged");
    assert!(
        backup.stdout.starts_with(&format!("entropy: {options}\n")),
        "{backup}"
    );
    assert!(
        backup.stdout.ends_with("entropy: 1 sources asked, 0 unknown\n"),
        "{backup}"
    );
}
