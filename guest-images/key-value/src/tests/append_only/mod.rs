//! The append-only file on a disk that loses what was not flushed.

mod crashes;
mod disk;
mod starts;

use super::{Numbers, Server, request};
use crate::append_only::{AppendOnly, OpenError, Opened, Policy};
use crate::store::Value;
use disk::Shared;
use lockstep_guest_runtime::digest::Digest;
use std::collections::BTreeMap;

/// Bytes of a disk whose halves are as small as they may be.
const SMALL: usize = 136 << 10;

/// Digest of what every key holds, and its deadline.
type State = BTreeMap<Vec<u8>, (u64, Option<u64>)>;

/// A server whose file is on `disk`, at a time of `now_ms`.
fn open(disk: &Shared, policy: Policy, now_ms: u64) -> Result<(Server, Opened), OpenError> {
    let mut server = Server::new();
    let (file, opened) = AppendOnly::open(Box::new(disk.clone()), policy, &mut server.database)?;
    server.database.append_to(file);
    server.clock.monotonic_ns = now_ms.max(opened.last_ms) * 1_000_000;
    // The two clocks never agree quite.
    server.clock.wall_ns = server.clock.monotonic_ns + 37_654_321;
    Ok((server, opened))
}

impl Server {
    fn now_ms(&self) -> u64 {
        self.clock.monotonic_ns / 1_000_000
    }

    /// Work of the guest's loop before replies leave.
    fn commit(&mut self) -> bool {
        let now_ms = self.now_ms();
        let file = self.database.append_only().unwrap();
        file.commit_due(now_ms).is_ok()
    }

    fn state(&self) -> State {
        let entries = self.database.keyspace.iter_with_deadlines();
        let state = entries.map(|(key, value, deadline_ms)| {
            let mut digest = Digest::default();
            digest.bytes(value.type_name().as_bytes());
            let mut add = |bytes: &[u8]| {
                digest.number(bytes.len() as u64);
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .for_each(|word| digest.number(u64::from_le_bytes(*word)));
                digest.bytes(bytes.as_chunks::<8>().1);
            };
            match value {
                Value::Text(text) => add(text.bytes()),
                Value::List(list) => list.range(0, list.len()).for_each(add),
                Value::Set(set) => set.iter().for_each(add),
                Value::Hash(hash) => hash.iter().for_each(|(field, value)| {
                    add(field);
                    add(value);
                }),
            }
            (key.bytes().to_vec(), (digest.value(), deadline_ms))
        });
        state.collect()
    }
}

/// Rest of `state` at a time.
fn at(state: &State, now_ms: u64) -> State {
    let mut state = state.clone();
    state.retain(|_, (_, deadline_ms)| deadline_ms.is_none_or(|deadline_ms| deadline_ms > now_ms));
    state
}

/// A command that may change something.
fn change(numbers: &mut Numbers, now_ms: u64) -> Vec<u8> {
    let text = |numbers: &mut Numbers| {
        let length = numbers.pick(&[0, 1, 9, 80, 600, 1500]);
        vec![b'a' + numbers.below(26) as u8; length]
    };
    let key = format!("k{}", numbers.below(9));
    let number = |numbers: &mut Numbers, below| numbers.below(below).to_string();
    let words: Vec<Vec<u8>> = match numbers.below(24) {
        0..=3 => vec!["set".into(), key.into(), text(numbers)],
        4 => vec!["append".into(), key.into(), b"more".to_vec()],
        5 => vec!["incrby".into(), key.into(), number(numbers, 100).into()],
        6 | 7 => vec!["rpush".into(), key.into(), text(numbers), b"b".to_vec()],
        8 => vec!["lpush".into(), key.into(), text(numbers)],
        9 => vec!["lpop".into(), key.into(), number(numbers, 3).into()],
        10 => vec!["rpop".into(), key.into()],
        11 => vec![
            "sadd".into(),
            key.into(),
            number(numbers, 50).into(),
            text(numbers),
        ],
        12 => vec!["spop".into(), key.into(), number(numbers, 3).into()],
        13 => vec!["srem".into(), key.into(), number(numbers, 50).into()],
        14 => vec![
            "hset".into(),
            key.into(),
            number(numbers, 9).into(),
            text(numbers),
        ],
        15 => vec!["hdel".into(), key.into(), number(numbers, 9).into()],
        16 => vec!["pexpire".into(), key.into(), number(numbers, 300).into()],
        17 => {
            let at_ms = now_ms + numbers.below(300) as u64;
            vec![
                "set".into(),
                key.into(),
                text(numbers),
                "pxat".into(),
                at_ms.to_string().into(),
            ]
        }
        18 => vec!["persist".into(), key.into()],
        19 => vec!["getset".into(), key.into(), text(numbers)],
        20 => vec!["setnx".into(), key.into(), text(numbers)],
        21 if numbers.below(12) == 0 => vec!["flushall".into()],
        22 => vec!["setex".into(), key.into(), "1".into(), text(numbers)],
        _ => vec!["del".into(), key.into()],
    };
    request(&words.iter().map(Vec::as_slice).collect::<Vec<_>>())
}
