//! The log as a file: written, read, cut, damaged, disordered.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use common::{encoded_message, entries, entry, event, messages, records};
use lockstep_logging_channel::{
    Entry, EventKind, Existing, Generation, Kind, LogError, LogReader, LogWriter, Sequence,
};

/// Reads `bytes` as a log: the good entries, and what stopped it.
fn read(bytes: &[u8]) -> (Vec<Entry>, Option<LogError>) {
    let mut good = Vec::new();
    for entry in LogReader::new(bytes, Path::new("test.log")) {
        match entry {
            Ok(entry) => good.push(entry),
            Err(error) => return (good, Some(error)),
        }
    }
    (good, None)
}

/// What is wrong inside a log that is damaged.
fn damage(bytes: &[u8]) -> LogError {
    match read(bytes).1 {
        Some(LogError::Damaged { source, .. }) => *source,
        other => panic!("{other:?}"),
    }
}

fn written(directory: &Path, entries: &[Entry]) -> PathBuf {
    let path = directory.join("test.log");
    let mut log = LogWriter::create(&path, Existing::Refuse).unwrap();
    entries.iter().for_each(|entry| log.append(entry).unwrap());
    log.sync().unwrap();
    path
}

#[test]
fn what_is_appended_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path(), &entries());
    let read: Result<Vec<_>, _> = LogReader::open(&path).unwrap().collect();
    assert_eq!(read.unwrap(), entries());
    assert_eq!(fs::read(&path).unwrap(), records(&entries()).concat());
}

#[test]
fn dropping_the_writer_writes_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.log");
    let mut log = LogWriter::create(&path, Existing::Refuse).unwrap();
    log.append(&entries()[0]).unwrap();
    assert_eq!(fs::read(&path).unwrap().len(), 0);
    drop(log);
    assert_eq!(fs::read(&path).unwrap(), records(&entries()[..1]).concat());
}

#[test]
fn a_log_larger_than_the_buffers_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let frame = |sequence| {
        entry(
            sequence,
            sequence,
            event(EventKind::Frame(vec![sequence as u8; 60_000])),
        )
    };
    let log: Vec<_> = entries().into_iter().take(1).chain((1..30).map(frame)).collect();
    let mut reader = LogReader::open(&written(directory.path(), &log)).unwrap();
    let read: Vec<_> = reader.by_ref().map_while(Result::ok).collect();
    assert_eq!(read, log);
    assert_eq!(reader.offset(), records(&log).concat().len() as u64);
}

#[test]
fn an_existing_log_is_only_overwritten_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path(), &entries());
    let error = LogWriter::create(&path, Existing::Refuse).unwrap_err();
    assert!(matches!(&error, LogError::Exists { path: named } if *named == path));
    assert_eq!(fs::read(&path).unwrap(), records(&entries()).concat());
    drop(LogWriter::create(&path, Existing::Overwrite).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn a_missing_log_and_a_missing_directory_are_named() {
    let missing = Path::new("/nonexistent/test.log");
    assert_eq!(
        LogReader::open(missing).unwrap_err().to_string(),
        "cannot open log /nonexistent/test.log"
    );
    let error = LogWriter::create(missing, Existing::Refuse).unwrap_err();
    assert_eq!(error.to_string(), "cannot create log /nonexistent/test.log");
}

#[test]
fn a_file_that_takes_no_more_is_an_error_and_keeps_what_was_not_written() {
    // A file in memory that may not grow stands for a full disk.
    let full = memfd_create("full", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    fcntl(&full, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
    let path = format!("/proc/self/fd/{}", full.as_raw_fd());
    let mut log = LogWriter::create(Path::new(&path), Existing::Overwrite).unwrap();
    log.append(&entries()[0]).unwrap();
    for _ in 0..2 {
        let error = log.flush().unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write log {path}"));
        assert_eq!(log.buffered_bytes(), records(&entries()[..1]).concat().len());
    }
}

#[test]
fn a_log_that_is_given_up_before_it_begins_leaves_no_file_that_was_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.log");
    let begun = |existing| {
        let mut log = LogWriter::create(&path, existing).unwrap();
        log.append(&entries()[0]).unwrap();
        log
    };
    begun(Existing::Refuse).discard();
    assert!(!path.exists());
    fs::write(&path, "before").unwrap();
    begun(Existing::Overwrite).discard();
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn a_reader_goes_on_at_an_entry_without_those_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.log");
    let entries = entries();
    let mut log = LogWriter::create(&path, Existing::Refuse).unwrap();
    let mut offsets = Vec::new();
    for entry in &entries {
        offsets.push(log.offset());
        log.append(entry).unwrap();
    }
    let bytes = log.offset();
    drop(log);
    assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
    // What is skipped is not looked at.
    let mut damaged = fs::read(&path).unwrap();
    damaged[offsets[1] as usize + 20] ^= 1;
    fs::write(&path, &damaged).unwrap();

    let last = entries.len() - 1;
    let skipping = |next: u64, offset: u64| {
        let mut log = LogReader::open(&path).unwrap();
        log.next().unwrap().unwrap();
        log.skip_to(Sequence(next), offset, (0, 0)).map(|()| log)
    };
    let mut log = skipping(last as u64, offsets[last]).unwrap();
    assert_eq!(log.next().unwrap().unwrap(), entries[last]);
    assert_eq!((log.entries(), log.offset()), (last as u64 + 1, bytes));
    assert!(log.next().is_none());

    let error = skipping(last as u64, bytes + 1).unwrap_err();
    assert!(matches!(error, LogError::TooShort { .. }), "{error}");
    // Another entry begins there, or none.
    for (next, offset) in [(1, offsets[2]), (2, offsets[2] + 1)] {
        let error = skipping(next, offset).unwrap().next().unwrap().unwrap_err();
        assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    }
}

#[test]
fn the_writer_takes_no_entry_out_of_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.log");
    let mut log = LogWriter::create(&path, Existing::Refuse).unwrap();
    let error = log.append(&entries()[1]).unwrap_err();
    assert!(matches!(
        error,
        LogError::OutOfOrder {
            expected: Sequence(0),
            found: Sequence(1)
        }
    ));
    log.append(&entries()[0]).unwrap();
    assert!(log.append(&entries()[0]).is_err());
    log.append(&entries()[1]).unwrap();
    log.flush().unwrap();
    assert_eq!(fs::read(&path).unwrap(), records(&entries()[..2]).concat());
}

#[test]
fn a_log_cut_anywhere_says_where() {
    let records = records(&entries());
    let whole = records.concat();
    let ends: Vec<_> = (0..records.len())
        .map(|count| records[..count].concat().len())
        .collect();
    for length in 0..whole.len() {
        let good = ends.iter().rposition(|end| *end <= length).unwrap();
        let (read, error) = read(&whole[..length]);
        assert_eq!(read, entries()[..good]);
        let Some(LogError::CutOff {
            offset,
            entries,
            partial_bytes,
            ..
        }) = error
        else {
            panic!("cut at {length}: {error:?}");
        };
        assert_eq!((offset, entries), (ends[good] as u64, good as u64));
        assert_eq!(offset + partial_bytes, length as u64);
    }
}

#[test]
fn every_flipped_bit_is_found_in_its_entry() {
    let records = records(&entries());
    let whole = records.concat();
    let owners: Vec<_> = records
        .iter()
        .zip(0..)
        .flat_map(|(record, n)| vec![n; record.len()])
        .collect();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let owner = owners[bit / 8];
        let (read, error) = read(&damaged);
        assert_eq!(read, entries()[..owner], "bit {bit}");
        let found = match error {
            Some(LogError::Damaged { entries, .. } | LogError::CutOff { entries, .. }) => entries,
            other => panic!("bit {bit}: {other:?}"),
        };
        assert_eq!(found, owner as u64);
    }
}

#[test]
fn every_missing_doubled_or_swapped_entry_is_found() {
    let records = records(&entries());
    for first in 0..records.len() - 1 {
        let mut missing = records.clone();
        missing.remove(first);
        assert!(matches!(damage(&missing.concat()), LogError::OutOfOrder { .. }));

        let mut doubled = records.clone();
        doubled.insert(first, records[first].clone());
        assert!(matches!(damage(&doubled.concat()), LogError::OutOfOrder { .. }));

        for second in first + 1..records.len() {
            let mut swapped = records.clone();
            swapped.swap(first, second);
            assert!(matches!(damage(&swapped.concat()), LogError::OutOfOrder { .. }));
        }
    }
}

#[test]
fn nothing_but_entries_may_be_in_a_log() {
    let records = records(&entries());
    let whole = records.concat();
    let message = encoded_message(&messages()[4]);
    let misplaced = [&records[0], &message].map(Vec::as_slice).concat();
    assert!(matches!(
        damage(&misplaced),
        LogError::Misplaced {
            found: Kind::Acknowledge,
            ..
        }
    ));
    assert!(matches!(
        damage(&[&whole, &b"more"[..]].concat()),
        LogError::NotALog { .. }
    ));
    assert!(matches!(
        damage(&[&whole, &b"LSTP"[..]].concat()),
        LogError::Truncated { .. }
    ));
    assert!(matches!(damage(b"\x7fELF"), LogError::NotALog { .. }));
    assert!(matches!(
        damage(&[&records[0], &[0; 100][..]].concat()),
        LogError::NotALog { .. }
    ));
}

#[test]
fn nothing_follows_the_end() {
    let mut log = entries();
    log.push(entry(12, 500, event(EventKind::Timer)));
    let error = damage(&records(&log).concat());
    assert!(
        matches!(
            error,
            LogError::Misplaced {
                found: Kind::Event,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_environment_is_first_and_only_there() {
    let headless = records(&[entry(0, 0, event(EventKind::Timer))]).concat();
    assert!(matches!(
        damage(&headless),
        LogError::Misplaced {
            found: Kind::Event,
            ..
        }
    ));
    let second = entry(1, 0, entries()[0].body.clone());
    let doubled = records(&[entries()[0].clone(), second]).concat();
    assert!(matches!(
        damage(&doubled),
        LogError::Misplaced {
            found: Kind::Environment,
            ..
        }
    ));
}

#[test]
fn neither_execution_nor_generation_goes_back() {
    let start = entries()[0].clone();
    let at = |sequence, exits, instructions| {
        let mut entry = entry(sequence, exits, event(EventKind::Timer));
        entry.point.instructions = instructions;
        entry
    };
    let error = |log: &[Entry]| match damage(&records(log).concat()) {
        LogError::Backwards { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(error(&[start.clone(), at(1, 5, 0), at(2, 4, 9)]), "exit");
    assert_eq!(error(&[start.clone(), at(1, 5, 7), at(2, 5, 6)]), "instruction");
    let mut earlier = at(1, 5, 0);
    earlier.generation = Generation(0);
    assert_eq!(error(&[start.clone(), earlier]), "generation");
    let forward = records(&[start, at(1, 5, 7), at(2, 6, 0), at(3, 6, 0)]).concat();
    assert!(matches!(
        read(&forward).1,
        Some(LogError::CutOff { entries: 4, .. })
    ));
}

#[test]
fn after_an_error_there_is_nothing_more() {
    let mut log = LogReader::new(&b"garbage"[..], Path::new("test.log"));
    assert!(log.next().unwrap().is_err());
    assert!(log.next().is_none());
}
