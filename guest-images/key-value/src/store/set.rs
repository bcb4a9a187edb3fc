//! Sets.

use super::{Kind, Value, allocated, slot_bytes};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;

/// Members, each once, in the order of their bytes.
#[derive(Default)]
pub(crate) struct Set {
    members: BTreeSet<Box<[u8]>>,
    members_cost_bytes: usize,
}

impl Set {
    /// How many members.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Adds a member. False if it was one.
    pub(crate) fn insert(&mut self, member: &[u8]) -> bool {
        if self.contains(member) {
            return false;
        }
        self.members_cost_bytes = self.members_cost_bytes.saturating_add(cost_bytes(member));
        self.members.insert(member.into())
    }

    /// Removes a member. False if it was none.
    pub(crate) fn remove(&mut self, member: &[u8]) -> bool {
        let removed = self.members.remove(member);
        if removed {
            self.members_cost_bytes = self.members_cost_bytes.saturating_sub(cost_bytes(member));
        }
        removed
    }

    /// Takes the first member.
    pub(crate) fn pop(&mut self) -> Option<Box<[u8]>> {
        let member = self.members.pop_first()?;
        self.members_cost_bytes = self.members_cost_bytes.saturating_sub(cost_bytes(&member));
        Some(member)
    }

    /// Whether it is a member.
    pub(crate) fn contains(&self, member: &[u8]) -> bool {
        self.members.contains(member)
    }

    /// All members.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.members.iter().map(AsRef::as_ref)
    }
}

fn cost_bytes(member: &[u8]) -> usize {
    allocated(member.len()).saturating_add(slot_bytes(size_of::<Box<[u8]>>()))
}

impl Kind for Set {
    fn of(value: &Value) -> Option<&Self> {
        if let Value::Set(set) = value {
            Some(set)
        } else {
            None
        }
    }

    fn of_mut(value: &mut Value) -> Option<&mut Self> {
        if let Value::Set(set) = value {
            Some(set)
        } else {
            None
        }
    }

    fn wrap(self) -> Value {
        Value::Set(self)
    }

    fn cost_bytes(&self) -> usize {
        allocated(0).saturating_add(self.members_cost_bytes)
    }

    fn is_vacant(&self) -> bool {
        self.members.is_empty()
    }
}
