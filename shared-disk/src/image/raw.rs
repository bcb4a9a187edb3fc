//! A raw image: the bytes of the disk are the bytes of the file.
//!
//! `O_DIRECT` moves whole blocks between memory and file that are both aligned. What is not is
//! copied; a write of a part of a block reads the block first, and nobody else may write meanwhile.

use super::aligned::{Aligned, is_aligned};
use super::kinds::{Access, RawFile};
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};
use rustix::fs::{AtFlags, StatxFlags, statx};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{PoisonError, RwLock};

/// Bytes that are copied or zeroed at a time, so that memory is bounded whatever is asked for. A
/// request of a guest has 126,976 at most.
const PIECE_BYTES: usize = 1 << 20;

/// Greatest alignment of memory that is asked for: a page of the largest size that Linux has on any
/// processor.
const MEMORY_ALIGN_MAX: usize = 64 << 10;

/// Alignments that are taken for granted where the kernel does not say them: blocks of every disk
/// that is made today fit into them.
const ALIGN_BYTES: usize = 4096;

/// Reason for the page cache where there is nothing else.
const NO_DIRECT: &str = "its file system has no O_DIRECT";

/// A raw image that is open.
#[derive(Debug)]
pub(super) struct Raw {
    file: File,
    size_bytes: u64,
    access: Access,
    memory_align_bytes: usize,
    /// Held for writing by whoever writes a part of a block, for reading by all other writers.
    parts: RwLock<()>,
}

impl Raw {
    /// Takes a file of `size_bytes` that was opened without `O_DIRECT`.
    pub(super) fn new(file: File, size_bytes: u64, wants_direct: bool, read_only: bool) -> Self {
        let (access, memory_align_bytes) = if !wants_direct {
            buffered("O_DIRECT is not wanted")
        } else if read_only {
            // Overlays read it by the same open file, and know no alignment.
            buffered("it is only read")
        } else {
            access(&file, size_bytes)
        };
        Self {
            file,
            size_bytes,
            access,
            memory_align_bytes,
            parts: RwLock::new(()),
        }
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn raw_file(&self) -> RawFile<'_> {
        RawFile {
            file: &self.file,
            align_bytes: self.align_bytes(),
            memory_align_bytes: self.memory_align_bytes,
        }
    }

    fn align_bytes(&self) -> usize {
        match self.access {
            Access::Direct { align_bytes } => align_bytes,
            Access::Buffered { .. } => 1,
        }
    }

    /// Reads. Bytes beyond the end are an error.
    pub(super) fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.fits(offset_bytes, buffer) {
            return self.file.read_exact_at(buffer, offset_bytes);
        }
        let mut offset_bytes = offset_bytes;
        for piece in buffer.chunks_mut(PIECE_BYTES) {
            let (around, skip) = self.around(offset_bytes, piece.len());
            let mut copy = self.memory(&around);
            self.file.read_exact_at(copy.bytes_mut(), around.start)?;
            let wanted = copy.bytes().get(skip..).and_then(|rest| rest.get(..piece.len()));
            piece.copy_from_slice(wanted.ok_or(ErrorKind::InvalidInput)?);
            offset_bytes = offset_bytes.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Writes.
    pub(super) fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        if self.is_whole(offset_bytes, bytes.len() as u64) {
            let _others = self.parts.read().unwrap_or_else(PoisonError::into_inner);
            if self.fits(offset_bytes, bytes) {
                return self.file.write_all_at(bytes, offset_bytes);
            }
            return self.write_pieces(offset_bytes, bytes);
        }
        let _alone = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        self.write_pieces(offset_bytes, bytes)
    }

    /// Writes by copies. A block of which only a part is given is read first.
    fn write_pieces(&self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        let mut offset_bytes = offset_bytes;
        for piece in bytes.chunks(PIECE_BYTES) {
            let (around, skip) = self.around(offset_bytes, piece.len());
            let mut copy = self.memory(&around);
            if copy.bytes().len() != piece.len() {
                self.file.read_exact_at(copy.bytes_mut(), around.start)?;
            }
            let place = copy.bytes_mut().get_mut(skip..);
            let place = place.and_then(|rest| rest.get_mut(..piece.len()));
            place.ok_or(ErrorKind::InvalidInput)?.copy_from_slice(piece);
            self.file.write_all_at(copy.bytes(), around.start)?;
            offset_bytes = offset_bytes.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes a range read as zeroes, and gives its room back where `may_unmap`.
    pub(super) fn zero(&self, offset_bytes: u64, length_bytes: u64, may_unmap: bool) -> io::Result<()> {
        let mode = if may_unmap {
            FallocateFlags::FALLOC_FL_PUNCH_HOLE
        } else {
            FallocateFlags::FALLOC_FL_ZERO_RANGE
        };
        match self.allocate(mode, offset_bytes, length_bytes) {
            Err(error) if lacks(&error) => self.write_zeroes(offset_bytes, length_bytes),
            done => done,
        }
    }

    fn allocate(&self, mode: FallocateFlags, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let as_offset = |number: u64| i64::try_from(number).map_err(|_| ErrorKind::InvalidInput);
        let (offset, length) = (as_offset(offset_bytes)?, as_offset(length_bytes)?);
        let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let whole = self.is_whole(offset_bytes, length_bytes);
        let _alone = (!whole).then(|| self.parts.write().unwrap_or_else(PoisonError::into_inner));
        let _others = whole.then(|| self.parts.read().unwrap_or_else(PoisonError::into_inner));
        Ok(fallocate(&self.file, mode, offset, length)?)
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let piece_bytes = (PIECE_BYTES as u64).min(length_bytes);
        let zeroes = Aligned::zeroed(piece_bytes as usize, self.memory_align_bytes);
        let mut done = 0;
        while done < length_bytes {
            let length = (length_bytes - done).min(piece_bytes);
            let piece = zeroes.bytes().get(..length as usize).unwrap_or_default();
            self.write_at(offset_bytes.saturating_add(done), piece)?;
            done += length;
        }
        Ok(())
    }

    /// True if a range has whole blocks only.
    pub(super) fn is_whole(&self, offset_bytes: u64, length_bytes: u64) -> bool {
        let align = self.align_bytes() as u64;
        offset_bytes.is_multiple_of(align) && length_bytes.is_multiple_of(align)
    }

    /// True if the system can move `bytes` as they are.
    fn fits(&self, offset_bytes: u64, bytes: &[u8]) -> bool {
        self.is_whole(offset_bytes, bytes.len() as u64) && is_aligned(bytes, self.memory_align_bytes)
    }

    /// The whole blocks that hold a range, and where in them it begins.
    fn around(&self, offset_bytes: u64, length_bytes: usize) -> (Range<u64>, usize) {
        let align = self.align_bytes() as u64;
        let start = offset_bytes - offset_bytes % align;
        let end = offset_bytes.saturating_add(length_bytes as u64);
        // The size is a multiple of the alignment: see `access`.
        let end = end.next_multiple_of(align).min(self.size_bytes);
        (start..end, (offset_bytes - start) as usize)
    }

    fn memory(&self, range: &Range<u64>) -> Aligned {
        let length = range.end.saturating_sub(range.start) as usize;
        Aligned::zeroed(length, self.memory_align_bytes)
    }
}

fn buffered(why: &'static str) -> (Access, usize) {
    (Access::Buffered { why }, 1)
}

/// Turns `O_DIRECT` on where the file system has it and the file can be moved in whole blocks.
fn access(file: &File, size_bytes: u64) -> (Access, usize) {
    let (align_bytes, memory_align_bytes) = match alignments(file) {
        Ok(alignments) => alignments,
        Err(why) => return buffered(why),
    };
    if !size_bytes.is_multiple_of(align_bytes as u64) {
        return buffered("its size is not a multiple of the blocks of O_DIRECT");
    }
    match set_direct(file) {
        Ok(()) => (Access::Direct { align_bytes }, memory_align_bytes),
        Err(_) => buffered(NO_DIRECT),
    }
}

fn set_direct(file: &File) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    flags.insert(OFlag::O_DIRECT);
    flags.remove(OFlag::O_NONBLOCK);
    fcntl(file, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Alignments of offsets and of memory.
fn alignments(file: &File) -> Result<(usize, usize), &'static str> {
    let asked = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    let said = asked
        .ok()
        .filter(|said| said.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
    let Some(said) = said else {
        return Ok((ALIGN_BYTES, ALIGN_BYTES));
    };
    let (offset, memory) = (
        said.stx_dio_offset_align as usize,
        said.stx_dio_mem_align as usize,
    );
    if offset == 0 || memory == 0 {
        return Err(NO_DIRECT);
    }
    if !offset.is_power_of_two() || !memory.is_power_of_two() || offset.max(memory) > MEMORY_ALIGN_MAX {
        return Err("its file system has an alignment of O_DIRECT that is not known");
    }
    Ok((offset, memory))
}

/// True where a file system lacks an operation.
fn lacks(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV)
    )
}
