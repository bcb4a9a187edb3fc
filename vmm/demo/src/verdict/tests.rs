//! Verdicts on good demonstrations and bad ones.

use super::*;
use crate::joining::Started;
use crate::timeline::{Loss, Timeline};
use crate::{Kill, KillSignal, Mode};

fn good_load() -> LoadResult {
    LoadResult {
        clients: 8,
        acknowledged_writes: 100,
        ..LoadResult::default()
    }
}

fn good_timeline() -> Timeline {
    Timeline {
        detect_ms: Some(1.0),
        arbitrate_ms: Some(2.0),
        live_ms: Some(3.0),
        lost_at_ns: 10,
        generation: Some(2),
        ..Timeline::default()
    }
}

fn story(number: u16, timeline: Timeline, joining: Option<Joining>) -> Story {
    Story {
        number,
        loss: Loss {
            replica: Kill::Primary,
            signal: KillSignal::Kill,
            process: 7,
            at_ns: 10,
            woken_at_ns: None,
            mode: Mode::Replay,
        },
        survivor: 8,
        timeline,
        joining,
        gap_ns: u64::from(number) * 1_000_000,
    }
}

fn joining() -> Joining {
    let started = Started {
        process: 9,
        at_ns: 5_000_010,
    };
    let newcomer =
        r#"{"at_ns":9000010,"event":"received","bytes":4096,"memory_bytes_received":8192,"elapsed_ms":2}"#;
    let holder = r#"{"at_ns":10000010,"event":"armed"}"#;
    Joining::of(started, &newcomer.into(), &holder.into())
}

fn judged(
    load: &LoadResult,
    findings: Findings,
    stories: &[Story],
    troubles: &[String],
) -> (Verdict, String) {
    let primary = r#"{"at_ns":1,"event":"statistics","log_entries":50,"log_bytes":4096,"outputs":9,"held_us_p50":110,"held_us_p99":220}"#;
    let backup = r#"{"at_ns":1,"event":"statistics","log_entries":48,"log_bytes":4000,"outputs":2,"held_us_p50":1,"held_us_p99":2}
{"at_ns":9000000,"event":"summary","log_entries":900,"log_bytes":9000,"outputs":2,"held_us_p50":1,"held_us_p99":2}"#;
    let third = r#"{"at_ns":1,"event":"summary","log_entries":7000,"log_bytes":7000,"held_us_p50":5,"held_us_p99":6}"#;
    let reports = [primary.into(), backup.into(), third.into()];
    let evidence = Evidence {
        load,
        findings,
        stories,
        gap_ns: stories.first().map_or(0, |first| first.gap_ns),
        reports: &reports,
        troubles,
    };
    let verdict = Verdict::of(&evidence);
    let text = verdict.lines(&evidence).join("\n");
    (verdict, text)
}

fn keys(value: &serde_json::Value) -> Vec<String> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort_unstable();
    keys
}

#[test]
fn json_has_exactly_the_agreed_keys() {
    let stories = [story(1, good_timeline(), Some(joining()))];
    let (verdict, _) = judged(&good_load(), Findings::default(), &stories, &[]);
    let json = serde_json::to_value(&verdict).unwrap();
    let mut agreed = [
        "ok",
        "clients",
        "connections_broken",
        "acknowledged_writes",
        "lost_writes",
        "wrong_reads",
        "detect_ms",
        "arbitrate_ms",
        "live_ms",
        "client_gap_ms",
        "divergences",
        "log_entries",
        "log_bytes",
        "held_us_p50",
        "held_us_p99",
        "rounds",
    ];
    agreed.sort_unstable();
    assert_eq!(keys(&json), agreed);
    let mut agreed = [
        "round",
        "lost",
        "lost_process",
        "survivor_process",
        "generation",
        "detect_ms",
        "arbitrate_ms",
        "live_ms",
        "client_gap_ms",
        "new_backup_process",
        "join_ms",
        "copied_bytes",
        "copy_ms",
        "arm_ms",
        "unprotected_ms",
    ];
    agreed.sort_unstable();
    assert_eq!(keys(&json["rounds"][0]), agreed);
}

#[test]
fn a_good_run_is_ok() {
    let stories = [story(1, good_timeline(), None)];
    let (verdict, text) = judged(&good_load(), Findings::default(), &stories, &[]);
    assert!(verdict.ok);
    // The survivor counts on when it is alone.
    assert_eq!(
        (verdict.log_entries, verdict.held_us_p50, verdict.held_us_p99),
        (900, 110, 220)
    );
    assert!(
        text.ends_with("outlived the loss; nothing was lost, broken or wrong"),
        "{text}"
    );
}

#[test]
fn with_several_rounds_the_first_is_told_as_ever_and_each_beside_it() {
    let late = Timeline {
        live_ms: Some(30.0),
        generation: Some(3),
        ..good_timeline()
    };
    let stories = [story(1, good_timeline(), Some(joining())), story(2, late, None)];
    let (verdict, text) = judged(&good_load(), Findings::default(), &stories, &[]);
    assert!(verdict.ok);
    assert_eq!(
        (verdict.live_ms, verdict.client_gap_ms, verdict.log_entries),
        (Some(3.0), 1.0, 50)
    );
    let [first, second] = &verdict.rounds[..] else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        (
            first.copied_bytes,
            first.copy_ms,
            first.arm_ms,
            first.unprotected_ms
        ),
        (Some(4096), Some(2.0), Some(1.0), Some(10.0))
    );
    assert_eq!(first.join_ms, Some(2.0));
    assert_eq!(
        (
            second.generation,
            second.live_ms,
            second.client_gap_ms,
            second.copied_bytes
        ),
        (Some(3), Some(30.0), 2.0, None)
    );
    assert!(
        text.contains("longest wait for a reply, a round: 1.0, 2.0 ms"),
        "{text}"
    );
    assert!(text.contains("outlived 2 losses"), "{text}");
}

#[test]
fn a_round_is_told_with_its_sides_and_the_wait_in_it() {
    let lines = story(2, good_timeline(), None).lines(3);
    assert_eq!(
        lines,
        [
            "round 2 of 3: process 7 is the primary, process 8 its backup",
            "               longest wait of a client: 2.0 ms",
        ]
    );
    assert!(story(1, good_timeline(), None).lines(1).is_empty());
}

#[test]
fn every_fault_fails_it_and_is_named() {
    let broken = LoadResult {
        broken: vec!["reset".into()],
        ..good_load()
    };
    let wrong = LoadResult {
        wrong_reads: 2,
        ..good_load()
    };
    let idle = LoadResult {
        acknowledged_writes: 0,
        ..good_load()
    };
    let lost = Findings {
        lost_writes: 3,
        wrong_reads: 0,
    };
    let dead = Timeline {
        lost_at_ns: 10,
        ..Timeline::default()
    };
    let stories = [story(1, good_timeline(), Some(joining())), story(2, dead, None)];
    let none = Findings::default();
    for ((verdict, text), named) in [
        (judged(&broken, none, &[], &[]), "1 connections broken"),
        (judged(&wrong, none, &[], &[]), "2 wrong answers"),
        (judged(&idle, none, &[], &[]), "no write was ever acknowledged"),
        (judged(&good_load(), lost, &[], &[]), "3 acknowledged writes lost"),
        (
            judged(&good_load(), none, &stories, &[]),
            "round 2: the survivor never went on alone",
        ),
        (
            judged(&good_load(), none, &[], &["the moon fell".into()]),
            "the moon fell",
        ),
    ] {
        assert!(
            !verdict.ok && text.contains("FAILED") && text.contains(named),
            "{text}"
        );
    }
}
