//! The keys, their values and deadlines, and what all of it costs.
//!
//! A key whose deadline has passed is gone, whether or not it was removed: whoever looks for it removes it, and
//! [`Keyspace::advance`] removes some each time. Every change goes through here, so that the sum of costs is right.

use super::{Key, Kind, Probe, Text, Value, allocated, slot_bytes};
use crate::failure::Failure;
use alloc::collections::{BTreeMap, BTreeSet};
use core::ops::Bound;

/// Keys removed before one command because their deadline has passed: bounds how long others wait for them.
const EXPIRED_AT_ONCE_MAX: usize = 16;

pub(super) struct Entry {
    value: Value,
    deadline_ms: Option<u64>,
}

/// The keys and what they hold.
pub(crate) struct Keyspace {
    entries: BTreeMap<Key, Entry>,
    deadlines: BTreeSet<(u64, Key)>,
    used_bytes: usize,
    now_ms: u64,
    expired: u64,
    changes: u64,
}

impl Keyspace {
    /// No keys.
    pub(crate) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            used_bytes: 0,
            now_ms: 0,
            expired: 0,
            changes: 0,
        }
    }

    /// Bytes it costs to keep everything.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Keys, with those expired and not yet removed.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keys that have a deadline.
    pub(crate) fn deadlines(&self) -> usize {
        self.deadlines.len()
    }

    /// Keys removed because their deadline had passed.
    pub(crate) fn expired(&self) -> u64 {
        self.expired
    }

    /// Whether what it answers depends on the time.
    pub(crate) fn needs_time(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// Says that it is `now_ms`, on the clock of the deadlines.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        for _ in 0..EXPIRED_AT_ONCE_MAX {
            let due = match self.deadlines.first() {
                Some((deadline, key)) if *deadline <= self.now_ms => key.clone(),
                _ => return,
            };
            self.settle(&Probe::new(due.bytes()));
        }
    }

    /// The value of a key.
    pub(crate) fn value(&mut self, key: &[u8]) -> Option<&Value> {
        let probe = Probe::new(key);
        self.settle(&probe);
        self.entries.get(probe.view()).map(|entry| &entry.value)
    }

    /// The value of a key, which must be of type `K`.
    pub(crate) fn read<K: Kind>(&mut self, key: &[u8]) -> Result<Option<&K>, Failure> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => K::of(value).map(Some).ok_or(Failure::TYPE),
        }
    }

    /// Changes the value of a key, which must be of type `K`, if it exists. A value left vacant goes.
    pub(crate) fn edit<K: Kind, R>(
        &mut self,
        key: &[u8],
        work: impl FnOnce(&mut K) -> Result<R, Failure>,
    ) -> Result<Option<R>, Failure> {
        let probe = Probe::new(key);
        self.settle(&probe);
        let Some(entry) = self.entries.get_mut(probe.view()) else {
            return Ok(None);
        };
        let content = K::of_mut(&mut entry.value).ok_or(Failure::TYPE)?;
        self.changes += 1;
        let before = content.cost_bytes();
        let outcome = work(content);
        let (after, vacant) = (content.cost_bytes(), content.is_vacant());
        self.used_bytes = self.used_bytes.saturating_sub(before).saturating_add(after);
        if vacant {
            self.remove_present(&probe);
        }
        outcome.map(Some)
    }

    /// Changes the value of a key, which must be of type `K`; one that does not exist starts vacant.
    pub(crate) fn edit_or_create<K: Kind, R>(
        &mut self,
        key: &[u8],
        work: impl FnOnce(&mut K) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        if self.contains(key) {
            return self.edit(key, work)?.ok_or(Failure::TYPE);
        }
        let mut content = K::default();
        let outcome = work(&mut content)?;
        if !content.is_vacant() {
            self.changes += 1;
            self.insert_absent(&Probe::new(key), content.wrap());
        }
        Ok(outcome)
    }

    /// Makes a key hold this string, whatever it held. Its deadline goes, unless it is to be kept.
    pub(crate) fn put_text(&mut self, key: &[u8], bytes: &[u8], keep_deadline: bool) {
        let probe = Probe::new(key);
        self.settle(&probe);
        self.changes += 1;
        let Some(entry) = self.entries.get_mut(probe.view()) else {
            self.insert_absent(&probe, Value::Text(Text::new(bytes)));
            return;
        };
        let before = entry.value.cost_bytes();
        match Text::of_mut(&mut entry.value) {
            Some(text) => text.replace(bytes),
            None => entry.value = Value::Text(Text::new(bytes)),
        }
        let after = entry.value.cost_bytes();
        let had_deadline = entry.deadline_ms.is_some();
        self.used_bytes = self.used_bytes.saturating_sub(before).saturating_add(after);
        if had_deadline && !keep_deadline {
            self.set_deadline(key, None);
        }
    }

    /// Whether a key exists.
    pub(crate) fn contains(&mut self, key: &[u8]) -> bool {
        self.value(key).is_some()
    }

    /// Removes a key. False if it did not exist.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let probe = Probe::new(key);
        self.settle(&probe);
        let removed = self.remove_present(&probe);
        self.changes += u64::from(removed);
        removed
    }

    /// Removes all keys.
    pub(crate) fn clear(&mut self) {
        self.changes += u64::from(!self.entries.is_empty());
        self.entries = BTreeMap::new();
        self.deadlines = BTreeSet::new();
        self.used_bytes = 0;
    }

    /// The deadline of a key, if the key exists, if it has one.
    pub(crate) fn deadline(&mut self, key: &[u8]) -> Option<Option<u64>> {
        let probe = Probe::new(key);
        self.settle(&probe);
        self.entries.get(probe.view()).map(|entry| entry.deadline_ms)
    }

    /// Sets or takes the deadline of a key that exists.
    pub(crate) fn set_deadline(&mut self, key: &[u8], deadline_ms: Option<u64>) {
        let probe = Probe::new(key);
        let Some(entry) = self.entries.get_mut(probe.view()) else {
            return;
        };
        self.changes += 1;
        let before = core::mem::replace(&mut entry.deadline_ms, deadline_ms);
        if let Some(before) = before {
            self.deadlines.remove(&(before, probe.to_key()));
            self.used_bytes = self.used_bytes.saturating_sub(deadline_cost_bytes(key));
        }
        if let Some(deadline) = deadline_ms {
            self.deadlines.insert((deadline, probe.to_key()));
            self.used_bytes = self.used_bytes.saturating_add(deadline_cost_bytes(key));
        }
    }

    /// All keys that exist, in the order of their hashes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.iter_from(0)
    }

    /// All keys that exist with their deadlines, in the order of their hashes.
    pub(crate) fn iter_with_deadlines(&self) -> impl Iterator<Item = (&Key, &Value, Option<u64>)> {
        let entries = self.entries.iter().filter(|(_, entry)| !self.is_due(entry));
        entries.map(|(key, entry)| (key, &entry.value, entry.deadline_ms))
    }

    /// Changes so far, without the removals of keys whose deadlines had passed: those happen again where the
    /// same is done at the same times.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Forgets how many keys were removed because their deadline had passed.
    pub(crate) fn forget_expired(&mut self) {
        self.expired = 0;
    }

    /// The keys that exist with this hash or a larger one, in this order.
    pub(crate) fn iter_from(&self, hash: u64) -> impl Iterator<Item = (&Key, &Value)> {
        let start = Probe::from_hash(hash);
        let entries = self
            .entries
            .range::<dyn super::key::View, _>((Bound::Included(start.view()), Bound::Unbounded));
        entries
            .filter(|(_, entry)| !self.is_due(entry))
            .map(|(key, entry)| (key, &entry.value))
    }

    fn is_due(&self, entry: &Entry) -> bool {
        entry.deadline_ms.is_some_and(|deadline| deadline <= self.now_ms)
    }

    /// Removes a key if its deadline has passed.
    fn settle(&mut self, probe: &Probe<'_>) {
        if self.deadlines.is_empty() {
            return;
        }
        if self
            .entries
            .get(probe.view())
            .is_some_and(|entry| self.is_due(entry))
        {
            self.expired = self.expired.saturating_add(1);
            self.remove_present(probe);
        }
    }

    fn insert_absent(&mut self, probe: &Probe<'_>, value: Value) {
        let key = probe.to_key();
        let cost = entry_cost_bytes(key.bytes()).saturating_add(value.cost_bytes());
        self.used_bytes = self.used_bytes.saturating_add(cost);
        self.entries.insert(
            key,
            Entry {
                value,
                deadline_ms: None,
            },
        );
    }

    fn remove_present(&mut self, probe: &Probe<'_>) -> bool {
        let Some((key, entry)) = self.entries.remove_entry(probe.view()) else {
            return false;
        };
        let mut cost = entry_cost_bytes(key.bytes()).saturating_add(entry.value.cost_bytes());
        if let Some(deadline) = entry.deadline_ms {
            cost = cost.saturating_add(deadline_cost_bytes(key.bytes()));
            self.deadlines.remove(&(deadline, key));
        }
        self.used_bytes = self.used_bytes.saturating_sub(cost);
        true
    }
}

fn entry_cost_bytes(key: &[u8]) -> usize {
    allocated(key.len()).saturating_add(slot_bytes(size_of::<(Key, Entry)>()))
}

fn deadline_cost_bytes(key: &[u8]) -> usize {
    allocated(key.len()).saturating_add(slot_bytes(size_of::<(u64, Key)>()))
}
