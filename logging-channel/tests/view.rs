//! Logs as a person or another program reads them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::path::Path;

use common::{end, entries, environment, field, later_entries, records};
use lockstep_logging_channel::diff::{Diff, diff};
use lockstep_logging_channel::dump::{DumpError, DumpFilter, DumpFormat, dump};
use lockstep_logging_channel::info::{KindCount, LogInfo};
use lockstep_logging_channel::view::{EntryView, entry_kinds};
use lockstep_logging_channel::{
    Body, EndReason, Entry, Environment, Generation, Kind, LogError, LogReader, Value,
};
use serde_json::{Value as Json, json};

fn log(bytes: &[u8]) -> LogReader<&[u8]> {
    LogReader::new(bytes, Path::new("test.log"))
}

fn bytes_of(entries: &[Entry]) -> Vec<u8> {
    records(entries).concat()
}

fn dumped(entries: &[Entry], filter: &DumpFilter, format: DumpFormat) -> Vec<String> {
    let mut out = Vec::new();
    let printed = dump(&mut log(&bytes_of(entries)), filter, format, &mut out).unwrap();
    let lines: Vec<_> = String::from_utf8(out)
        .unwrap()
        .lines()
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(printed, lines.len() as u64);
    lines
}

fn json_lines() -> Vec<Json> {
    let lines = dumped(&entries(), &DumpFilter::default(), DumpFormat::JsonLines);
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn differing(left: &[Entry], right: &[Entry]) -> Diff {
    diff(&mut log(&bytes_of(left)), &mut log(&bytes_of(right))).unwrap()
}

#[test]
fn a_line_of_text_an_entry() {
    let lines = dumped(&entries(), &DumpFilter::default(), DumpFormat::Text);
    assert_eq!(lines.len(), entries().len());
    assert_eq!(
        lines[2],
        "       2 g1           20+0 value        monotonic 1000000 ns rip 0x401000"
    );
    let frame =
        "event        device 4 frame 20 bytes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa… at 2000000 ns rip 0x401000";
    assert!(lines[5].ends_with(frame), "{}", lines[5]);
    assert!(
        lines[11].contains("end          powered_off 3, 1 parts, memory 0707"),
        "{}",
        lines[11]
    );
}

#[test]
fn text_from_a_log_cannot_break_a_line() {
    let mut entries = entries();
    let informative = vec![field("host", "a\nb\u{1b}[2J")];
    entries[0].body = Body::Environment(Environment {
        informative,
        ..environment()
    });
    entries[11].body = end(EndReason::GuestFault("two\nlines".to_owned()));
    assert_eq!(
        dumped(&entries, &DumpFilter::default(), DumpFormat::Text).len(),
        12
    );
}

#[test]
fn json_keys_are_stable() {
    let lines = json_lines();
    let header = json!({
        "sequence": 6, "generation": 1, "exits": 60, "instructions": 0, "rip": "0x401000", "kind": "event",
        "body": {"device": 4, "event": "timer", "monotonic_ns": 2_000_000},
    });
    assert_eq!(lines[6], header);
    let bodies: Vec<_> = lines.iter().map(|line| line["body"].clone()).collect();
    let digest = "07".repeat(16);
    assert_eq!(bodies[0]["pair"], json!("30313233343536373839616263646566"));
    assert_eq!(
        bodies[0]["compared"][1],
        json!({"name": "memory", "value": "64 MiB"})
    );
    assert_eq!(
        bodies[0]["informative"][0],
        json!({"name": "host", "value": "first"})
    );
    assert_eq!(
        bodies[1],
        json!({"question": "tsc", "ticks": "0xffffffffffffffff"})
    );
    assert_eq!(bodies[2], json!({"question": "monotonic", "ns": 1_000_000}));
    assert_eq!(
        bodies[3],
        json!({"question": "wall", "ns": 1_800_000_000_000_000_000_u64})
    );
    assert_eq!(bodies[4], json!({"question": "random", "bytes": "0102ff"}));
    assert_eq!(bodies[5]["bytes"], json!("aa".repeat(20)));
    let console =
        json!({"device": 4, "event": "console_input", "monotonic_ns": 2_000_000, "bytes": "68690a"});
    assert_eq!(bodies[7], console);
    assert_eq!(
        bodies[8],
        json!({"device": 4, "target": "network", "length": 3, "digest": "09".repeat(16)})
    );
    assert_eq!(
        bodies[10]["parts"][1],
        json!({"part": "serial", "digest": digest})
    );
    let parts = json!([{"part": "memory", "digest": digest}]);
    assert_eq!(
        bodies[11],
        json!({"reason": "powered_off", "status": 3, "parts": parts})
    );
}

#[test]
fn a_dump_can_be_narrowed() {
    let kinds = Some(vec![Kind::Event]);
    let events = DumpFilter {
        sequences: 6..=20,
        kinds,
    };
    assert_eq!(dumped(&entries(), &events, DumpFormat::JsonLines).len(), 2);
    let range = DumpFilter {
        sequences: 2..=4,
        kinds: None,
    };
    assert_eq!(dumped(&entries(), &range, DumpFormat::Text).len(), 3);
}

#[test]
fn a_dump_of_a_cut_log_prints_what_is_good() {
    let mut out = Vec::new();
    let bytes = bytes_of(&entries()[..3]);
    let result = dump(
        &mut log(&bytes),
        &DumpFilter::default(),
        DumpFormat::Text,
        &mut out,
    );
    assert!(matches!(
        result,
        Err(DumpError::Log(LogError::CutOff { entries: 3, .. }))
    ));
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 3);
}

#[test]
fn a_closed_output_is_an_error() {
    let result = dump(
        &mut log(&bytes_of(&entries())),
        &DumpFilter::default(),
        DumpFormat::JsonLines,
        &mut &mut [0; 10][..],
    );
    assert!(matches!(result, Err(DumpError::Output(_))));
}

#[test]
fn info_sums_up() {
    let bytes = bytes_of(&entries());
    let info = LogInfo::of(&mut log(&bytes));
    assert_eq!(
        (info.entries, info.bytes, info.exits),
        (12, bytes.len() as u64, 110)
    );
    assert_eq!((info.generation_first, info.generation_last), (1, 1));
    let values = bytes_of(&entries()[1..5]).len() as u64;
    assert_eq!(
        info.kinds["value"],
        KindCount {
            entries: 4,
            bytes: values
        }
    );
    assert_eq!(
        info.kinds.values().map(|count| count.bytes).sum::<u64>(),
        info.bytes
    );
    assert_eq!(info.environment, Some(environment()));
    assert_eq!(info.guest_ns, Some(2_000_000));
    // In 2 ms.
    let mbit_per_second = bytes.len() as f64 * 8.0 / 2_000.0;
    assert!((info.mbit_per_second.unwrap() - mbit_per_second).abs() < 1e-9);
    assert!(info.fault.is_none());
    let text = info.to_string();
    assert!(
        text.contains("memory = 64 MiB") && text.contains("powered_off 3"),
        "{text}"
    );
    for (name, KindCount { entries, .. }) in &info.kinds {
        let mut words = text.lines().map(str::split_whitespace);
        let told =
            words.any(|mut line| line.next() == Some(*name) && line.next() == Some(&entries.to_string()));
        assert!(told, "{name}: {text}");
    }
    let json = serde_json::to_value(&info).unwrap();
    assert_eq!(json["kinds"]["event"]["entries"], json!(3));
    assert_eq!(json["end"]["body"]["status"], json!(3));
    assert_eq!(
        json["environment"]["pair"],
        json!("30313233343536373839616263646566")
    );
}

#[test]
fn info_of_a_damaged_log_says_how_far_it_is_good() {
    let mut bytes = bytes_of(&entries());
    let third = bytes_of(&entries()[..2]).len();
    bytes[third + 10] ^= 1;
    let info = LogInfo::of(&mut log(&bytes));
    assert_eq!((info.entries, info.bytes), (2, third as u64));
    assert!(matches!(info.fault, Some(LogError::Damaged { entries: 2, .. })));
    assert!(info.to_string().contains("not complete"));
}

#[test]
fn the_same_logs_are_the_same() {
    assert_eq!(differing(&entries(), &entries()), Diff::Same { entries: 12 });
}

#[test]
fn what_depends_on_the_host_is_not_compared() {
    let mut other = entries();
    let informative = vec![field("host", "second")];
    other[0].body = Body::Environment(Environment {
        pair: [9; 16],
        informative,
        ..environment()
    });
    other[3].point.rip = 0;
    assert_eq!(differing(&entries(), &other), Diff::Same { entries: 12 });
}

#[test]
fn the_first_difference_is_named() {
    let change = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut other = entries();
        change(&mut other);
        match differing(&entries(), &other) {
            Diff::Differs { field, left, .. } => (left.sequence.0, field),
            other => panic!("{other}"),
        }
    };
    let mut memory = environment();
    memory.compared[1].value = "1 MiB".to_owned();
    let memory = Body::Environment(memory);
    assert_eq!(
        change(&|log| log[0].body = memory.clone()),
        (0, "memory".to_owned())
    );
    let tsc = Body::Value(Value::Tsc(1));
    assert_eq!(change(&|log| log[2].body = tsc.clone()), (2, "value".to_owned()));
    assert_eq!(change(&|log| log[6].body = tsc.clone()), (6, "kind".to_owned()));
    assert_eq!(
        change(&|log| log[6].point.instructions = 1),
        (6, "execution point".to_owned())
    );
    assert_eq!(
        change(&|log| log[6].point.rip = 1),
        (6, "execution point".to_owned())
    );
    assert_eq!(
        change(&|log| log[11].generation = Generation(2)),
        (11, "generation".to_owned())
    );
}

#[test]
fn a_log_that_goes_on_is_longer() {
    let next = Box::new(entries()[5].clone());
    let ends = Diff::Ends {
        entries: 5,
        left_is_longer: true,
        next,
    };
    assert_eq!(differing(&entries(), &entries()[..5]), ends);
    let text = differing(&entries()[..5], &entries()).to_string();
    assert!(text.starts_with("the first log ends after 5 entries"), "{text}");
}

#[test]
fn damage_is_not_a_difference() {
    let mut damaged = bytes_of(&entries());
    damaged[60] ^= 1;
    let result = diff(&mut log(&bytes_of(&entries())), &mut log(&damaged));
    assert!(matches!(result, Err(LogError::Damaged { entries: 0, .. })));
}

#[test]
fn every_kind_of_entry_can_be_named_and_an_older_log_has_none_of_another() {
    let kinds: Vec<Kind> = entry_kinds().collect();
    for kind in Kind::ALL {
        let is_named = kind.is_entry() && kind.read_as() == *kind;
        assert_eq!(kinds.contains(kind), is_named, "{kind:?}");
        assert_eq!(kinds.contains(&kind.read_as()), kind.is_entry(), "{kind:?}");
    }
}

#[test]
fn what_disks_do_is_shown() {
    let text: Vec<_> = later_entries()
        .iter()
        .skip(3)
        .map(|entry| EntryView::from(entry).to_string())
        .collect();
    let expected = [
        "disk completion device 4 request 300 disk_done at 2000000 ns",
        "disk completion device 4 request 300 disk_read, digest 06060606060606060606060606060606, at 2000000 ns",
        "disk completion device 4 request 300 disk_read 3 bytes 0102ff at 2000000 ns",
        "disk write   device 6 request 300, digest 08080808080808080808080808080808",
        "disk change  device 6 request 300 written 3 bytes from 300 on",
        "disk change  device 6 request 300 flushed 0 bytes from 0 on",
        "disk change  device 6 request 300 discarded 512 bytes from 300 on",
        "disk change  device 6 request 300 zeroed 512 bytes from 300 on",
    ];
    for (text, expected) in text.iter().zip(expected) {
        assert!(text.contains(expected), "{text}");
    }
    let json = |index: usize| serde_json::to_value(EntryView::from(&later_entries()[index])).unwrap();
    assert_eq!(
        json(4)["body"],
        json!({ "device": 4, "event": "disk_read", "monotonic_ns": 2_000_000, "number": 300,
            "digest": "06".repeat(16) })
    );
    assert_eq!(json(6)["kind"], "disk write");
    assert_eq!(
        json(6)["body"],
        json!({ "device": 6, "number": 300, "digest": "08".repeat(16) })
    );
    assert_eq!(json(7)["kind"], "disk change");
    assert_eq!(
        json(7)["body"],
        json!({ "device": 6, "number": 300, "change": "written", "offset": 300, "length": 3 })
    );
}
