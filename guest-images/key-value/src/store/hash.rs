//! Hashes: fields with values.

use super::{Kind, Value, allocated, slot_bytes};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// Fields with their values, in the order of the fields' bytes.
#[derive(Default)]
pub(crate) struct Hash {
    fields: BTreeMap<Box<[u8]>, Box<[u8]>>,
    fields_cost_bytes: usize,
}

impl Hash {
    /// How many fields.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// A field's value.
    pub(crate) fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields.get(field).map(AsRef::as_ref)
    }

    /// Sets a field. False if it was there, with whatever value.
    pub(crate) fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.fields_cost_bytes = self.fields_cost_bytes.saturating_add(cost_bytes(field, value));
        if let Some(slot) = self.fields.get_mut(field) {
            self.fields_cost_bytes = self.fields_cost_bytes.saturating_sub(cost_bytes(field, slot));
            *slot = value.into();
            return false;
        }
        self.fields.insert(field.into(), value.into());
        true
    }

    /// Removes a field. False if it was not there.
    pub(crate) fn remove(&mut self, field: &[u8]) -> bool {
        let Some(value) = self.fields.remove(field) else {
            return false;
        };
        self.fields_cost_bytes = self.fields_cost_bytes.saturating_sub(cost_bytes(field, &value));
        true
    }

    /// All fields with their values.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.fields
            .iter()
            .map(|(field, value)| (field.as_ref(), value.as_ref()))
    }
}

fn cost_bytes(field: &[u8], value: &[u8]) -> usize {
    let slot = slot_bytes(size_of::<(Box<[u8]>, Box<[u8]>)>());
    allocated(field.len())
        .saturating_add(allocated(value.len()))
        .saturating_add(slot)
}

impl Kind for Hash {
    fn of(value: &Value) -> Option<&Self> {
        if let Value::Hash(hash) = value {
            Some(hash)
        } else {
            None
        }
    }

    fn of_mut(value: &mut Value) -> Option<&mut Self> {
        if let Value::Hash(hash) = value {
            Some(hash)
        } else {
            None
        }
    }

    fn wrap(self) -> Value {
        Value::Hash(self)
    }

    fn cost_bytes(&self) -> usize {
        allocated(0).saturating_add(self.fields_cost_bytes)
    }

    fn is_vacant(&self) -> bool {
        self.fields.is_empty()
    }
}
