//! The requests of one client, and the right answers: a model of its part of the store. Pure.
//!
//! Every client has keys of its own and one request under way, so that each reply has exactly one
//! right value:
//!
//! - **slots** `s:CLIENT:SLOT`: SET to values never used before, GET at random;
//! - **a counter** `c:CLIENT`: INCR must answer one more each time, so that a request done twice shows as well;
//! - **a journal** `j:CLIENT:ORDINAL`: every APPEND adds an entry never used before and must answer the length, so
//!   that the order shows. A full journal is read, compared and deleted, and the next begun.
//!
//! The last request of a connection that breaks may or may not have been done; at the end either
//! is right.

use super::random::Random;
use super::resp::Reply;

/// Slots of a client.
const SLOTS: usize = 32;

/// Entries of a journal; a full one is below 4 KiB.
const JOURNAL_ENTRIES: usize = 256;

/// Longest filling of a slot's value, in bytes.
const FILLING_BYTES_MAX: usize = 200;

/// A request as the parts of its command.
pub(super) type Command = Vec<Vec<u8>>;

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    Set { slot: usize, value: Vec<u8> },
    Get { slot: usize },
    Increment,
    Append { entry: u64 },
    ReadJournal,
    DropJournal,
}

/// Meaning of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// A write was acknowledged as it must be.
    Acknowledged,
    /// A read gave what it must.
    Right,
    /// The answer is not the one it must be: what was expected, and what came.
    Wrong(String),
}

/// Findings of reading everything back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Acknowledged writes that are not there.
    pub(super) lost_writes: u64,
    /// Answers that are wrong in another way.
    pub(super) wrong_reads: u64,
}

/// One client's part of the store.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    client: u16,
    random: Random,
    slots: Vec<Option<Vec<u8>>>,
    counter: u64,
    journal: u64,
    entries: Vec<u64>,
    unique: u64,
    under_way: Option<Request>,
}

impl Workload {
    /// The requests of `client` that follow from `seed`.
    pub(super) fn new(seed: u64, client: u16) -> Self {
        Self {
            client,
            random: Random::new(seed, u64::from(client)),
            slots: vec![None; SLOTS],
            counter: 0,
            journal: 0,
            entries: Vec::new(),
            unique: 0,
            under_way: None,
        }
    }

    /// The next request. The one before must have been answered.
    pub(super) fn next(&mut self) -> Command {
        let request = match self.under_way {
            Some(Request::ReadJournal) => Request::DropJournal,
            _ if self.entries.len() >= JOURNAL_ENTRIES => Request::ReadJournal,
            _ => self.draw(),
        };
        let command = self.command(&request);
        self.under_way = Some(request);
        command
    }

    fn draw(&mut self) -> Request {
        self.unique += 1;
        match self.random.below(10) {
            0..=2 => Request::Set {
                slot: self.random.below(SLOTS),
                value: self.value(),
            },
            3..=5 => Request::Get {
                slot: self.random.below(SLOTS),
            },
            6..=7 => Request::Increment,
            _ => Request::Append { entry: self.unique },
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let filling = self.random.below(FILLING_BYTES_MAX + 1);
        let letter = char::from(b'a' + self.random.below(26) as u8);
        let filling: String = std::iter::repeat_n(letter, filling).collect();
        format!("{}:{}:{filling}", self.client, self.unique).into_bytes()
    }

    fn command(&self, request: &Request) -> Command {
        match request {
            Request::Set { slot, value } => vec![b"SET".to_vec(), self.slot_key(*slot), value.clone()],
            Request::Get { slot } => vec![b"GET".to_vec(), self.slot_key(*slot)],
            Request::Increment => vec![b"INCR".to_vec(), self.counter_key()],
            Request::Append { entry } => vec![b"APPEND".to_vec(), self.journal_key(), entry_text(*entry)],
            Request::ReadJournal => vec![b"GET".to_vec(), self.journal_key()],
            Request::DropJournal => vec![b"DEL".to_vec(), self.journal_key()],
        }
    }

    fn slot_key(&self, slot: usize) -> Vec<u8> {
        format!("s:{}:{slot}", self.client).into_bytes()
    }

    fn counter_key(&self) -> Vec<u8> {
        format!("c:{}", self.client).into_bytes()
    }

    fn journal_key(&self) -> Vec<u8> {
        format!("j:{}:{}", self.client, self.journal).into_bytes()
    }

    /// Takes the reply to the request under way.
    pub(super) fn take(&mut self, reply: &Reply) -> Judgement {
        let Some(request) = self.under_way.clone() else {
            return Judgement::Wrong(format!("{} came unasked", reply.describe()));
        };
        let (expected, is_write) = self.expected(&request);
        if *reply != expected {
            let asked = String::from_utf8_lossy(&self.command(&request).join(&b' ')).into_owned();
            let asked: String = asked.chars().take(40).collect();
            self.apply(&request);
            return Judgement::Wrong(format!(
                "client {}: {asked} gave {} instead of {}",
                self.client,
                reply.describe(),
                expected.describe()
            ));
        }
        self.apply(&request);
        if is_write {
            Judgement::Acknowledged
        } else {
            Judgement::Right
        }
    }

    /// The only right reply, and whether it acknowledges a write.
    fn expected(&self, request: &Request) -> (Reply, bool) {
        let entries_bytes: usize = self.entries.iter().map(|entry| entry_text(*entry).len()).sum();
        match request {
            Request::Set { .. } => (Reply::Simple("OK".to_owned()), true),
            Request::Get { slot } => (value_or_nil(self.slots.get(*slot).cloned().flatten()), false),
            Request::Increment => (Reply::Integer(self.counter as i64 + 1), true),
            Request::Append { entry } => (
                Reply::Integer((entries_bytes + entry_text(*entry).len()) as i64),
                true,
            ),
            Request::ReadJournal => (self.journal_reply(), false),
            Request::DropJournal => (Reply::Integer(1), true),
        }
    }

    fn journal_reply(&self) -> Reply {
        let text: Vec<u8> = self.entries.iter().flat_map(|entry| entry_text(*entry)).collect();
        value_or_nil(Some(text).filter(|text| !text.is_empty()))
    }

    fn apply(&mut self, request: &Request) {
        match request {
            Request::Set { slot, value } => {
                if let Some(place) = self.slots.get_mut(*slot) {
                    *place = Some(value.clone());
                }
            }
            Request::Increment => self.counter += 1,
            Request::Append { entry } => self.entries.push(*entry),
            Request::DropJournal => {
                self.entries.clear();
                self.journal += 1;
            }
            Request::Get { .. } => {}
            // It stays under way until the journal is dropped, so that this comes next.
            Request::ReadJournal => return,
        }
        self.under_way = None;
    }

    /// Commands that read everything at the end; their answers go to [`Self::judge`] in this order.
    pub(super) fn questions(&self) -> Vec<Command> {
        let get = |key| vec![b"GET".to_vec(), key];
        let slots = (0..SLOTS).map(|slot| get(self.slot_key(slot)));
        slots
            .chain([get(self.counter_key()), get(self.journal_key())])
            .collect()
    }

    /// Findings from the answers to [`Self::questions`]. Answers that never came tell that nothing
    /// is there.
    pub(super) fn judge(&self, answers: &[Reply]) -> Findings {
        let mut maybe = self.clone();
        if let Some(request) = &self.under_way {
            maybe.apply(request);
        }
        let mut findings = Findings::default();
        for slot in 0..SLOTS {
            let certain = value_or_nil(self.slots.get(slot).cloned().flatten());
            let possible = value_or_nil(maybe.slots.get(slot).cloned().flatten());
            let answer = answers.get(slot).unwrap_or(&Reply::Nil);
            // Anything else is an older value or none: the last write is lost.
            findings.lost_writes += u64::from(*answer != certain && *answer != possible);
        }
        findings.judge_counter(answers.get(SLOTS), self.counter, maybe.counter);
        findings.judge_journal(answers.get(SLOTS + 1), &self.entries, &maybe.entries);
        findings
    }
}

impl Findings {
    /// Adds what another client found.
    pub(super) fn add(&mut self, other: Self) {
        self.lost_writes += other.lost_writes;
        self.wrong_reads += other.wrong_reads;
    }

    fn judge_counter(&mut self, answer: Option<&Reply>, certain: u64, possible: u64) {
        let found = match answer {
            Some(Reply::Bulk(text)) => String::from_utf8_lossy(text).parse().ok(),
            Some(Reply::Nil) => Some(0),
            _ => None,
        };
        match found {
            None => self.lost_writes += certain,
            Some(found) => {
                self.lost_writes += certain.saturating_sub(found);
                self.wrong_reads += u64::from(found > possible);
            }
        }
    }

    /// `possible` is what the journal holds if the request under way was done: one entry more, or
    /// none at all.
    fn judge_journal(&mut self, answer: Option<&Reply>, certain: &[u64], possible: &[u64]) {
        let text = match answer {
            Some(Reply::Bulk(text)) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        let found: Vec<u64> = text
            .split_terminator(';')
            .filter_map(|entry| entry.parse().ok())
            .collect();
        if found == certain || found == possible {
            return;
        }
        let missing = certain.iter().filter(|entry| !found.contains(entry)).count() as u64;
        self.lost_writes += missing;
        let known: Vec<u64> = certain
            .iter()
            .filter(|entry| found.contains(entry))
            .copied()
            .collect();
        self.wrong_reads += u64::from(found != known);
    }
}

fn entry_text(entry: u64) -> Vec<u8> {
    format!("{entry};").into_bytes()
}

fn value_or_nil(value: Option<Vec<u8>>) -> Reply {
    value.map_or(Reply::Nil, Reply::Bulk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::store::FakeStore;

    const SEED: u64 = 20_261_122;

    /// A client that has asked `count` requests of a store that does what it says.
    fn after(count: usize) -> (Workload, FakeStore) {
        let (mut workload, mut store) = (Workload::new(SEED, 3), FakeStore::default());
        for _ in 0..count {
            let reply = store.carry_out(&workload.next());
            assert!(
                !matches!(workload.take(&reply), Judgement::Wrong(_)),
                "seed {SEED}"
            );
        }
        (workload, store)
    }

    fn judged(workload: &Workload, store: &mut FakeStore) -> Findings {
        let answers: Vec<Reply> = workload
            .questions()
            .iter()
            .map(|question| store.carry_out(question))
            .collect();
        workload.judge(&answers)
    }

    #[test]
    fn a_right_store_is_found_right_at_any_moment() {
        for count in [0, 1, 100, 5_000] {
            let (workload, mut store) = after(count);
            assert_eq!(
                judged(&workload, &mut store),
                Findings::default(),
                "after {count}, seed {SEED}"
            );
        }
    }

    #[test]
    fn every_kind_of_request_is_made_and_journals_are_turned_over() {
        let (_, store) = after(20_000);
        let made = |name: &str| store.count(name) > 0;
        assert!(["SET", "GET", "INCR", "APPEND", "DEL"].into_iter().all(made));
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        let ask = |seed| {
            let mut workload = Workload::new(seed, 1);
            let mut store = FakeStore::default();
            let next = |_| {
                let command = workload.next();
                workload.take(&store.carry_out(&command));
                command
            };
            (0..50).map(next).collect::<Vec<_>>()
        };
        assert_eq!(ask(1), ask(1));
        assert_ne!(ask(1), ask(2));
    }

    #[test]
    fn a_request_under_way_when_the_connection_broke_may_be_done_or_not() {
        for count in (0..600).step_by(3) {
            let (mut workload, mut store) = after(count);
            let command = workload.next();
            assert_eq!(
                judged(&workload, &mut store),
                Findings::default(),
                "not done, after {count}, seed {SEED}"
            );
            store.carry_out(&command);
            assert_eq!(
                judged(&workload, &mut store),
                Findings::default(),
                "done, after {count}, seed {SEED}"
            );
        }
    }

    #[test]
    fn a_store_that_forgets_a_write_is_found_out() {
        for forgotten in ["SET", "INCR", "APPEND"] {
            let (mut workload, mut store) = after(300);
            let mut command = workload.next();
            while command[0] != forgotten.as_bytes() {
                workload.take(&store.carry_out(&command));
                command = workload.next();
            }
            let mut before = store.clone();
            workload.take(&store.carry_out(&command));
            let findings = judged(&workload, &mut before);
            assert_eq!(
                findings,
                Findings {
                    lost_writes: 1,
                    wrong_reads: 0
                },
                "{forgotten}, seed {SEED}"
            );
        }
    }

    #[test]
    fn a_store_that_does_something_twice_is_found_out() {
        for doubled in ["INCR", "APPEND"] {
            let (mut workload, mut store) = after(300);
            let mut command = workload.next();
            while command[0] != doubled.as_bytes() {
                workload.take(&store.carry_out(&command));
                command = workload.next();
            }
            workload.take(&store.carry_out(&command));
            store.carry_out(&command);
            assert_eq!(
                judged(&workload, &mut store),
                Findings {
                    lost_writes: 0,
                    wrong_reads: 1
                },
                "{doubled}"
            );
        }
    }

    #[test]
    fn an_empty_store_has_lost_everything_and_answers_wrongly() {
        let (mut workload, _) = after(500);
        let findings = workload.judge(&[]);
        assert!(findings.lost_writes > workload.counter, "{findings:?}");
        let mut command = workload.next();
        while command[0] != b"INCR" {
            workload.take(&Reply::Nil);
            command = workload.next();
        }
        assert!(matches!(workload.take(&Reply::Integer(1)), Judgement::Wrong(_)));
        assert!(
            matches!(workload.take(&Reply::Integer(1)), Judgement::Wrong(_)),
            "nothing was asked"
        );
    }
}
