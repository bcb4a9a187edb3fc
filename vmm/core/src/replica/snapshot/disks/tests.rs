//! The disks of a snapshot: what is read is what was written, or there is one clear error.

use super::*;
use crate::replica::snapshot::Recording;
use lockstep_logging_channel::Digest;
use std::collections::BTreeMap;
use std::io::Cursor;

/// Two disks, the second of which ends within a block.
const SIZES_BYTES: [u64; 2] = [4 * DISK_BLOCK_BYTES, DISK_BLOCK_BYTES + 512];
const RECORDING: Recording = Recording {
    name: [7; 16],
    machine: Digest([8; 16]),
    memory_bytes: 0,
};
const BEFORE: Before = Before {
    entry: 11,
    digest: Digest([9; 16]),
};

fn block(disk: u8, block: u64) -> DiskBlock {
    DiskBlock { disk, block }
}

fn filled(byte: u8) -> Vec<u8> {
    vec![byte; DISK_BLOCK_BYTES as usize]
}

/// A block that is written twice, one that is zeros, and one that is shorter.
fn file() -> Vec<u8> {
    let mut writer = DisksWriter::new(Cursor::new(Vec::new())).unwrap();
    writer.put(block(0, 2), &filled(1)).unwrap();
    writer.put(block(0, 3), &filled(0)).unwrap();
    writer.put(block(1, 1), &[5; 512]).unwrap();
    writer.put(block(0, 2), &filled(2)).unwrap();
    let bytes = writer.bytes();
    let (sink, header) = writer.finish(&RECORDING, 12, Some(BEFORE)).unwrap();
    let file = sink.into_inner();
    assert_eq!(file.len() as u64, bytes);
    assert_eq!(read_disks_header(&mut file.as_slice()).unwrap(), header);
    file
}

fn read(file: &[u8]) -> Result<BTreeMap<DiskBlock, Vec<u8>>, SnapshotError> {
    let mut source = Cursor::new(file);
    let header = read_disks_header(&mut source)?;
    header.check(&RECORDING)?;
    let found = scan(&mut source, &header, &SIZES_BYTES)?;
    let mut blocks = BTreeMap::new();
    for (block, found) in found {
        let mut bytes = Vec::new();
        read_bytes(&mut source, &found, &mut bytes)?;
        blocks.insert(block, bytes);
    }
    Ok(blocks)
}

#[test]
fn of_several_records_of_a_block_the_last_one_is_read() {
    let blocks = read(&file()).unwrap();
    let expected = [
        (block(0, 2), filled(2)),
        (block(0, 3), Vec::new()),
        (block(1, 1), vec![5; 512]),
    ];
    assert_eq!(blocks, BTreeMap::from(expected));
}

#[test]
fn zeros_take_no_room() {
    let file = file();
    let written = 2 * DISK_BLOCK_BYTES as usize + 512;
    assert_eq!(file.len(), DISKS_HEADER_BYTES + 4 * HEAD_BYTES + written);
}

#[test]
fn one_that_is_cut_anywhere_is_refused() {
    let file = file();
    for bytes in (0..file.len()).step_by(509).chain([file.len() - 1]) {
        let why = read(&file[..bytes]).unwrap_err();
        assert!(matches!(why, SnapshotError::Cut { .. }), "{bytes}: {why}");
    }
}

#[test]
fn a_byte_that_was_changed_is_found_where_it_is_read() {
    let file = file();
    let superseded = DISKS_HEADER_BYTES + HEAD_BYTES..DISKS_HEADER_BYTES + HEAD_BYTES + 65_536;
    let places = (0..DISKS_HEADER_BYTES + HEAD_BYTES).chain((superseded.end..file.len()).step_by(101));
    for place in places {
        let mut changed = file.clone();
        changed[place] ^= 4;
        assert!(read(&changed).is_err(), "byte {place}");
    }
    let mut changed = file.clone();
    changed[superseded.start] ^= 4;
    assert_eq!(read(&changed).unwrap(), read(&file).unwrap());
}

#[test]
fn what_goes_on_behind_its_end_is_refused() {
    let file = [file(), vec![0]].concat();
    assert!(matches!(read(&file).unwrap_err(), SnapshotError::BehindEnd));
}

#[test]
fn a_later_version_and_something_else_are_named() {
    let mut later = file();
    later[4] = 9;
    let why = read(&later).unwrap_err();
    assert!(
        matches!(why, SnapshotError::Version { found: 9, .. }) && why.is_mismatch(),
        "{why}"
    );
    let why = read(&[0; 200]).unwrap_err();
    assert!(matches!(why, SnapshotError::ForeignDisks), "{why}");
}

#[test]
fn those_of_another_recording_or_machine_are_refused() {
    let of = |recording: Recording| {
        let writer = DisksWriter::new(Cursor::new(Vec::new())).unwrap();
        let (sink, _) = writer.finish(&recording, 12, None).unwrap();
        read(&sink.into_inner()).unwrap_err()
    };
    let name = [1; 16];
    let why = of(Recording { name, ..RECORDING });
    assert!(matches!(why, SnapshotError::OtherRecording { .. }), "{why}");
    let machine = Digest([1; 16]);
    let why = of(Recording { machine, ..RECORDING });
    assert!(matches!(why, SnapshotError::OtherMachine), "{why}");
}

#[test]
fn blocks_that_no_disk_has_are_refused() {
    for there_is_not in [block(2, 0), block(0, 4), block(1, 2), block(0, u64::MAX)] {
        let mut writer = DisksWriter::new(Cursor::new(Vec::new())).unwrap();
        writer.put(there_is_not, &[1; 512]).unwrap();
        let (sink, _) = writer.finish(&RECORDING, 12, None).unwrap();
        let why = read(&sink.into_inner()).unwrap_err();
        assert!(matches!(why, SnapshotError::NoSuchBlock { .. }), "{why}");
    }
    let mut writer = DisksWriter::new(Cursor::new(Vec::new())).unwrap();
    writer.put(block(0, 1), &[1; 512]).unwrap();
    let (sink, _) = writer.finish(&RECORDING, 12, None).unwrap();
    let why = read(&sink.into_inner()).unwrap_err();
    assert!(matches!(why, SnapshotError::Damaged { .. }), "{why}");
}

#[test]
fn files_only_become_older() {
    let before = Before { entry: 12, ..BEFORE };
    let writer = DisksWriter::new(Cursor::new(Vec::new())).unwrap();
    let (sink, header) = writer.finish(&RECORDING, 12, Some(before)).unwrap();
    let why = read(&sink.into_inner()).unwrap_err();
    assert!(matches!(why, SnapshotError::Damaged { part: "header" }), "{why}");
    assert_eq!(header.as_before().entry, 12);
}

/// The format is a promise.
#[test]
fn the_bytes_of_a_file_stay_what_they_are() {
    let mut writer = DisksWriter::new(Cursor::new(Vec::new())).unwrap();
    writer.put(block(1, 1), &[0; 512]).unwrap();
    let (sink, _) = writer.finish(&RECORDING, 12, Some(BEFORE)).unwrap();
    let file = sink.into_inner();
    assert_eq!(&file[..8], b"LSDK\x01\0\0\0");
    assert_eq!(&file[8..40], [[7; 16], [8; 16]].concat());
    let numbers = |range: std::ops::Range<usize>| -> Vec<u64> {
        let chunks = file[range].chunks_exact(8);
        chunks
            .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap()))
            .collect()
    };
    assert_eq!(numbers(40..56), [12, 11]);
    assert_eq!(&file[56..72], [9; 16]);
    assert_eq!(numbers(72..88), [1, 32]);
    assert_eq!(&file[88..104], Digest::of(&file[128..160]).0);
    assert_eq!(numbers(104..112), [0]);
    assert_eq!(&file[112..128], Digest::of(&file[..112]).0);
    assert_eq!(&file[128..144], b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
    assert_eq!(&file[144..160], Digest::of(&[]).0);
}
