//! Strings.

use super::{Kind, Value, allocated};
use alloc::vec::Vec;

/// Unused bytes a string may keep when a shorter one takes its place.
const SLACK_BYTES_MAX: usize = 64;

/// A string of bytes.
#[derive(Default)]
pub(crate) struct Text(Vec<u8>);

impl Text {
    /// A copy of these bytes.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Replaces the bytes, in place if they fit without much left over.
    pub(crate) fn replace(&mut self, bytes: &[u8]) {
        let kept = bytes.len().saturating_mul(2).saturating_add(SLACK_BYTES_MAX);
        if self.0.capacity() < bytes.len() || self.0.capacity() > kept {
            self.0 = bytes.to_vec();
        } else {
            self.0.clear();
            self.0.extend_from_slice(bytes);
        }
    }

    /// Adds bytes at the end.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

impl Kind for Text {
    fn of(value: &Value) -> Option<&Self> {
        if let Value::Text(text) = value {
            Some(text)
        } else {
            None
        }
    }

    fn of_mut(value: &mut Value) -> Option<&mut Self> {
        if let Value::Text(text) = value {
            Some(text)
        } else {
            None
        }
    }

    fn wrap(self) -> Value {
        Value::Text(self)
    }

    fn cost_bytes(&self) -> usize {
        allocated(self.0.capacity())
    }

    /// The empty string is a value like others.
    fn is_vacant(&self) -> bool {
        false
    }
}
