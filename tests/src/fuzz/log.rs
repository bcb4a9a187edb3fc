//! The log decoder. Whatever the bytes: no panic; a record is never longer than it may be, and is
//! the same when encoded and decoded again; a reader gives good entries and then one error, however
//! its input is cut; what is printed is one line an entry, and JSON where it says so.

use std::io::{self, Read};
use std::path::Path;

use lockstep_logging_channel::codec::RECORD_BYTES_MIN;
use lockstep_logging_channel::diff::{self, Diff};
use lockstep_logging_channel::dump::{self, DumpFilter, DumpFormat};
use lockstep_logging_channel::info::LogInfo;
use lockstep_logging_channel::{Body, Entry, LogError, LogReader, Message, RECORD_BYTES_MAX, Record, codec};

use super::seal;

/// Runs the target: on the bytes as they are, and made into sound records.
pub fn run(bytes: &[u8]) {
    check(bytes);
    check(&seal::sealed(bytes));
}

fn check(bytes: &[u8]) {
    decode_all(bytes);
    let entries = read_all(bytes);
    print_all(bytes, &entries);
}

fn decode_all(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        match codec::decode(rest) {
            Ok((record, length)) => {
                assert!((RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&length));
                assert_eq!(codec::record_length(rest).unwrap(), length);
                encode_again(&record, length);
                rest = &rest[length..];
            }
            Err(LogError::Truncated { needed, available }) => {
                assert!(available == rest.len() && needed > available && needed <= RECORD_BYTES_MAX);
                return;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
}

/// Fails unless what was decoded has an encoding, which says the same and is not longer; but an
/// entry that names no device has one that does, in a byte, and so has a beginning that does not say
/// by what it is followed.
fn encode_again(record: &Record, length: usize) {
    let mut encoded = Vec::new();
    match record {
        Record::Entry(entry) => codec::encode_entry(entry, &mut encoded).unwrap(),
        Record::Message(message) => codec::encode_message(message, &mut encoded).unwrap(),
    }
    let named = usize::from(match record {
        Record::Entry(entry) => matches!(entry.body, Body::Event(_) | Body::Output(_)),
        Record::Message(message) => matches!(message, Message::Beginning(_)),
    });
    assert!(encoded.len() <= length + named);
    let (again, taken) = codec::decode(&encoded).unwrap();
    assert_eq!((&again, taken), (record, encoded.len()));
}

/// Gives its bytes in pieces of one to seven.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let piece = room.len().min(1 + self.0.len() % 7);
        self.0.read(&mut room[..piece])
    }
}

fn reader<R: Read>(input: R) -> LogReader<R> {
    LogReader::new(input, Path::new("fuzzed"))
}

fn read_all(bytes: &[u8]) -> Vec<Entry> {
    let texts = |items: Vec<Result<Entry, LogError>>| -> Vec<Result<Entry, String>> {
        items
            .into_iter()
            .map(|item| item.map_err(|error| error.to_string()))
            .collect()
    };
    let mut whole = reader(bytes);
    let items = texts(whole.by_ref().collect());
    assert!(whole.offset() <= bytes.len() as u64 && whole.next().is_none());
    assert_eq!(texts(reader(Pieces(bytes)).collect()), items);
    let entries: Vec<Entry> = items.iter().map_while(|item| item.clone().ok()).collect();
    let is_complete = matches!(
        entries.last(),
        Some(Entry {
            body: Body::End(_),
            ..
        })
    ) && entries.len() == items.len();
    assert!(
        is_complete || entries.len() + 1 == items.len(),
        "one error ends a log that is not complete"
    );
    entries
}

fn print_all(bytes: &[u8], entries: &[Entry]) {
    let filter = DumpFilter::default();
    let (mut text, mut json) = (Vec::new(), Vec::new());
    // Where the log is damaged they stop with its error, which was seen already.
    let _ = dump::dump(&mut reader(bytes), &filter, DumpFormat::Text, &mut text);
    let _ = dump::dump(&mut reader(bytes), &filter, DumpFormat::JsonLines, &mut json);
    assert_eq!(String::from_utf8(text).unwrap().lines().count(), entries.len());
    let json = String::from_utf8(json).unwrap();
    let objects = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert_eq!(
        objects.filter(serde_json::Value::is_object).count(),
        entries.len()
    );
    let info = LogInfo::of(&mut reader(bytes));
    assert_eq!(info.entries, entries.len() as u64);
    assert!(!info.to_string().is_empty() && serde_json::to_string(&info).is_ok());
    if let Ok(found) = diff::diff(&mut reader(bytes), &mut reader(bytes)) {
        assert_eq!(
            found,
            Diff::Same {
                entries: entries.len() as u64
            }
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [&str; 2] = [
        include_str!("../../../logging-channel/tests/golden/records-1.hex"),
        include_str!("../../../logging-channel/tests/golden/records-2.hex"),
    ];

    #[test]
    fn every_golden_record_passes() {
        for line in GOLDEN.iter().flat_map(|golden| golden.lines()) {
            run(&hex::decode(line).unwrap());
        }
    }
}
