//! A process that writes an image is killed at any place, again and again: the image can be used,
//! and has everything that was flushed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

use lockstep_shared_disk::image::{Format, Image, Options, check, create};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Places that are written: more than one table of the second level has, so that tables are made,
/// too.
const PLACES: u64 = 60;
const PLACE_BYTES: u64 = 65_536;
/// Place on the disk from one to the next: clusters of many tables.
const STRIDE_BYTES: u64 = 300 << 20;
/// Times that the writer is killed.
const ROUNDS: u64 = 12;
/// Writes between two flushes.
const FLUSH_EVERY: u64 = 4;

const IMAGE: &str = "LOCKSTEP_TEST_IMAGE";
const FIRST: &str = "LOCKSTEP_TEST_FIRST";

fn place_of(write: u64) -> u64 {
    write * 7919 % PLACES
}

/// True for a write before which its place is discarded.
fn discards(write: u64) -> bool {
    write % 11 == 5
}

/// The writer: a process of its own, which prints the number of each write that is flushed.
#[test]
#[ignore = "run by the test below"]
fn writer() {
    let path = PathBuf::from(std::env::var_os(IMAGE).unwrap());
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let image = Image::open(&path, &Options::default()).unwrap();
    let mut output = std::io::stdout();
    for write in first.. {
        let offset = place_of(write) * STRIDE_BYTES;
        let bytes = write.to_le_bytes().repeat(PLACE_BYTES as usize / 8);
        if discards(write) {
            image.discard(offset, PLACE_BYTES).unwrap();
        }
        image.write_at(offset, &bytes).unwrap();
        if write % FLUSH_EVERY == 0 {
            image.flush().unwrap();
            writeln!(output, "flushed {write}").unwrap();
        }
    }
}

/// Lets a writer begin with write `first`, and kills it after so many flushes. Gives the last write
/// that it has flushed: at most as many as there are between two flushes, twice, are not.
fn write_and_kill(path: &Path, first: u64, flushes: u64) -> u64 {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture"])
        .envs([(IMAGE, path.as_os_str()), (FIRST, first.to_string().as_ref())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    // The last line may be cut.
    let whole = lines.map_while(Result::ok);
    let mut flushed = whole.filter_map(|line| line.split_once("flushed ")?.1.parse().ok());
    let seen = flushed.nth(flushes as usize);
    writer.kill().unwrap();
    writer.wait().unwrap();
    // It may have gone on before it was killed.
    flushed.last().or(seen).unwrap()
}

fn kill_writers_of(format: Format) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    create(&path, PLACES * STRIDE_BYTES, format, false).unwrap();
    let mut first = 1;
    // The last write of each place that is durable.
    let mut durable = BTreeMap::new();
    for round in 0..ROUNDS {
        let flushed = write_and_kill(&path, first, round % 5);
        for write in first..=flushed {
            durable.insert(place_of(write), write);
        }
        check(&path).unwrap();
        let image = Image::open(&path, &Options::default()).unwrap();
        for (place, last) in &durable {
            let mut found = vec![0; PLACE_BYTES as usize];
            image.read_at(place * STRIDE_BYTES, &mut found).unwrap();
            for bytes in found.chunks(8) {
                let write = u64::from_le_bytes(bytes.try_into().unwrap());
                // A write that was not flushed may be there, or a part of it, or its discard.
                let mut later = (flushed + 1..=flushed + 2 * FLUSH_EVERY).filter(|w| place_of(*w) == *place);
                assert!(
                    write == *last || later.any(|later| write == later || write == 0 && discards(later)),
                    "{write} is at place {place} in round {round}, and {last} was flushed"
                );
            }
        }
        // Nobody knows which of the writes after it were made: they begin anew, with other numbers.
        first = flushed + 1000;
        for place in 0..PLACES {
            image
                .write_at(
                    place * STRIDE_BYTES,
                    &first.to_le_bytes().repeat(PLACE_BYTES as usize / 8),
                )
                .unwrap();
            durable.insert(place, first);
        }
        image.flush().unwrap();
        first += 1;
    }
}

#[test]
fn a_raw_image_whose_writer_is_killed_has_what_was_flushed() {
    kill_writers_of(Format::Raw);
}

#[test]
fn a_qcow2_image_whose_writer_is_killed_has_what_was_flushed() {
    kill_writers_of(Format::Qcow2);
}
