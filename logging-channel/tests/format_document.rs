//! `docs/log-format.md` says what the code does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use lockstep_logging_channel::Kind;
use lockstep_logging_channel::codec::{
    BODY_BYTES_MAX, FORMAT_VERSION, FORMAT_VERSION_MIN, HEADER_BYTES, MAGIC, RECORD_BYTES_MAX,
};
use lockstep_logging_channel::message::PIECE_BYTES_MAX;

const DOCUMENT: &str = include_str!("../../docs/log-format.md");

#[test]
fn every_kind_is_in_its_tables() {
    let rows: Vec<_> = DOCUMENT.lines().filter(|line| line.starts_with("| ")).collect();
    for kind in Kind::ALL {
        let row = format!("| {} | {kind} |", kind.number());
        assert_eq!(
            rows.iter().filter(|line| line.starts_with(&row)).count(),
            1,
            "{row}"
        );
    }
}

#[test]
fn the_constants_are_those_of_the_code() {
    let magic = String::from_utf8(MAGIC.to_vec()).unwrap();
    let said = [
        format!("Version {FORMAT_VERSION}."),
        format!("begins with {HEADER_BYTES} bytes"),
        format!("versions {FORMAT_VERSION_MIN} and {FORMAT_VERSION}, and writes {FORMAT_VERSION}"),
        format!("the ASCII letters `{magic}`"),
        format!("at most {BODY_BYTES_MAX} |"),
        format!("list of `u8`, at most {PIECE_BYTES_MAX} of them"),
        format!("| {} bytes | twice the longest record |", 2 * RECORD_BYTES_MAX),
    ];
    for text in said {
        assert!(DOCUMENT.contains(&text), "{text}");
    }
}
