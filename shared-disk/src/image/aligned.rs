//! Memory that begins at a multiple of an alignment, as `O_DIRECT` needs it.

use std::ops::Range;

/// Bytes in memory, the first of which is aligned.
pub struct Aligned {
    memory: Vec<u8>,
    range: Range<usize>,
}

impl Aligned {
    /// Zeroes. `align_bytes` is a power of two.
    #[must_use]
    pub fn zeroed(length_bytes: usize, align_bytes: usize) -> Self {
        let memory = vec![0; length_bytes.saturating_add(align_bytes)];
        let start = memory.as_ptr().align_offset(align_bytes).min(align_bytes);
        Self {
            memory,
            range: start..start.saturating_add(length_bytes),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.range.clone()).unwrap_or_default()
    }

    /// The bytes. They stay where they are as long as this is not dropped.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.range.clone()).unwrap_or_default()
    }
}

/// True if `bytes` begin at a multiple of `align_bytes`.
pub(super) fn is_aligned(bytes: &[u8], align_bytes: usize) -> bool {
    bytes.as_ptr().align_offset(align_bytes) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_as_long_as_was_asked_for() {
        for align in [1, 512, 4096, 65536] {
            for length in [0, 1, 511, 4096, 70_000] {
                let mut aligned = Aligned::zeroed(length, align);
                assert_eq!(aligned.bytes_mut().len(), length);
                assert!(is_aligned(aligned.bytes(), align));
            }
        }
    }
}
