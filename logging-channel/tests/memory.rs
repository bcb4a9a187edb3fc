//! What a file or a peer claims does not decide how much memory is taken. Alone in its process, because it
//! measures that process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::path::Path;

use common::{encoded, entries, seal};
use lockstep_logging_channel::{BODY_BYTES_MAX, HEADER_BYTES, LogReader, codec};

/// The most a decoded body may take: an environment of empty fields, 2 bytes each encoded, is 48 bytes each
/// decoded, in a vector that may have twice the room it needs and is copied once while it grows: 24 × 3.
const GROWTH_BYTES_MAX: u64 = 72 * BODY_BYTES_MAX as u64;

/// The largest size this process ever had, reserved memory included.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A sound environment record with this body.
fn environment_record(body: &[u8]) -> Vec<u8> {
    let mut record = encoded(&entries()[0])[..HEADER_BYTES].to_vec();
    record[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    record.extend_from_slice(body);
    seal(&mut record);
    record
}

#[test]
fn hostile_claims_take_bounded_memory() {
    let pair = [0; 16];
    let count_of_4_gib = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let claims_many = environment_record(&[&pair[..], &count_of_4_gib, &[0; 1000]].concat());
    // 65,526 fields as a three-byte number, all empty, then no informative ones.
    let fields = [&pair[..], &[0xf6, 0xff, 0x03], &[0; 2 * 65_526], &[0]].concat();
    let many_small = environment_record(&fields);
    let mut claims_long = encoded(&entries()[0])[..HEADER_BYTES].to_vec();
    claims_long[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let before = peak_bytes();

    assert!(codec::decode(&claims_many).is_err());
    assert!(codec::decode(&claims_long).is_err());
    assert!(codec::decode(&many_small).is_ok());
    assert!(
        LogReader::new(&claims_long[..], Path::new("x"))
            .next()
            .unwrap()
            .is_err()
    );
    assert!(
        LogReader::new(&claims_many[..], Path::new("x"))
            .next()
            .unwrap()
            .is_err()
    );

    let growth = peak_bytes() - before;
    assert!(growth <= GROWTH_BYTES_MAX, "{growth} bytes");
}
