//! A guest that cannot be replayed, because it reads the host by a hidden instruction: its
//! difference is found in whatever part of the state it is, and a pair survives it.

use super::web::{CLIENTS, Web, expect_armed, take_over};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Client, Guest, Load, Pair, PairSpec, Replica, Reply, kvm, lockstep, wait_until,
};
use nix::sys::signal::Signal;
use std::path::PathBuf;

/// Digests often, and each difference for longer than from one to the next.
const INTERVAL: &str = "64";
const OPTIONS: &str = "exits=200";
const SETTINGS: &[&str] = &["--digest-interval-exits", INTERVAL, "--command-line", OPTIONS];

fn web() -> Web {
    Web {
        guest: Guest::Diverging,
        settings: SETTINGS,
        ..Web::new()
    }
}

/// Makes the guest put the host's counter into this part of its state.
///
/// Where a load moves the digests, only `registers` is found there for certain: what is written to a
/// device is in a register on its way, and is found there when a digest is taken at that exit.
fn diverge(client: &mut Client, part: &str) {
    assert_eq!(client.call(&["SET", "diverge", part]), Reply::ok());
}

/// Files with reports of the machine.
fn kept(web: &Web) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(web.scratch.join("shared/web")).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    let is_report = |path: &PathBuf| path.to_string_lossy().contains("/divergence-");
    let mut kept: Vec<_> = paths.filter(is_report).collect();
    kept.sort();
    kept
}

/// Waits until the status says that the machine is protected, or is not, and has diverged so often.
fn expect_status(web: &Web, protected: bool, divergences: u64) -> serde_json::Value {
    let fits =
        |status: &serde_json::Value| status["protected"] == protected && status["divergences"] == divergences;
    wait_until(
        || Some(web.status()).filter(fits),
        || format!("{divergences} divergences: {}", web.status()),
    )
}

/// The guest diverges, its backup joins again by itself, and the pair is protected again.
fn diverge_and_heal(client: &mut Client, part: &str, holder: &Replica, backup: &mut Replica) {
    let armed = backup.count("armed");
    let reported = holder.count("peer_diverged");
    let (process, lost) = (backup.process.id(), holder.count("solo"));
    diverge(client, part);
    holder.wait_for_count("peer_diverged", reported + 1);
    holder.wait_for_count("solo", lost + 1);
    backup.wait_for_count("armed", armed + 1);
    assert!(backup.process.is_running() && backup.process.id() == process);
}

#[test]
fn every_part_of_the_state_is_compared() {
    let Some(_kvm) = kvm::shared() else { return };
    let often = ["--digest-interval-exits", INTERVAL];
    let seldom = ["--digest-interval-exits", "4096"];
    for (part, interval, named) in [
        ("registers", often, "registers"),
        ("vector", often, "processor"),
        ("x87", often, "processor"),
        ("msr", often, "processor"),
        ("memory", often, "memory"),
        ("pic", often, "interrupt controller"),
        ("timer", often, "interval timer"),
        ("serial", often, "serial console"),
        ("clock", often, "clock"),
        ("network", often, "network device"),
        ("frame", often, "output (device 4, network device)"),
        ("console", often, "output (device 3, serial console)"),
        ("execution", seldom, "execution point"),
        ("question", often, "question"),
        ("end", often, "end"),
    ] {
        let mut command = lockstep();
        command.arg("verify").arg(Guest::Diverging.image()).args(interval);
        command.args(["--runs", "1", "--memory-mib", "16"]);
        command.args(["--command-line", &format!("part={part} {OPTIONS}")]);
        let ended = run(&mut command).expect_code(40);
        ended.expect_named(&[&format!(": {named}\n"), "expected: ", "found: "]);
    }
}

#[test]
fn a_backup_that_diverges_joins_again_and_takes_over_when_it_is_needed() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = web();
    let mut holder = web.begin();
    let mut backup = web.join("second", &mut holder);
    let load = web.load();
    let mut client = Client::connect(web.switch.client_address());
    diverge_and_heal(&mut client, "registers", &holder, &mut backup);
    expect_status(&web, true, 1);
    let [report] = &kept(&web)[..] else {
        panic!("{:?}", kept(&web))
    };
    let text = std::fs::read_to_string(report).unwrap();
    assert!(
        text.contains("generation 1") && text.contains(": registers\n"),
        "{text}"
    );
    load.wait_for_more(20);
    let live = take_over(&mut holder, &mut backup, &load);
    assert_eq!(live["generation"], 3);
    // The count goes on with the machine.
    expect_status(&web, false, 1);
    let mut third = web.join("third", &mut backup);
    diverge_and_heal(&mut client, "console", &backup, &mut third);
    expect_status(&web, true, 2);
    load.stop_and_check();
    let _ = backup.stop().expect_code(0);
    third.wait_for("live");
    let _ = third.stop().expect_code(0);
}

#[test]
fn a_guest_that_diverges_again_and_again_is_left_alone_with_an_error() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = web();
    let mut holder = web.begin();
    let mut backup = web.join("second", &mut holder);
    let load = web.load();
    let mut client = Client::connect(web.switch.client_address());
    for part in ["vector", "timer", "frame", "question"] {
        diverge_and_heal(&mut client, part, &holder, &mut backup);
    }
    diverge(&mut client, "registers");
    backup.process.wait().expect_code(40).expect_named(&[
        "the replay differs from the log",
        "5 divergences within an hour: this guest cannot be replayed here, giving up",
        "this report is kept as ",
        "a backup keeps no log",
    ]);
    let status = expect_status(&web, false, 5);
    assert_eq!(status["mode"], "replay", "{status}");
    let why = status["why_not"].as_str().unwrap();
    assert!(
        why.contains("in its registers,") && why.contains("does not join again"),
        "{why}"
    );
    assert_eq!(kept(&web).len(), 5);
    load.wait_for_more(20);
    // Somebody who starts another one has a reason for it.
    let mut third = web.start("third");
    third.wait_for("armed");
    expect_status(&web, true, 5);
    take_over(&mut holder, &mut third, &load);
    load.stop_and_check();
    let _ = third.stop().expect_code(0);
}

/// The same, of a machine that may fall back.
const FALLS_BACK: &[&str] = &[
    "--digest-interval-exits",
    INTERVAL,
    "--command-line",
    OPTIONS,
    "--mode",
    "replay-then-checkpoint",
];

/// Waits until the status says that the machine is protected by checkpoints, and why.
fn expect_fallen_back(web: &Web) {
    let status = expect_status(web, true, 5);
    assert_eq!(status["mode"], "checkpoint", "{status}");
    let why = status["mode_why"].as_str().unwrap();
    assert!(
        why.contains("5 replays have differed") && why.contains("registers"),
        "{why}"
    );
}

#[test]
fn a_guest_that_diverges_again_and_again_is_protected_by_checkpoints_where_that_is_allowed() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = Web {
        settings: FALLS_BACK,
        ..web()
    };
    let mut first = web.begin();
    let mut second = web.join("second", &mut first);
    let load = web.load();
    let mut client = Client::connect(web.switch.client_address());
    for part in ["vector", "timer", "frame", "question"] {
        diverge_and_heal(&mut client, part, &first, &mut second);
    }
    assert_eq!(expect_status(&web, true, 4)["mode"], "replay");
    assert!(first.event("fell_back").is_none());
    diverge_and_heal(&mut client, "registers", &first, &mut second);
    assert_eq!(first.event("fell_back").unwrap()["mode"], "checkpoint");
    assert_eq!(second.count("gave_up"), 0);
    expect_fallen_back(&web);
    let listed = lockstep()
        .args(["list", "--shared-directory"])
        .arg(web.scratch.join("shared"))
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("; mode checkpoint (5 replays have differed"),
        "{listed}"
    );
    // No difference is one any more.
    for part in ["registers", "memory", "execution", "console"] {
        diverge(&mut client, part);
        load.wait_for_more(20);
    }
    take_over(&mut first, &mut second, &load);
    // The survivor knows, and tells who joins it.
    let mut third = web.join("third", &mut second);
    expect_fallen_back(&web);
    third.process.wait_for_stderr("it is followed by checkpoints");
    let mut command = lockstep();
    command.args(["switchover", "web", "--shared-directory"]);
    let _ = run(command.arg(web.scratch.join("shared"))).expect_code(0);
    second.wait_for_count("switched_over", 1);
    third.wait_for_count("armed", 2);
    expect_fallen_back(&web);
    take_over(&mut third, &mut second, &load);
    diverge(&mut client, "registers");
    load.wait_for_more(20);
    load.stop_and_check();
    let _ = second.stop().expect_code(0);
    assert_eq!((second.count("diverged"), third.count("diverged")), (5, 0));
}

#[test]
fn a_backup_from_the_start_joins_again_as_a_newcomer() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = web();
    let start = |verb: &str, name: &str| {
        let command = web.command_of(verb, Guest::Diverging, name);
        web.start_by(name, command)
    };
    let mut first = start("primary", "first");
    first.wait_for("listening");
    // It looks into the store for its primary.
    let mut second = start("backup", "second");
    first.wait_for("protected");
    let load = web.load();
    let mut client = Client::connect(web.switch.client_address());
    diverge(&mut client, "x87");
    expect_armed(&mut first, &mut second);
    expect_status(&web, true, 1);
    take_over(&mut first, &mut second, &load);
    load.stop_and_check();
    let _ = second.stop().expect_code(0);
}

#[test]
fn a_backup_that_names_its_channel_ends_and_the_primary_goes_on() {
    let Some(_kvm) = kvm::alone() else { return };
    let spec = PairSpec::new(Guest::Diverging).with_switch();
    let spec = spec
        .setting("digest-interval-exits", INTERVAL)
        .setting("command-line", OPTIONS);
    let mut pair: Pair = spec.start();
    let load = Load::start(pair.switch().client_address(), CLIENTS);
    diverge(&mut pair.client(), "registers");
    pair.backup
        .process
        .wait()
        .expect_code(40)
        .expect_named(&[": registers\n"]);
    let reported = pair.primary.wait_for("peer_diverged");
    assert_eq!(
        (&reported["again"], &reported["count"]),
        (&false.into(), &1.into())
    );
    pair.primary.wait_for("solo");
    load.stop_and_check();
    let _ = pair.primary.stop().expect_code(0);
    assert_eq!(pair.primary.summary()["peer_divergences"], 1);
}

#[test]
fn a_backup_that_dies_while_it_rests_is_replaced() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = web();
    let mut holder = web.begin();
    let mut backup = web.join("second", &mut holder);
    let load = web.load();
    diverge(&mut Client::connect(web.switch.client_address()), "registers");
    backup.process.wait_for_stderr("pause_ms=1000");
    let _ = backup.process.kill();
    holder.wait_for("solo");
    let mut third = web.start("third");
    third.wait_for("armed");
    expect_status(&web, true, 1);
    take_over(&mut holder, &mut third, &load);
    load.stop_and_check();
    let _ = third.stop().expect_code(0);
}

#[test]
fn a_holder_that_dies_while_its_backup_rests_takes_the_machine_with_it() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = web();
    let mut holder = web.begin();
    let mut backup = web.join("second", &mut holder);
    diverge(&mut Client::connect(web.switch.client_address()), "registers");
    backup.process.wait_for_stderr("pause_ms=1000");
    let _ = holder.process.kill();
    // Nobody is left who could have taken over: another machine begins, and says so.
    let begun = backup.wait_for("begun");
    backup.process.wait_for_stderr("is gone, with its memory");
    assert!(begun["generation"].as_u64() > Some(1));
    backup.wait_for("listening");
    expect_status(&web, false, 0);
    let _ = backup.stop().expect_code(0);
}

#[test]
fn a_side_that_rests_before_it_joins_again_stops_at_once() {
    let Some(_kvm) = kvm::alone() else { return };
    let web = web();
    let mut holder = web.begin();
    let mut backup = web.join("second", &mut holder);
    let mut client = Client::connect(web.switch.client_address());
    for part in ["registers", "registers"] {
        diverge_and_heal(&mut client, part, &holder, &mut backup);
    }
    diverge(&mut client, "registers");
    // Four seconds.
    backup.process.wait_for_stderr("pause_ms=4000");
    backup.process.signal(Signal::SIGTERM);
    let _ = backup.process.wait().expect_code(0);
    let _ = holder.stop().expect_code(0);
}
