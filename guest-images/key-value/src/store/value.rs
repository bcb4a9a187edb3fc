//! What a key holds.

use super::{Hash, List, Set, Text};

/// What a key holds.
pub(crate) enum Value {
    /// A string.
    Text(Text),
    /// A list.
    List(List),
    /// A set.
    Set(Set),
    /// A hash.
    Hash(Hash),
}

impl Value {
    /// The type's name, as `TYPE` shows it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Hash(_) => "hash",
        }
    }

    /// Bytes it costs to keep it, beyond its place in the keyspace.
    pub(crate) fn cost_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.cost_bytes(),
            Self::List(list) => list.cost_bytes(),
            Self::Set(set) => set.cost_bytes(),
            Self::Hash(hash) => hash.cost_bytes(),
        }
    }
}

/// One type of value.
pub(crate) trait Kind: Default {
    /// The value, if it is of this type.
    fn of(value: &Value) -> Option<&Self>;

    /// The value, if it is of this type, to change it.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;

    /// A value of this type.
    fn wrap(self) -> Value;

    /// Bytes it costs to keep it, beyond its place in the keyspace.
    fn cost_bytes(&self) -> usize;

    /// Whether a key that holds it does not exist.
    fn is_vacant(&self) -> bool;
}
