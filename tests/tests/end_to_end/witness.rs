//! Two hosts, each with a cable to the clients and one to the other: whatever is pulled out, the
//! side that clients reach goes on.

use lockstep_logging_channel::{Body, EventKind};
use lockstep_tests::harness::hosts::{self, ARP_WITNESS, Cable, Hosts, TCP_WITNESS};
use lockstep_tests::harness::{Guest, Load, Pair, PairSpec, Replica, SLOWNESS, kvm, wait_until};
use lockstep_tests::simulator::Side;
use serde_json::Value;

const CLIENTS: usize = 4;

/// Short enough to wait for, long enough for a busy machine.
const TIMEOUT_MS: u64 = 1_500 * SLOWNESS;

fn spec(witness: &str) -> PairSpec {
    PairSpec::new(Guest::KeyValue)
        .setting("timeout-ms", &TIMEOUT_MS.to_string())
        .setting("witness", witness)
}

/// A pair on `hosts` whose sides both reach their witness, and its clients.
fn protected(hosts: &Hosts, witness: &str) -> (Pair, Load) {
    let pair = hosts.start(&spec(witness));
    for side in [&pair.primary, &pair.backup] {
        side.wait_for_statistics(|statistics| statistics["witness_reached"] == true);
    }
    let load = Load::start(hosts.client_address(), CLIENTS);
    (pair, load)
}

/// The side goes on, and clients over the connections they have; it never waited for a witness.
fn expect_served(survivor: &mut Replica, load: Load) {
    load.wait_for_more(20);
    load.stop_and_check();
    assert_eq!(
        survivor.event("waiting_for_witness"),
        None,
        "{}",
        survivor.account()
    );
    let _ = survivor.stop().expect_code(0);
    assert_eq!(survivor.summary()["witness_reached"], true);
}

/// The side waited, in vain, and has lost.
fn expect_fenced(loser: &mut Replica) {
    let ended = loser.process.wait().expect_code(41);
    ended.expect_named(&["waiting before claiming: no witness reachable", "fenced"]);
}

#[test]
fn a_primary_that_loses_channel_and_clients_leaves_the_machine_to_the_backup() {
    let Some(_kvm) = kvm::alone() else { return };
    if !hosts::offered() {
        return;
    }
    hosts::among(|hosts| {
        let (mut pair, load) = protected(hosts, ARP_WITNESS);
        hosts.isolate(Side::Primary);
        pair.backup.wait_for("live");
        expect_fenced(&mut pair.primary);
        expect_served(&mut pair.backup, load);
    });
}

#[test]
fn a_backup_that_loses_channel_and_clients_leaves_the_machine_to_the_primary() {
    let Some(_kvm) = kvm::alone() else { return };
    if !hosts::offered() {
        return;
    }
    hosts::among(|hosts| {
        let (mut pair, load) = protected(hosts, TCP_WITNESS);
        hosts.isolate(Side::Backup);
        pair.primary.wait_for("solo");
        expect_fenced(&mut pair.backup);
        expect_served(&mut pair.primary, load);
    });
}

#[test]
fn where_clients_reach_nobody_one_goes_on_all_the_same() {
    let Some(_kvm) = kvm::alone() else { return };
    if !hosts::offered() {
        return;
    }
    hosts::among(|hosts| {
        let (mut pair, load) = protected(hosts, ARP_WITNESS);
        Side::BOTH.into_iter().for_each(|side| hosts.isolate(side));
        let fenced = wait_until(
            || {
                [&pair.primary, &pair.backup]
                    .iter()
                    .position(|side| side.event("fenced").is_some())
            },
            || format!("a loser: {}{}", pair.primary.account(), pair.backup.account()),
        );
        let (loser, survivor, goes_on) = if fenced == 0 {
            (&mut pair.primary, &mut pair.backup, "live")
        } else {
            (&mut pair.backup, &mut pair.primary, "solo")
        };
        survivor.wait_for(goes_on);
        survivor.wait_for("waiting_for_witness");
        expect_fenced(loser);
        for side in Side::BOTH {
            hosts.plug(side, Cable::Uplink);
        }
        load.wait_for_more(20);
        load.stop_and_check();
        let _ = survivor.stop().expect_code(0);
    });
}

#[test]
fn a_primary_that_loses_only_its_clients_says_so_and_the_pair_stays() {
    let Some(_kvm) = kvm::alone() else { return };
    if !hosts::offered() {
        return;
    }
    hosts::among(|hosts| {
        let (mut pair, load) = protected(hosts, ARP_WITNESS);
        hosts.pull(Side::Primary, Cable::Uplink);
        let lost = pair.primary.wait_for("witness_lost");
        assert_eq!(
            (&lost["witness"], &lost["any"]),
            (&Value::from(ARP_WITNESS), &Value::from(false))
        );
        pair.primary
            .wait_for_statistics(|statistics| statistics["witness_reached"] == false);
        hosts.plug(Side::Primary, Cable::Uplink);
        pair.primary.wait_for("witness_back");
        load.wait_for_more(20);
        load.stop_and_check();
        for side in [&pair.primary, &pair.backup] {
            assert_eq!(side.event("noticed"), None, "{}", side.account());
        }
        assert_eq!(pair.backup.event("witness_lost"), None);
    });
}

#[test]
fn a_killed_primary_is_followed_at_once_where_the_switch_is_the_witness() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = spec(ARP_WITNESS).with_switch().with_proxy().start();
    for side in [&pair.primary, &pair.backup] {
        side.wait_for_statistics(|statistics| statistics["witness_reached"] == true);
    }
    // The switch goes on answering a backup that it does not hear otherwise, for longer than an old answer counts.
    let (primary, _) = wait_until(
        || pair.switch().announced(1),
        || "generation 1 at the switch".to_owned(),
    );
    let begun = pair.backup.wait_for_statistics(|_| true)["at_ns"]
        .as_u64()
        .unwrap();
    pair.backup.wait_for_statistics(|statistics| {
        let is_late = statistics["at_ns"].as_u64().unwrap() > begun + TIMEOUT_MS * 1_000_000;
        is_late && statistics["witness_reached"] == true
    });
    let load = Load::start(pair.switch().client_address(), CLIENTS);
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    expect_served(&mut pair.backup, load);

    let guest = [0x52, 0x54, 0, 0x4c, 0x53, 1];
    let entered = pair
        .proxy()
        .entries()
        .into_iter()
        .filter_map(|entry| match entry.body {
            Body::Event(event) => match event.kind {
                EventKind::Frame(frame) => Some(frame),
                _ => None,
            },
            _ => None,
        });
    let strange: Vec<_> = entered
        .filter(|frame| frame[0] & 1 == 0 && frame[..6] != guest)
        .collect();
    assert!(
        strange.is_empty(),
        "answers to probes have entered the guest: {strange:?}"
    );
    let before_live = |frame: &&lockstep_tests::harness::switch::Frame| {
        !frame.is_from_host && frame.interface != primary && frame.bytes[6..12] == guest
    };
    let (_, live) = pair.switch().announced(2).unwrap();
    let frames = pair.switch().frames();
    assert_eq!(
        frames[..live].iter().filter(before_live).count(),
        0,
        "the backup has shown the guest's address before it was live"
    );
}
