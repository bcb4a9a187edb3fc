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
const ALLOCATION_BYTES: usize = 24;

/// What a map's or set's slot costs: its nodes are at least half full, so up to twice the slot's size.
const fn slot_bytes(size: usize) -> usize {
    2 * size
}

/// What an allocation of so many bytes costs.
fn allocated(bytes: usize) -> usize {
    bytes.saturating_add(ALLOCATION_BYTES)
}
