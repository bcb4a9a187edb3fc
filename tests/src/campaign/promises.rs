//! Promises to the clients of a machine, held against what they did and were told.

use super::evidence::Evidence;
use super::history::Record;
use super::{linearizability, session};
use std::collections::BTreeMap;

/// Promises that were broken, each in a sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// Connections that broke.
    pub connections: Vec<String>,
    /// Answers that no order explains, or that a session may not have.
    pub answers: Vec<String>,
    /// Acknowledged writes that were gone, where the keys were read at the end.
    pub writes: Vec<String>,
}

impl Broken {
    /// Those of `evidence`. `closed`: connections were closed by whoever collected it.
    #[must_use]
    pub fn promises(evidence: &Evidence, closed: bool) -> Self {
        let mut broken = Self::default();
        for (client, account) in evidence.accounts.iter().enumerate() {
            if let Some(why) = account.broken.as_ref().filter(|_| !closed) {
                let connection = format!("the connection of client {client} broke: {why}");
                broken.connections.push(connection);
            }
            broken
                .answers
                .extend(session::complaints(client, &account.history));
        }
        let mut by_key: BTreeMap<&str, Vec<Record>> = BTreeMap::new();
        for record in evidence.history() {
            by_key.entry(&record.key).or_default().push(record.clone());
        }
        broken.answers.extend(
            by_key
                .into_iter()
                .filter_map(|(key, history)| unordered(key, &history)),
        );
        if !evidence.held.is_empty() {
            let all: Vec<Record> = evidence.history().cloned().collect();
            broken.writes = session::lost(&all, &evidence.held);
        }
        broken
    }
}

/// Complaint about `history`, all of which is of one key, where no order explains it.
fn unordered(key: &str, history: &[Record]) -> Option<String> {
    let found = linearizability::check(history).err()?;
    Some(format!(
        "{key} is not linearizable: with {} of {} operations done it holds {}, and then {}",
        found.explained,
        history.len(),
        found.value,
        found.unexplained
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::clients::Account;
    use crate::campaign::history::{Answer, Operation};

    /// One client that was told twice to be the first, and whose second increment is gone.
    fn evidence() -> Evidence {
        let did = |invoked_ns| Record {
            client: 0,
            key: "counter-0".to_owned(),
            operation: Operation::Increment,
            invoked_ns,
            answer: Some(Answer {
                at_ns: invoked_ns + 1,
                value: 1,
            }),
        };
        let account = Account {
            history: vec![did(0), did(2)],
            broken: Some("reset".to_owned()),
        };
        Evidence {
            accounts: vec![account],
            held: BTreeMap::from([("counter-0".to_owned(), 1)]),
            ..Evidence::default()
        }
    }

    #[test]
    fn each_sort_of_promise_that_is_broken_is_found() {
        let broken = Broken::promises(&evidence(), false);
        let counts = [broken.connections, broken.answers, broken.writes].map(|found| found.len());
        assert_eq!(counts, [1, 1, 1]);
    }

    #[test]
    fn a_connection_that_was_closed_here_is_not_broken() {
        assert!(Broken::promises(&evidence(), true).connections.is_empty());
    }

    #[test]
    fn nothing_is_broken_where_nothing_was_asked() {
        assert_eq!(Broken::promises(&Evidence::default(), false), Broken::default());
    }
}
