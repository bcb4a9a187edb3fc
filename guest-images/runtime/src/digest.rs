//! A running 64-bit digest (FNV-1a by words): small, not cryptographic, the same everywhere.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// What has been taken in so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(OFFSET)
    }
}

impl Digest {
    /// Takes in one number.
    pub fn number(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(PRIME);
        self.0 ^= self.0 >> 29;
    }

    /// Takes in bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    /// The digest.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn bytes_follow_fnv_1a() {
        let mut digest = Digest::default();

        digest.bytes(b"foobar");

        // Test vector of the FNV authors for 64-bit FNV-1a.
        assert_eq!(digest.value(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn order_of_numbers_counts() {
        let mut one = Digest::default();
        let mut other = Digest::default();

        one.number(1);
        one.number(2);
        other.number(2);
        other.number(1);

        assert_ne!(one, other);
    }
}
