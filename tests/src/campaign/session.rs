//! What each client by itself may expect: it sees its own writes, what it reads never goes back, and every reply comes.
//!
//! Two sorts of keys make that plain to see. A *diary* is written by one client alone, each time a larger number; a *counter* is only
//! ever incremented, by anybody. So on both no client may ever see less than it saw before, and on its own diary it sees what it wrote.

use super::history::{Operation, Record};
use std::collections::BTreeMap;

/// Keys of any client, read and written.
pub const SHARED: [&str; 3] = ["shared-0", "shared-1", "shared-2"];
/// Keys that are only incremented.
pub const COUNTERS: [&str; 2] = ["counter-0", "counter-1"];

/// The key that only `client` writes.
#[must_use]
pub fn diary(client: usize) -> String {
    format!("diary-{client}")
}

/// What is wrong in the history of one client, given in its order. `owns`: whether it is a writer with a diary.
#[must_use]
pub fn complaints(client: usize, history: &[Record]) -> Vec<String> {
    let own = diary(client);
    let mut written = None;
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut complaints = Vec::new();
    for record in history {
        let Some(answer) = record.answer else { continue };
        if record.key == own
            && record.operation == Operation::Read
            && written.is_some_and(|written| written != answer.value)
        {
            complaints.push(format!(
                "own writes not seen: {record}, after {}",
                written.unwrap_or_default()
            ));
        }
        if record.key == own
            && let Operation::Write(value) = record.operation
        {
            written = Some(value);
        }
        let tells = matches!(record.operation, Operation::Read | Operation::Increment);
        if tells && !SHARED.contains(&record.key.as_str()) {
            let before = seen.insert(&record.key, answer.value);
            if let Some(before) = before.filter(|before| *before > answer.value) {
                complaints.push(format!("a read went back: {record}, after {before}"));
            }
        }
    }
    complaints
}

/// Writes that were acknowledged and are not there at the end: `finally` has what every key held then.
#[must_use]
pub fn lost(history: &[Record], finally: &BTreeMap<String, u64>) -> Vec<String> {
    let mut lost = Vec::new();
    let mut increments: BTreeMap<&str, u64> = BTreeMap::new();
    let mut diaries: BTreeMap<String, u64> = BTreeMap::new();
    for record in history.iter().filter(|record| record.answer.is_some()) {
        match record.operation {
            Operation::Increment => *increments.entry(&record.key).or_default() += 1,
            Operation::Write(value) if record.key == diary(record.client) => {
                diaries.insert(record.key.clone(), value);
            }
            _ => {}
        }
    }
    let held = |key: &str| finally.get(key).copied().unwrap_or(0);
    for (key, count) in increments {
        if held(key) < count {
            lost.push(format!(
                "{key} holds {} after {count} acknowledged increments",
                held(key)
            ));
        }
    }
    for (key, value) in diaries {
        if held(&key) < value {
            lost.push(format!(
                "{key} holds {}, and {value} was acknowledged",
                held(&key)
            ));
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::history::Answer;

    fn did(client: usize, key: &str, operation: Operation, value: u64) -> Record {
        let answer = Some(Answer { at_ns: 1, value });
        Record {
            client,
            key: key.to_owned(),
            operation,
            invoked_ns: 0,
            answer,
        }
    }

    #[test]
    fn a_client_that_sees_its_writes_and_no_step_back_has_no_complaint() {
        let history = [
            did(1, "diary-1", Operation::Write(1), 0),
            did(1, "diary-1", Operation::Read, 1),
            did(1, "counter-0", Operation::Increment, 3),
            did(1, "counter-0", Operation::Read, 3),
            did(1, "shared-0", Operation::Read, 9),
            did(1, "shared-0", Operation::Read, 2),
            did(1, "diary-2", Operation::Read, 4),
        ];
        assert_eq!(complaints(1, &history), Vec::<String>::new());
    }

    #[test]
    fn an_own_write_that_is_not_seen_is_found() {
        let history = [
            did(1, "diary-1", Operation::Write(2), 0),
            did(1, "diary-1", Operation::Read, 1),
        ];
        let found = complaints(1, &history);
        assert!(
            found.len() == 1 && found[0].starts_with("own writes not seen"),
            "{found:?}"
        );
    }

    #[test]
    fn a_read_that_goes_back_is_found() {
        for key in ["counter-1", "diary-2"] {
            let history = [did(1, key, Operation::Read, 7), did(1, key, Operation::Read, 6)];
            assert_eq!(complaints(1, &history).len(), 1, "{key}");
        }
    }

    #[test]
    fn acknowledged_writes_that_are_gone_are_found() {
        let history = [
            did(1, "counter-0", Operation::Increment, 1),
            did(2, "counter-0", Operation::Increment, 2),
            did(1, "diary-1", Operation::Write(5), 0),
        ];
        let all = BTreeMap::from([("counter-0".to_owned(), 2), ("diary-1".to_owned(), 5)]);
        assert_eq!(lost(&history, &all), Vec::<String>::new());
        let less = BTreeMap::from([("counter-0".to_owned(), 1), ("diary-1".to_owned(), 4)]);
        assert_eq!(lost(&history, &less).len(), 2);
        assert_eq!(lost(&history, &BTreeMap::new()).len(), 2);
    }
}
