//! The content of an append-only file, read back by a machine that began from it, against what
//! clients were told before.

use crate::campaign::history::{Operation, Record};
use crate::campaign::session;
use std::collections::{BTreeMap, BTreeSet};

/// Acknowledged operations that the file must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// All.
    All,
    /// Those that were acknowledged before this, on the host's monotonic clock.
    Before(u64),
}

/// Complaints about `held`, which the file has of each key: an operation that must be there and is
/// not, and a value that nobody has written.
#[must_use]
pub fn complaints(history: &[Record], held: &BTreeMap<String, u64>, kept: Kept) -> Vec<String> {
    let must_be_there = |record: &&Record| match (kept, record.answer) {
        (_, None) => false,
        (Kept::All, Some(_)) => true,
        (Kept::Before(ns), Some(answer)) => answer.at_ns < ns,
    };
    let promised: Vec<Record> = history.iter().filter(must_be_there).cloned().collect();
    let lost = session::lost(&promised, held);
    let mut complaints: Vec<String> = lost
        .into_iter()
        .map(|why| format!("on the disk, {why}"))
        .collect();
    complaints.extend(invented(history, held));
    complaints
}

/// Values that nobody asked for, whether it was answered or not.
fn invented(history: &[Record], held: &BTreeMap<String, u64>) -> Vec<String> {
    let mut written: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut increments: BTreeMap<&str, u64> = BTreeMap::new();
    for record in history {
        match record.operation {
            Operation::Write(value) | Operation::Swap(value) => {
                written.entry(&record.key).or_default().insert(value);
            }
            Operation::Increment => *increments.entry(&record.key).or_default() += 1,
            Operation::Read => {}
        }
    }
    let is_known = |key: &str, value: u64| {
        value == 0
            || written.get(key).is_some_and(|values| values.contains(&value))
            || increments.get(key).is_some_and(|count| value <= *count)
    };
    held.iter()
        .filter(|(key, value)| !is_known(key, **value))
        .map(|(key, value)| format!("on the disk, {key} holds {value}, which nobody has written"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::history::Answer;

    fn did(key: &str, operation: Operation, answered_ns: Option<u64>) -> Record {
        Record {
            client: 1,
            key: key.to_owned(),
            operation,
            invoked_ns: 0,
            answer: answered_ns.map(|at_ns| Answer { at_ns, value: 0 }),
        }
    }

    fn history() -> Vec<Record> {
        vec![
            did("diary-1", Operation::Write(5), Some(10)),
            did("counter-0", Operation::Increment, Some(10)),
            did("diary-1", Operation::Write(6), Some(20)),
            did("diary-1", Operation::Write(7), None),
        ]
    }

    fn count(diary: u64, counter: u64, kept: Kept) -> usize {
        let held = [("diary-1".to_owned(), diary), ("counter-0".to_owned(), counter)];
        complaints(&history(), &held.into(), kept).len()
    }

    #[test]
    fn an_acknowledged_write_that_is_not_on_the_disk_is_found() {
        assert_eq!(count(6, 1, Kept::All), 0);
        assert_eq!(count(7, 1, Kept::All), 0, "it may have been done");
        assert_eq!(count(5, 1, Kept::All), 1);
        assert_eq!(count(6, 0, Kept::All), 1);
    }

    #[test]
    fn of_a_file_that_is_flushed_each_second_the_last_may_be_missing() {
        assert_eq!(count(5, 1, Kept::Before(15)), 0);
        assert_eq!(count(0, 1, Kept::Before(15)), 1);
        assert_eq!(count(0, 0, Kept::Before(5)), 0);
    }

    #[test]
    fn a_value_that_nobody_wrote_is_found() {
        assert_eq!(count(9, 1, Kept::All), 1);
        assert_eq!(count(7, 2, Kept::All), 1);
    }
}
