//! Layout of the disk, and the superblocks.

use lockstep_guest_runtime::digest::Digest;

/// "LOCKAPPE", little-endian.
const MAGIC: u64 = 0x4550_5041_4b43_4f4c;
/// The format that this software writes, and the only one it reads.
const VERSION: u64 = 1;

/// Bytes from one superblock to the next, and the grain of the halves: no block of a disk is
/// longer.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes before the halves.
pub const FRONT_BYTES: u64 = 2 * PAGE_BYTES;
/// Bytes of a superblock that are in use; the sector that holds them is written whole or not at
/// all.
pub const SUPERBLOCK_BYTES: usize = 7 * 8;
/// Bytes of the smallest half.
const HALF_BYTES_MIN: u64 = 64 << 10;
/// Bytes of the smallest disk.
pub const DISK_BYTES_MIN: u64 = FRONT_BYTES + 2 * HALF_BYTES_MIN;

/// Which half is in use, and how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Bytes of the disk when the file was made.
    pub disk_bytes: u64,
    /// Ordinal of the rewrite that made this half, from 1.
    pub generation: u64,
    /// Secret key of the half's digests.
    pub salt: u64,
    /// Sequence number of the last record before those of this half.
    pub sequence: u64,
}

/// A superblock that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is all zeros.
    Zeros,
    /// It has a version that is not known.
    Version(u64),
    /// It is something else.
    Foreign,
}

impl Superblock {
    /// Bytes of each half.
    pub const fn half_bytes(&self) -> u64 {
        (self.disk_bytes - FRONT_BYTES) / 2 / PAGE_BYTES * PAGE_BYTES
    }

    /// Place of the superblock.
    pub const fn place(&self) -> u64 {
        self.generation % 2 * PAGE_BYTES
    }

    /// Place of its half.
    pub const fn half_place(&self) -> u64 {
        FRONT_BYTES + self.generation % 2 * self.half_bytes()
    }

    /// Digest that the first record names as that of the one before it.
    pub const fn first_previous(&self) -> u64 {
        self.salt.rotate_left(32)
    }

    /// Writes it into the beginning of `block`.
    pub fn write(&self, block: &mut [u8]) {
        let Self {
            disk_bytes,
            generation,
            salt,
            sequence,
        } = *self;
        let fields = [MAGIC, VERSION, disk_bytes, generation, salt, sequence];
        let words = fields.into_iter().chain([check(&fields)]);
        for (word, bytes) in words.zip(block.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads it from the beginning of `block`.
    ///
    /// # Errors
    /// Content that is there instead.
    pub fn read(block: &[u8]) -> Result<Self, Unreadable> {
        if block.iter().all(|byte| *byte == 0) {
            return Err(Unreadable::Zeros);
        }
        let mut words = [0; SUPERBLOCK_BYTES / 8];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [magic, version, disk_bytes, generation, salt, sequence, found] = words;
        if magic != MAGIC {
            return Err(Unreadable::Foreign);
        }
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let fields = [magic, version, disk_bytes, generation, salt, sequence];
        if found != check(&fields) || disk_bytes < DISK_BYTES_MIN {
            return Err(Unreadable::Foreign);
        }
        Ok(Self {
            disk_bytes,
            generation,
            salt,
            sequence,
        })
    }
}

fn check(fields: &[u64]) -> u64 {
    let mut digest = Digest::default();
    fields.iter().for_each(|field| digest.number(*field));
    digest.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_is_read_as_it_was_written_and_no_bit_may_be_another() {
        let superblock = Superblock {
            disk_bytes: 1 << 20,
            generation: 3,
            salt: 0x1234_5678_9abc_def0,
            sequence: 77,
        };
        let mut block = [0; 512];
        superblock.write(&mut block);

        assert_eq!(Superblock::read(&block), Ok(superblock));
        for bit in 0..SUPERBLOCK_BYTES * 8 {
            let mut other = block;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::read(&other).is_err(), "bit {bit}");
        }
        assert_eq!(Superblock::read(&[0; 512]), Err(Unreadable::Zeros));
        block[8] = 2;
        assert_eq!(Superblock::read(&block), Err(Unreadable::Version(2)));
    }

    #[test]
    fn halves_and_superblocks_alternate() {
        let superblock = |generation| Superblock {
            disk_bytes: FRONT_BYTES + 2 * (68 << 10) + 4095,
            generation,
            salt: 0,
            sequence: 0,
        };
        assert_eq!(superblock(1).half_bytes(), 68 << 10);
        assert_eq!(
            (superblock(1).place(), superblock(1).half_place()),
            (4096, 8192 + (68 << 10))
        );
        assert_eq!((superblock(2).place(), superblock(2).half_place()), (0, 8192));
    }
}
