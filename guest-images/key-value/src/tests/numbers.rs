//! Numbers for random tests.

/// Gives the same numbers for the same seed.
pub(crate) struct Numbers(u64);

impl Numbers {
    /// The seed is `LOCKSTEP_SEED`, or else one of its own each time. It is printed.
    pub(crate) fn from_environment() -> Self {
        let given = std::env::var("LOCKSTEP_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed =
            given.unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0));
        println!("LOCKSTEP_SEED={seed}");
        Self(seed)
    }

    /// Those of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number (SplitMix64, Steele, Lea and Flood 2014).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
