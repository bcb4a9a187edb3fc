//! A channel whose round trip the timeout cannot bear: refused at the start, told and given up later.

use lockstep_tests::harness::line::Line;
use lockstep_tests::harness::{Client, Guest, PairSpec, Replica, SLOWNESS, Scratch, Switch, kvm};
use std::time::Duration;

/// A round trip of two delays lies between half of this and seven eighths.
const TIMEOUT_MS: u64 = 800 * SLOWNESS;
const DELAY: Duration = Duration::from_millis(270 * SLOWNESS);

/// Both sides, on a line; the primary listens before the backup comes.
fn start(scratch: &Scratch, switch: &Switch, timeout_ms: u64, delay: Duration) -> (Replica, Replica, Line) {
    let (shared, channel) = (scratch.directory("shared"), scratch.join("channel"));
    let spec = PairSpec::new(Guest::KeyValue)
        .setting("timeout-ms", &timeout_ms.to_string())
        .setting("network", &switch.attachment());
    let side = |role: &str, channel: &str| {
        let report = scratch.join(&format!("{role}.jsonl"));
        let mut command = spec.command(role, channel, &shared, &report);
        Replica::start(role, &mut command, report)
    };
    let mut primary = side("primary", &format!("unix:{}", channel.display()));
    primary.wait_for("listening");
    let line = Line::start(&scratch.join("line"), &channel, delay);
    let backup = side("backup", &line.address());
    (primary, backup, line)
}

#[test]
fn a_round_trip_that_the_timeout_cannot_bear_is_refused_with_one_that_can() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let switch = Switch::start_quiet(&scratch);
    let (mut primary, mut backup, _line) = start(&scratch, &switch, TIMEOUT_MS, DELAY);
    for side in [&mut primary, &mut backup] {
        side.process
            .wait()
            .expect_code(43)
            .expect_named(&["round trip", "--timeout-ms"]);
        assert!(side.event("protected").is_none());
    }
}

#[test]
fn a_round_trip_that_grows_is_told_and_the_primary_serves_alone() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let switch = Switch::start_quiet(&scratch);
    let (mut primary, mut backup, line) = start(&scratch, &switch, TIMEOUT_MS, Duration::ZERO);
    primary.wait_for("protected");
    let mut client = Client::connect(switch.client_address());
    line.delay(DELAY);
    // The answer waits in the gate until the primary is alone.
    let _ = client.call(&["SET", "key", "value"]);
    primary.wait_for("held");
    let noticed = primary.wait_for("noticed");
    let cause = noticed["cause"].as_str().unwrap();
    assert!(
        cause.contains("too far away") && cause.contains("--timeout-ms"),
        "{cause}"
    );
    primary.wait_for("solo");
    let _ = backup.process.wait().expect_code(41);
    let _ = client.call(&["GET", "key"]);
    let _ = primary.stop().expect_code(0);
}
