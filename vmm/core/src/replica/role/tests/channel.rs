//! A channel that is slow or far: what is told, what is given up, and how much of the log may be
//! under way.

use std::collections::BTreeMap;

use super::*;
use crate::replica::BATCH_BYTES_MAX;

/// A backup that echoes every heartbeat after `round_trip_ms`, until `until_ms`; the pair's timeout
/// is 200 ms. The primary has an acknowledged output a while before the end.
fn with_round_trip(round_trip_ms: u64, until_ms: u64) -> Actions {
    let (mut subject, mut all) = Subject::primary();
    for now_ms in (5..=until_ms).step_by(5) {
        let mut actions = Vec::new();
        let sent_ms = now_ms.saturating_sub(round_trip_ms);
        let echoes = now_ms > round_trip_ms && sent_ms % 25 == 0;
        actions.extend(match echoes {
            true => subject.heartbeat(now_ms, 1, sent_ms, 0),
            false => subject.step(now_ms, Input::Wake),
        });
        if now_ms == 100 {
            actions.extend(subject.output(now_ms));
            actions.extend(subject.acknowledge(now_ms, 1, 1));
        }
        all.extend(actions);
    }
    all
}

#[test]
fn a_timeout_that_cannot_bear_the_round_trip_is_refused_with_one_that_can() {
    let config = Config::default();
    assert_eq!(config.check_round_trip(66 * MS), Ok(()));
    let refused = config.check_round_trip(120_250_000).unwrap_err();
    assert_eq!(refused.timeout_ns_min, 370 * MS);
    assert_eq!(
        refused.to_string(),
        "a round trip of the logging channel takes 120.250 ms, and a timeout of 200 ms bears at most 66 ms: \
         start both sides with a timeout of at least 370 ms (--timeout-ms)"
    );
    let with_it = Config {
        timeout_ns: refused.timeout_ns_min,
        ..config
    };
    assert_eq!(with_it.check_round_trip(120_250_000), Ok(()));
    assert!(config.check_round_trip(u64::MAX).is_err());
}

#[test]
fn a_round_trip_within_a_third_is_nothing_to_tell() {
    let actions = with_round_trip(65, 5_000);
    assert_eq!(reports(&actions), Vec::<&Report>::new());
    assert_eq!(released(&actions).len(), 1);
}

#[test]
fn a_round_trip_that_has_grown_is_told_once_in_a_while() {
    let actions = with_round_trip(80, 9_000);
    let told = Report::RoundTripTooLong {
        round_trip_ns: 80 * MS,
        timeout_ns: 200 * MS,
        timeout_ns_min: 240 * MS,
    };
    assert_eq!(reports(&actions), [&told]);
    assert_eq!(claims(&actions), NO_CLAIM);
    assert_eq!(claims(&with_round_trip(80, 30_000)), NO_CLAIM);
    assert_eq!(reports(&with_round_trip(80, 30_000)).len(), 3);
}

#[test]
fn between_half_the_timeout_and_seven_eighths_the_primary_says_why_and_goes_on_alone() {
    for round_trip_ms in [105, 140, 170] {
        let actions = with_round_trip(round_trip_ms, 395);
        assert_eq!(released(&actions), NOTHING, "{round_trip_ms}");
        let held = reports(&actions).into_iter().find_map(|report| match report {
            Report::Held {
                stood_ns,
                outputs,
                why: HeldBy::RoundTrip { round_trip_ns, .. },
            } => Some((stood_ns / MS, *outputs, round_trip_ns / MS)),
            _ => None,
        });
        assert_eq!(held, Some((200, 1, round_trip_ms)));
        assert_eq!(claims(&actions), NO_CLAIM);

        let actions = with_round_trip(round_trip_ms, 405);
        let Some(Cause::TooFar {
            unleased_ns,
            timeout_ns_min,
            ..
        }) = causes(&actions).first()
        else {
            panic!("{:?}", causes(&actions))
        };
        assert_eq!(*unleased_ns, 400 * MS);
        assert!(*timeout_ns_min >= 3 * round_trip_ms * MS);
        assert_eq!(claims(&actions), [2]);
        assert_eq!(released(&actions), NOTHING);
    }
}

#[test]
fn a_pair_that_lost_its_lease_for_a_while_goes_on() {
    let (mut subject, _) = Subject::primary();
    for now_ms in (25..=375).step_by(25) {
        subject.step(now_ms, Input::Wake);
        let actions = subject.heartbeat(now_ms, 1, 0, 0);
        assert_eq!(claims(&actions), NO_CLAIM);
    }
    subject.heartbeat(390, 1, 375, 0);
    assert_eq!(claims(&subject.wake_until(400, 560)), NO_CLAIM);
}

#[test]
fn what_is_held_for_want_of_an_acknowledgement_is_told_and_its_end_too() {
    let (mut subject, _) = Subject::primary();
    let mut all = Actions::new();
    for now_ms in (25..=600).step_by(25) {
        all.extend(subject.step(now_ms, Input::Wake));
        all.extend(subject.heartbeat(now_ms, 1, now_ms, 0));
        if now_ms == 100 {
            all.extend(subject.output(now_ms));
        }
    }
    let why = HeldBy::Acknowledgement { bytes: 100 };
    let held = Report::Held {
        stood_ns: 200 * MS,
        outputs: 1,
        why,
    };
    assert_eq!(reports(&all), [&held]);
    let actions = subject.acknowledge(610, 1, 1);
    assert_eq!(released(&actions), [(1, 700)]);
    let flows = Report::Flows { stood_ns: 510 * MS };
    assert_eq!(reports(&actions), [&flows]);
}

#[test]
fn a_guest_that_waits_for_the_window_is_told_of() {
    let (mut subject, _) = Subject::primary();
    let window = Config::default().window_bytes_max;
    let mut all = Actions::new();
    for now_ms in (25..=400).step_by(25) {
        all.extend(subject.step(now_ms, Input::Wake));
        all.extend(subject.heartbeat(now_ms, 1, now_ms, 0));
        if now_ms == 100 {
            for bytes in [window, 100] {
                let (batch, outputs) = (subject.batch(bytes), vec![]);
                all.extend(subject.step(now_ms, Input::Appended { batch, outputs }));
            }
            all.extend(subject.acknowledge(now_ms, 1, 0));
        }
    }
    let why = HeldBy::Window { bytes: window + 100 };
    let held = Report::Held {
        stood_ns: 200 * MS,
        outputs: 0,
        why,
    };
    assert_eq!(reports(&all), [&held]);
}

#[test]
fn what_waits_for_the_store_is_told() {
    let (mut subject, _) = Subject::primary();
    subject.output(10);
    subject.step(20, Input::PeerClosed(Closed::ByPeer));
    let actions = subject.step(1_020, Input::Wake);
    let why = HeldBy::Verdict;
    let held = Report::Held {
        stood_ns: 1_010 * MS,
        outputs: 1,
        why,
    };
    assert!(reports(&actions).contains(&&held), "{actions:?}");
    let actions = subject.claimed(1_100, Outcome::Won);
    let flows = Report::Flows { stood_ns: 1_090 * MS };
    assert!(reports(&actions).contains(&&flows), "{actions:?}");
}

#[test]
fn a_heartbeat_has_one_batch_before_it_until_the_channel_has_shown_what_it_carries() {
    let (mut subject, _) = Subject::primary();
    let mut before = 0;
    for _ in 0..200 {
        let batch = subject.batch(BATCH_BYTES_MAX as u64);
        let outputs = vec![];
        let actions = subject.step(1, Input::Appended { batch, outputs });
        before += sent_bytes(&actions);
    }
    assert_eq!(before, BATCH_BYTES_MAX as u64);
    assert!(matches!(
        messages(&subject.step(25, Input::Wake))[..],
        [Message::Heartbeat(_)]
    ));
}

fn sent_bytes(actions: &Actions) -> u64 {
    let bytes = |action: &Action<(), u64>| match action {
        Action::SendEntries(batch) => batch.bytes,
        _ => 0,
    };
    actions.iter().map(bytes).sum()
}

/// Effect on a channel of a guest that writes as fast as it may.
struct Flooded {
    /// Bytes that came to the backup.
    bytes: u64,
    /// The longest round trip, in nanoseconds, after the first second.
    round_trip_ns: u64,
    /// Steps in which something could not leave for want of a lease, after the first second.
    unleased: u64,
    claims: usize,
}

/// Bytes of a heartbeat, with its header.
const HEARTBEAT_BYTES: u64 = 80;
const SECOND: u64 = 1_000_000_000;

/// A primary whose guest floods a channel that carries `bytes_per_s` and takes `way_ns` each way,
/// for some seconds of virtual time. Nothing overtakes on it.
fn flood(bytes_per_s: u64, way_ns: u64, seconds: u64) -> Flooded {
    let mut replica = Replica::<(), u64>::primary(Config::default(), 0).unwrap();
    // Inputs that come to the primary, in order of time.
    let mut agenda: BTreeMap<(u64, u64), Input<(), u64>> = BTreeMap::new();
    let (mut number, mut free_at_ns, mut next, mut throttled) = (0, 0, Sequence(1), false);
    let mut flooded = Flooded {
        bytes: 0,
        round_trip_ns: 0,
        unleased: 0,
        claims: 0,
    };
    let mut actions = vec![Action::WakeAt { at_ns: 0 }];
    loop {
        let mut now_ns = 0;
        // The guest writes whenever it may, a batch in 20 µs.
        if let Some((&(at_ns, key), _)) = agenda.iter().next() {
            let input = agenda.remove(&(at_ns, key)).unwrap();
            now_ns = at_ns;
            if at_ns > seconds * SECOND {
                return flooded;
            }
            replica.step(now_ns, input, &mut actions);
        }
        let statistics = replica.statistics();
        if now_ns > SECOND {
            flooded.round_trip_ns = flooded.round_trip_ns.max(statistics.round_trip_ns);
        }
        for action in actions.split_off(0) {
            number += 1;
            let mut carry = |bytes: u64| {
                free_at_ns = now_ns.max(free_at_ns) + bytes * SECOND / bytes_per_s;
                free_at_ns + 2 * way_ns
            };
            match action {
                Action::Send(Message::Heartbeat(heartbeat)) => {
                    let echo = Message::Heartbeat(Heartbeat {
                        sent_at_ns: 1,
                        echo_ns: heartbeat.sent_at_ns,
                        ..Heartbeat::default()
                    });
                    agenda.insert((carry(HEARTBEAT_BYTES), number), Input::Received(echo));
                }
                Action::SendEntries(batch) => {
                    flooded.bytes += batch.bytes;
                    let (received, replayed) = (batch.last, batch.last);
                    let acknowledge = Message::Acknowledge(Acknowledge { received, replayed });
                    agenda.insert((carry(batch.bytes), number), Input::Received(acknowledge));
                }
                Action::Throttle(on) => throttled = on,
                Action::WakeAt { at_ns } => {
                    agenda.insert((at_ns, number), Input::Wake);
                }
                Action::Claim { .. } => flooded.claims += 1,
                Action::Report(Report::RoundTripTooLong { .. } | Report::Held { .. }) => {
                    flooded.unleased += 1
                }
                _ => (),
            }
        }
        let writes = !throttled
            && !agenda
                .values()
                .any(|input| matches!(input, Input::Appended { .. }));
        if writes {
            let batch = batch(next.0, BATCH_BYTES_MAX as u64);
            let outputs = vec![Output {
                sequence: next,
                bytes: 100,
                payload: next.0,
            }];
            next = next.next();
            number += 1;
            agenda.insert((now_ns + 20_000, number), Input::Appended { batch, outputs });
        }
    }
}

/// Bytes a second of a channel of so many megabits.
const fn mbit(megabits: u64) -> u64 {
    megabits * 1_000_000 / 8
}

#[test]
fn the_lease_is_renewed_in_time_while_the_channel_is_full() {
    let bearable_ns = Config::default().lease_ns() - Config::default().heartbeat_ns();
    for (megabits, way_ms, percent) in [
        (20, 0, 90),
        (20, 10, 55),
        (100, 1, 90),
        (1_000, 0, 90),
        (1_000, 10, 80),
    ] {
        let flooded = flood(mbit(megabits), way_ms * MS, 6);
        let carried = 100 * flooded.bytes / (6 * mbit(megabits));
        let name = format!(
            "{megabits} Mbit/s, {way_ms} ms: {carried} in 100 carried, a round trip of {} ms",
            flooded.round_trip_ns / MS
        );
        assert!(flooded.round_trip_ns < bearable_ns, "{name}");
        assert_eq!((flooded.unleased, flooded.claims), (0, 0), "{name}");
        assert!(carried >= percent, "{name}");
    }
}
