//! Numbers that follow from a seed.

/// A number that follows from these (splitmix64, twice).
pub const fn mixed(seed: u64, number: u64) -> u64 {
    step(step(seed) ^ number)
}

/// The next number of a sequence.
pub const fn step(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
