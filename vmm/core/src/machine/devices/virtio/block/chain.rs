//! A request of the driver as it lies in a chain (VIRTIO 1.2, 5.2.6):
//!
//! ```text
//!   readable: type u32 | reserved u32 | sector u64 | bytes to be written, or a range
//!   writable: bytes that are read | status u8
//! ```
//!
//! How the bytes are spread over descriptors does not matter. What is wrong is answered at once,
//! and is never a reason to stop.

use crate::machine::devices::virtio::queue::is_too_long;
use crate::machine::disk::{
    DiskShape, Operation, REQUEST_BYTES_MAX, SECTOR_BYTES, SEGMENTS_MAX, SERIAL_BYTES, ZEROED_SECTORS_MAX,
};
use crate::machine::memory::Memory;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Reader};
use vm_memory::bitmap::BitmapSlice;

/// Status of a request that was carried out.
pub(super) const OK: u8 = VIRTIO_BLK_S_OK as u8;
const IO_ERROR: u8 = VIRTIO_BLK_S_IOERR as u8;
const UNSUPPORTED: u8 = VIRTIO_BLK_S_UNSUPP as u8;

/// Bytes of the beginning.
const HEADER_BYTES: usize = 16;
/// Bytes of a range that is discarded or made zeros.
const RANGE_BYTES: usize = 16;
/// Writable pieces of a chain, at most: one more for the status.
pub(super) const PIECES_MAX: usize = SEGMENTS_MAX as usize + 1;

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub address: u64,
    pub bytes: u32,
}

impl From<Descriptor> for Piece {
    fn from(descriptor: Descriptor) -> Self {
        Self {
            address: descriptor.addr().0,
            bytes: descriptor.len(),
        }
    }
}

/// Content of a chain.
pub(super) enum Asked {
    /// An operation of the disk, and the writable pieces of the chain.
    Operation(Operation, Vec<Piece>),
    /// Something that was answered at once, by writing so many bytes.
    Answered(u32),
}

/// Reads a chain.
pub(super) fn read(chain: DescriptorChain<&Memory>, memory: &Memory, shape: &DiskShape) -> Asked {
    if is_too_long(&chain) {
        return Asked::Answered(0);
    }
    let pieces: Vec<Piece> = chain.clone().writable().map(Piece::from).collect();
    let (Ok(mut reader), Ok(mut writer)) = (chain.clone().reader(memory), chain.writer(memory)) else {
        return Asked::Answered(0);
    };
    // Without a place for the status nothing can be said.
    let Some(room_bytes) = writer.available_bytes().checked_sub(1) else {
        return Asked::Answered(0);
    };
    let Ok(mut status) = writer.split_at(room_bytes) else {
        return Asked::Answered(0);
    };
    let asked = if pieces.len() > PIECES_MAX {
        Err(IO_ERROR)
    } else {
        operation(&mut reader, room_bytes, shape)
    };
    let (written_bytes, answer) = match asked {
        Ok(Some(operation)) => return Asked::Operation(operation, pieces),
        Ok(None) => {
            let serial = shape
                .serial
                .get(..room_bytes.min(SERIAL_BYTES))
                .unwrap_or_default();
            match writer.write_all(serial) {
                Ok(()) => (serial.len() as u32, OK),
                Err(_) => (0, IO_ERROR),
            }
        }
        Err(answer) => (0, answer),
    };
    Asked::Answered(status.write_all(&[answer]).map_or(0, |()| written_bytes + 1))
}

/// The operation that is asked for, none for the serial number, or the status of one that cannot
/// be.
fn operation<B: BitmapSlice>(
    reader: &mut Reader<'_, B>,
    room_bytes: usize,
    shape: &DiskShape,
) -> Result<Option<Operation>, u8> {
    let [kind, _, low, high] = words(reader)?;
    let sector = u64::from(high) << 32 | u64::from(low);
    let offset_bytes = || sector.checked_mul(SECTOR_BYTES).ok_or(IO_ERROR);
    let operation = match kind {
        VIRTIO_BLK_T_IN => Operation::Read {
            offset_bytes: offset_bytes()?,
            length_bytes: length(room_bytes)?,
        },
        VIRTIO_BLK_T_OUT => {
            let offset_bytes = offset_bytes()?;
            let mut bytes = vec![0; length(reader.available_bytes())? as usize];
            reader.read_exact(&mut bytes).map_err(|_| IO_ERROR)?;
            Operation::Write { offset_bytes, bytes }
        }
        VIRTIO_BLK_T_FLUSH => Operation::Flush,
        VIRTIO_BLK_T_GET_ID => return Ok(None),
        // They are not offered then.
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if shape.read_only => return Err(UNSUPPORTED),
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => zeroing(kind, reader)?,
        _ => return Err(UNSUPPORTED),
    };
    if operation.suits(shape) {
        Ok(Some(operation))
    } else {
        Err(IO_ERROR)
    }
}

/// A range that is discarded or made zeros: there is one, as the configuration says.
fn zeroing<B: BitmapSlice>(kind: u32, reader: &mut Reader<'_, B>) -> Result<Operation, u8> {
    if reader.available_bytes() != RANGE_BYTES {
        return Err(IO_ERROR);
    }
    let [low, high, sectors, flags] = words(reader)?;
    let sector = u64::from(high) << 32 | u64::from(low);
    if sectors > ZEROED_SECTORS_MAX {
        return Err(IO_ERROR);
    }
    let offset_bytes = sector.checked_mul(SECTOR_BYTES).ok_or(IO_ERROR)?;
    let length_bytes = u64::from(sectors) * SECTOR_BYTES;
    let may_unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
    let known = if kind == VIRTIO_BLK_T_DISCARD {
        0
    } else {
        VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
    };
    if flags & !known != 0 {
        return Err(UNSUPPORTED);
    }
    Ok(if kind == VIRTIO_BLK_T_DISCARD {
        Operation::Discard {
            offset_bytes,
            length_bytes,
        }
    } else {
        Operation::WriteZeroes {
            offset_bytes,
            length_bytes,
            may_unmap,
        }
    })
}

/// Bytes that are moved, before anything is allocated for them.
fn length(bytes: usize) -> Result<u32, u8> {
    let length = u32::try_from(bytes).ok();
    length.filter(|bytes| *bytes <= REQUEST_BYTES_MAX).ok_or(IO_ERROR)
}

/// The next four words: a header, or a range.
fn words<B: BitmapSlice>(reader: &mut Reader<'_, B>) -> Result<[u32; 4], u8> {
    let mut bytes = [0; HEADER_BYTES];
    reader.read_exact(&mut bytes).map_err(|_| IO_ERROR)?;
    let (words, _) = bytes.as_chunks::<4>();
    let mut found = [0; 4];
    for (to, from) in found.iter_mut().zip(words) {
        *to = u32::from_le_bytes(*from);
    }
    Ok(found)
}
