//! What the keys hold, and what it costs to keep it.

mod hash;
mod key;
mod keyspace;
mod list;
mod set;
mod text;
mod value;

pub(crate) use hash::Hash;
pub(crate) use key::{Key, Probe};
pub(crate) use keyspace::Keyspace;
pub(crate) use list::{End, List};
pub(crate) use set::Set;
pub(crate) use text::Text;
pub(crate) use value::{Kind, Value};

/// Bytes an allocation costs beyond its size: the allocator's header, and rounding up to its grain.
const ALLOCATION_BYTES: usize = 32;

/// What keeping a key with its deadline costs, and so the most that any argument costs beyond its bytes.
const ARGUMENT_BYTES: usize =
    slot_bytes(size_of::<(Key, keyspace::Entry)>() + size_of::<(u64, Key)>()) + 3 * ALLOCATION_BYTES;

/// The most an argument adds to the keyspace. A string's or list's room may grow by as much as it has, once more.
pub(crate) fn argument_cost_bytes_max(argument: &[u8]) -> usize {
    argument.len().saturating_add(ARGUMENT_BYTES)
}

/// What a map's or set's slot costs: its nodes are at least half full, so up to twice the slot's size.
const fn slot_bytes(size: usize) -> usize {
    2 * size
}

/// What an allocation of so many bytes costs.
fn allocated(bytes: usize) -> usize {
    bytes.saturating_add(ALLOCATION_BYTES)
}
