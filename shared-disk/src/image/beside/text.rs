//! Text of the files beside an image: lines, the first with kind and version, the last with a
//! checksum of all before it. Later software appends lines before the checksum.

use crate::name::{Hex, from_hex};
use std::fmt::Write;

/// Kind of a text.
pub(super) enum Sealed<'a> {
    /// The lines between the first and the checksum, which is right.
    Body(&'a str),
    /// It is of this kind, and of another version.
    Version(u32),
    /// It has this defect.
    Damaged(&'static str),
}

/// Appends the checksum.
pub(super) fn seal(mut text: String) -> String {
    let sum = checksum(&text);
    // Writing into a string cannot fail.
    let _ = writeln!(text, "check {}", Hex(&sum));
    text
}

/// Reads a text of this kind.
pub(super) fn unseal<'a>(bytes: &'a [u8], kind: &str, version: u32) -> Sealed<'a> {
    let text = str::from_utf8(bytes).unwrap_or_default();
    let (first, _) = text.split_once('\n').unwrap_or_default();
    let found = first.strip_prefix(kind).and_then(|rest| rest.strip_prefix(' '));
    match found.and_then(|found| found.parse().ok()) {
        Some(found) if found == version => {}
        Some(found) => return Sealed::Version(found),
        None => return Sealed::Damaged("it does not begin as such a file"),
    }
    let body = checked(text).and_then(|body| body.get(first.len() + 1..));
    body.map_or(Sealed::Damaged("its checksum is wrong"), Sealed::Body)
}

/// The lines before the checksum, if that is right.
fn checked(text: &str) -> Option<&str> {
    let lines = text.strip_suffix('\n')?;
    let (before, last) = lines.rsplit_once('\n')?;
    let body = text.get(..before.len() + 1)?;
    let sum = from_hex(last.strip_prefix("check ")?)?;
    (sum == checksum(body)).then_some(body)
}

fn checksum(text: &str) -> [u8; 16] {
    let mut sum = [0; 16];
    blake3::Hasher::new()
        .update(text.as_bytes())
        .finalize_xof()
        .fill(&mut sum);
    sum
}
