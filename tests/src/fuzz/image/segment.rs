//! A segment of a file, and reading a field of one.

/// A field.
pub fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A segment of a file that is built.
pub struct Segment {
    pub(super) kind: u32,
    pub(super) flags: u32,
    /// The address at which it is loaded.
    pub address: u64,
    pub(super) memory_bytes: u64,
    /// Its part of the file.
    pub content: Vec<u8>,
}
