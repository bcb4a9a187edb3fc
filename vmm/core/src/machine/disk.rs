//! Disks of a machine: what its guest sees of one, and what it asks of it.
//!
//! A disk answers nothing at once. Its device gives each request a number and lets it out of the
//! door; what comes of it enters later, as an event with that number. In between the request is a
//! part of the machine's state: whoever goes on from a saved machine asks its disk again.

use lockstep_logging_channel::{Change, Digest};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Disks of a machine, at most: there are four interrupt lines for them.
pub const DISKS_MAX: usize = 4;
/// Bytes in which a disk's size and places are counted (VIRTIO 1.2, 5.2.4).
pub const SECTOR_BYTES: u64 = 512;
/// Bytes of a serial number (5.2.6).
pub const SERIAL_BYTES: usize = 20;
/// Pieces of memory that a request may have for its bytes.
pub const SEGMENTS_MAX: u32 = 31;
/// Bytes of such a piece, at most.
pub const SEGMENT_BYTES_MAX: u32 = 4096;
/// Bytes that a request moves, at most: 126,976, which a record of the log has room for.
pub const REQUEST_BYTES_MAX: u32 = SEGMENTS_MAX * SEGMENT_BYTES_MAX;
/// Requests of a disk that are not done, at most.
pub const IN_FLIGHT_MAX: usize = 64;
/// Written bytes in requests that are not done, with which a disk takes no further request. With
/// the last one that it took there are 651,264 at most: they are a part of every saved state.
pub const IN_FLIGHT_BYTES_MAX: u64 = 512 << 10;
/// Sectors that one request discards or makes zeros, at most: 32 MiB, which a disk that has no
/// shorter way writes in a tenth of a second.
pub const ZEROED_SECTORS_MAX: u32 = 1 << 16;
/// The largest disk: 8 EiB, so that places in it never overflow.
const SECTORS_MAX: u64 = 1 << 54;

const _: () = assert!(REQUEST_BYTES_MAX as usize + 64 <= lockstep_logging_channel::BODY_BYTES_MAX);

/// All that a guest can see of a disk but its content. The order of the fields is that of the saved
/// form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskShape {
    /// Its size in sectors of [`SECTOR_BYTES`].
    pub sectors: u64,
    /// Bytes of the blocks in which it is read and written: 512 or 4096.
    pub block_bytes: u32,
    /// It cannot be written.
    pub read_only: bool,
    /// Its serial number, padded with zeros.
    pub serial: [u8; SERIAL_BYTES],
}

/// Shape that no disk can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Blocks of another size.
    #[error("its blocks have {block_bytes} bytes; they can have 512 or 4096")]
    Block {
        /// Bytes of a block.
        block_bytes: u32,
    },
    /// Not a number of blocks, none, or too many.
    #[error("it has {sectors} sectors of 512 bytes, which are not 1 to 2^54 of them or no whole blocks")]
    Size {
        /// Its sectors.
        sectors: u64,
    },
}

impl DiskShape {
    /// Refuses what no disk can be.
    ///
    /// # Errors
    /// [`ShapeError`].
    pub fn check(&self) -> Result<(), ShapeError> {
        let Self {
            sectors, block_bytes, ..
        } = *self;
        if ![512, 4096].contains(&block_bytes) {
            return Err(ShapeError::Block { block_bytes });
        }
        let whole = sectors.is_multiple_of(u64::from(block_bytes) / SECTOR_BYTES);
        if sectors == 0 || sectors > SECTORS_MAX || !whole {
            return Err(ShapeError::Size { sectors });
        }
        Ok(())
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR_BYTES)
    }

    /// True where so many bytes, at this place, are whole blocks of it.
    #[must_use]
    pub fn has(&self, offset_bytes: u64, length_bytes: u64) -> bool {
        let block_bytes = u64::from(self.block_bytes);
        let ends = offset_bytes.checked_add(length_bytes);
        length_bytes > 0
            && offset_bytes.is_multiple_of(block_bytes)
            && length_bytes.is_multiple_of(block_bytes)
            && ends.is_some_and(|end| end <= self.bytes())
    }
}

impl fmt::Display for DiskShape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sectors,
            block_bytes,
            read_only,
            serial,
        } = self;
        write!(formatter, "{sectors} sectors in blocks of {block_bytes} bytes")?;
        let text = serial.split(|byte| *byte == 0).next().unwrap_or_default();
        write!(formatter, " serial {}", text.escape_ascii())?;
        if *read_only {
            write!(formatter, " read-only")?;
        }
        Ok(())
    }
}

/// Request of a guest to one of its disks. The order of the fields is that of the saved form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its ordinal among those of the disk, from 0.
    pub number: u64,
    /// What is to be done.
    pub operation: Operation,
}

/// Operation that a disk carries out. The order of variants and fields is that of the saved form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Reads bytes.
    Read {
        /// Place of the first.
        offset_bytes: u64,
        /// Their number.
        length_bytes: u32,
    },
    /// Writes bytes.
    Write {
        /// Place of the first.
        offset_bytes: u64,
        /// They themselves, as they were when the guest asked.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// What was done before it survives a loss of power.
    Flush,
    /// The guest needs these bytes no more. They are zeros from then on, on every machine.
    Discard {
        /// Place of the first.
        offset_bytes: u64,
        /// Their number.
        length_bytes: u64,
    },
    /// Makes bytes zeros.
    WriteZeroes {
        /// Place of the first.
        offset_bytes: u64,
        /// Their number.
        length_bytes: u64,
        /// They need no room on the medium from then on.
        may_unmap: bool,
    },
}

impl Operation {
    /// The bytes of the disk that it is about; none for a flush.
    #[must_use]
    pub fn range(&self) -> Option<Range<u64>> {
        let (offset_bytes, length_bytes) = match self {
            Self::Read {
                offset_bytes,
                length_bytes,
            } => (*offset_bytes, u64::from(*length_bytes)),
            Self::Write { offset_bytes, bytes } => (*offset_bytes, bytes.len() as u64),
            Self::Flush => return None,
            Self::Discard {
                offset_bytes,
                length_bytes,
            }
            | Self::WriteZeroes {
                offset_bytes,
                length_bytes,
                ..
            } => (*offset_bytes, *length_bytes),
        };
        Some(offset_bytes..offset_bytes.saturating_add(length_bytes))
    }

    /// True where it changes what the disk has.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Flush => false,
            Self::Write { .. } | Self::Discard { .. } | Self::WriteZeroes { .. } => true,
        }
    }

    /// True where it is an output of a machine that shares the disk with another one.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.changes() || *self == Self::Flush
    }

    /// What it has changed when it is done; none for a read.
    #[must_use]
    pub fn into_change(self) -> Option<Change> {
        Some(match self {
            Self::Read { .. } => return None,
            Self::Write { offset_bytes, bytes } => Change::Written { offset_bytes, bytes },
            Self::Flush => Change::Flushed,
            Self::Discard {
                offset_bytes,
                length_bytes,
            } => Change::Discarded {
                offset_bytes,
                length_bytes,
            },
            Self::WriteZeroes {
                offset_bytes,
                length_bytes,
                may_unmap,
            } => Change::Zeroed {
                offset_bytes,
                length_bytes,
                may_unmap,
            },
        })
    }

    /// Bytes that it writes and carries itself.
    #[must_use]
    pub fn carried_bytes(&self) -> u64 {
        match self {
            Self::Write { bytes, .. } => bytes.len() as u64,
            _ => 0,
        }
    }

    /// True where a disk of this shape can be asked for it.
    #[must_use]
    pub fn suits(&self, shape: &DiskShape) -> bool {
        let bytes_max = match self {
            Self::Read { .. } | Self::Write { .. } => u64::from(REQUEST_BYTES_MAX),
            Self::Discard { .. } | Self::WriteZeroes { .. } => u64::from(ZEROED_SECTORS_MAX) * SECTOR_BYTES,
            Self::Flush => 0,
        };
        let allowed = !(shape.read_only && self.changes());
        let fits = self.range().is_none_or(|range| {
            let length_bytes = range.end - range.start;
            length_bytes <= bytes_max && shape.has(range.start, length_bytes)
        });
        allowed && fits
    }
}

impl From<Change> for Operation {
    fn from(change: Change) -> Self {
        match change {
            Change::Written { offset_bytes, bytes } => Self::Write { offset_bytes, bytes },
            Change::Flushed => Self::Flush,
            Change::Discarded {
                offset_bytes,
                length_bytes,
            } => Self::Discard {
                offset_bytes,
                length_bytes,
            },
            Change::Zeroed {
                offset_bytes,
                length_bytes,
                may_unmap,
            } => Self::WriteZeroes {
                offset_bytes,
                length_bytes,
                may_unmap,
            },
        }
    }
}

impl Request {
    /// Digest of its number, its operation and the bytes of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let Self { number, operation } = self;
        let Range { start, end } = operation.range().unwrap_or(0..0);
        let (code, written): (u8, &[u8]) = match operation {
            Operation::Read { .. } => (0, &[]),
            Operation::Write { bytes, .. } => (1, bytes),
            Operation::Flush => (2, &[]),
            Operation::Discard { .. } => (3, &[]),
            Operation::WriteZeroes { may_unmap: false, .. } => (4, &[]),
            Operation::WriteZeroes { may_unmap: true, .. } => (5, &[]),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&number.to_le_bytes()).update(&[code]);
        hasher.update(&start.to_le_bytes()).update(&end.to_le_bytes());
        Digest::from_hash(&hasher.update(written).finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: DiskShape = DiskShape {
        sectors: 64,
        block_bytes: 4096,
        read_only: false,
        serial: *b"first\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    };

    fn write(offset_bytes: u64, bytes: usize) -> Operation {
        let bytes = vec![7; bytes];
        Operation::Write { offset_bytes, bytes }
    }

    #[test]
    fn a_shape_is_shown_with_all_that_a_guest_sees() {
        assert_eq!(
            SHAPE.to_string(),
            "64 sectors in blocks of 4096 bytes serial first"
        );
        let read_only = DiskShape {
            read_only: true,
            ..SHAPE
        };
        assert!(read_only.to_string().ends_with("first read-only"));
    }

    #[test]
    fn blocks_and_sizes_that_no_disk_has_are_refused() {
        assert_eq!(SHAPE.check(), Ok(()));
        let (sectors, block_bytes) = (65, 1024);
        assert_eq!(
            DiskShape { block_bytes, ..SHAPE }.check(),
            Err(ShapeError::Block { block_bytes })
        );
        for sectors in [0, sectors, SECTORS_MAX + 8] {
            assert_eq!(
                DiskShape { sectors, ..SHAPE }.check(),
                Err(ShapeError::Size { sectors })
            );
        }
    }

    #[test]
    fn a_request_is_of_whole_blocks_within_the_disk() {
        let suits = |offset, bytes| write(offset, bytes).suits(&SHAPE);
        assert!(suits(0, 4096) && suits(28 << 10, 4096));
        assert!(!suits(0, 0) && !suits(512, 4096) && !suits(0, 512));
        assert!(!suits(28 << 10, 8192) && !suits(u64::MAX - 4095, 4096));
    }

    #[test]
    fn requests_that_differ_in_anything_have_other_digests() {
        let (offset_bytes, length_bytes) = (0, 4096);
        let zeroes = |may_unmap| Operation::WriteZeroes {
            offset_bytes,
            length_bytes,
            may_unmap,
        };
        let operations = [
            write(0, 4096),
            write(4096, 4096),
            Operation::Flush,
            zeroes(false),
            zeroes(true),
            Operation::Discard {
                offset_bytes,
                length_bytes,
            },
            Operation::Read {
                offset_bytes,
                length_bytes: 4096,
            },
        ];
        let requests = operations.iter().flat_map(|operation| {
            [0, 1].map(|number| Request {
                number,
                operation: operation.clone(),
            })
        });
        let digests: Vec<_> = requests.map(|request| request.digest()).collect();
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest), "{index}");
        }
    }
}
