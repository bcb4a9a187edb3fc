//! Seeded mutations for the stable toolchain: no coverage to guide them, but the same ones from the same seed.

use super::corpus::Seed;

/// Bytes a mutated input has at most, libFuzzer's own default.
pub const INPUT_BYTES_MAX: usize = 4096;

/// Changes made to one input, at most.
const CHANGES_MAX: usize = 8;

/// Numbers that look random (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed in `LOCKSTEP_SEED`, or a fresh one.
    #[must_use]
    pub fn seed() -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let fresh = || std::hash::RandomState::new().build_hasher().finish();
        std::env::var("LOCKSTEP_SEED").map_or_else(
            |_| fresh(),
            |seed| seed.parse().expect("LOCKSTEP_SEED is a number"),
        )
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit.max(1) as u64) as usize
    }
}

/// An input like the seeds, which are some.
#[must_use]
pub fn mutated(seeds: &[Seed], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].bytes.clone();
    for _ in 0..=random.below(CHANGES_MAX) {
        change(&mut bytes, seeds, random);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Seed], random: &mut Random) {
    let at = random.below(bytes.len());
    let run = 1 + random.below(16);
    let end = (at + run).min(bytes.len());
    match random.below(8) {
        0 => flip(bytes, at, random),
        1 => overwrite(bytes, at, &telling(random)),
        2 => overwrite(bytes, at, &[random.number() as u8]),
        3 => drop(bytes.drain(at..end)),
        4 => insert(bytes, at, &random.number().to_le_bytes()[..run.min(8)]),
        5 => {
            let copied = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            insert(bytes, to, &copied);
        }
        6 => {
            let other = &seeds[random.below(seeds.len())].bytes;
            let from = random.below(other.len());
            let piece = &other[from..(from + 4 * run).min(other.len())];
            insert(bytes, at, piece);
        }
        _ => bytes.truncate(at),
    }
}

fn flip(bytes: &mut [u8], at: usize, random: &mut Random) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..]
        .iter_mut()
        .zip(with)
        .for_each(|(to, from)| *to = *from);
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

/// A number at which lengths, counts and addresses go wrong, in one to eight bytes.
fn telling(random: &mut Random) -> Vec<u8> {
    const TELLING: [u64; 12] = [
        0,
        1,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        u64::MAX,
    ];
    let number = TELLING[random.below(TELLING.len())];
    let length = 1 << random.below(4);
    number.to_le_bytes()[..length].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds() -> Vec<Seed> {
        let seed = |bytes: &[u8]| Seed {
            name: String::new(),
            bytes: bytes.to_vec(),
        };
        vec![seed(b"a seed"), seed(b""), seed(&[7; 100])]
    }

    fn mutations(seed: u64) -> Vec<Vec<u8>> {
        let mut random = Random::new(seed);
        (0..500).map(|_| mutated(&seeds(), &mut random)).collect()
    }

    #[test]
    fn a_seed_gives_the_same_mutations_again() {
        assert_eq!(mutations(1), mutations(1));
        assert_ne!(mutations(1), mutations(2));
    }

    #[test]
    fn mutations_differ_and_are_bounded() {
        let all = mutations(3);
        assert!(all.iter().all(|bytes| bytes.len() <= INPUT_BYTES_MAX));
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert!(different.len() > all.len() / 2, "{}", different.len());
    }
}
