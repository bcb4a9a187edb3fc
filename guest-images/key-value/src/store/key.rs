//! Keys in the order of their hashes, which is the order `SCAN` goes through them.
//!
//! The hash is fixed: two machines that get the same requests keep their keys in the same order. Keys with equal
//! hashes are told apart by their bytes, so those who make such keys on purpose gain nothing.

use alloc::boxed::Box;
use core::borrow::Borrow;
use core::cmp::Ordering;

/// Bits of a hash, and of `SCAN`'s cursor: what a double holds exactly, for clients whose only numbers these are.
const HASH_BITS: u32 = 53;

/// FNV-1a, 64 bits (draft-eastlake-fnv): offset basis and prime.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// A key as the keyspace owns it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    hash: u64,
    bytes: Box<[u8]>,
}

impl Key {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its place in the order.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

/// A key to look for.
#[derive(Clone, Copy)]
pub(crate) struct Probe<'a> {
    hash: u64,
    bytes: &'a [u8],
}

impl<'a> Probe<'a> {
    /// Looks for this key.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            hash: hash(bytes),
            bytes,
        }
    }

    /// Looks for the first key with this hash or a larger one.
    pub(crate) fn from_hash(hash: u64) -> Self {
        Self { hash, bytes: &[] }
    }

    /// The key to own.
    pub(crate) fn to_key(self) -> Key {
        Key {
            hash: self.hash,
            bytes: self.bytes.into(),
        }
    }

    /// What a map of keys looks for.
    pub(crate) fn view(&self) -> &(dyn View + 'a) {
        self
    }
}

/// What keys and probes have in common, so that looking for a key needs no copy of it.
pub(crate) trait View {
    /// The hash and the bytes.
    fn parts(&self) -> (u64, &[u8]);
}

impl View for Key {
    fn parts(&self) -> (u64, &[u8]) {
        (self.hash, &self.bytes)
    }
}

impl View for Probe<'_> {
    fn parts(&self) -> (u64, &[u8]) {
        (self.hash, self.bytes)
    }
}

impl<'a> Borrow<dyn View + 'a> for Key {
    fn borrow(&self) -> &(dyn View + 'a) {
        self
    }
}

impl PartialEq for dyn View + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn View + '_ {}

impl PartialOrd for dyn View + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn View + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let full = bytes.iter().fold(FNV_BASIS, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)
    });
    full >> (u64::BITS - HASH_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325 >> 11);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8 >> 11);
    }
}
