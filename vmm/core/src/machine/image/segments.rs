//! The header and the segments of an executable: what is loaded where.
//!
//! Format: System V ABI, ELF-64 object file format; AMD64 supplement for `e_machine`.

use super::error::{IMAGE_ADDRESS_MIN, ImageError};
use object::Endianness;
use object::elf::{EM_X86_64, ET_EXEC, FileHeader64, PF_X, PT_LOAD, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use std::ops::Range;

/// More program headers than any linker writes for a static image.
const SEGMENTS_MAX: u16 = 64;

/// A part of an image that is loaded.
#[derive(Debug)]
pub struct Segment {
    /// Its physical addresses.
    pub range: Range<u64>,
    /// Its first byte in the file.
    pub file_offset: u64,
    /// Bytes of it that the file has; the rest are zero.
    pub file_bytes: u64,
    /// True if it holds instructions.
    pub executable: bool,
}

/// A statically linked program for x86-64, checked.
#[derive(Debug)]
pub struct Executable<'image> {
    /// Its header.
    pub header: &'image FileHeader64<Endianness>,
    /// Its byte order, which is little-endian.
    pub endian: Endianness,
    /// Address at which to enter it.
    pub entry: u64,
    /// The segments to be loaded. No two of them overlap.
    pub segments: Vec<Segment>,
}

impl Segment {
    /// Byte of the file that is loaded at `address`, if there is one.
    #[must_use]
    pub fn file_byte(&self, address: u64) -> Option<u64> {
        let into = address.checked_sub(self.range.start)?;
        (into < self.file_bytes).then(|| self.file_offset + into)
    }
}

impl<'image> Executable<'image> {
    /// Checks `image`, which is loaded into `memory_bytes` of memory, and entered in a segment that
    /// is executable.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn read(image: &'image [u8], memory_bytes: u64) -> Result<Self, ImageError> {
        let executable = Self::read_with_any_entry(image, memory_bytes)?;
        let entry = executable.entry;
        let mut segments = executable.segments.iter();
        if !segments.any(|segment| segment.executable && segment.range.contains(&entry)) {
            return Err(ImageError::Entry { entry });
        }
        Ok(executable)
    }

    /// The same for one whose caller knows what is code in it.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn read_with_any_entry(image: &'image [u8], memory_bytes: u64) -> Result<Self, ImageError> {
        let not_elf = |why: object::read::Error| ImageError::NotElf { why: why.to_string() };
        let (header, endian) = header(image, ET_EXEC.0)?;
        // The field, not what a section header may say instead: linux-loader knows the field only.
        let count = header.e_phnum(endian);
        if count > SEGMENTS_MAX {
            return Err(ImageError::NotElf {
                why: format!("it has {count} program headers, the most is {SEGMENTS_MAX}"),
            });
        }
        let headers = header.program_headers(endian, image).map_err(not_elf)?;
        let segments: Vec<Segment> = headers
            .iter()
            .filter(|header| header.p_type(endian) == PT_LOAD)
            .map(|header| segment(header, endian, image, memory_bytes))
            .collect::<Result<_, _>>()?;
        check_apart(&segments)?;
        Ok(Self {
            header,
            endian,
            entry: header.e_entry(endian),
            segments,
        })
    }
}

/// The header of a little-endian ELF file for x86-64 of type `kind`.
///
/// # Errors
/// [`ImageError::NotElf`], [`ImageError::Machine`], [`ImageError::Kind`].
pub fn header(image: &[u8], kind: u16) -> Result<(&FileHeader64<Endianness>, Endianness), ImageError> {
    let not_elf = |why: object::read::Error| ImageError::NotElf { why: why.to_string() };
    let header = FileHeader64::<Endianness>::parse(image).map_err(not_elf)?;
    let endian = header.endian().map_err(not_elf)?;
    if endian != Endianness::Little {
        return Err(ImageError::NotElf {
            why: "it is big-endian".to_owned(),
        });
    }
    let machine = header.e_machine(endian);
    if machine != EM_X86_64 {
        return Err(ImageError::Machine { machine: machine.0 });
    }
    let found = header.e_type(endian).0;
    if found != kind {
        return Err(ImageError::Kind { kind: found });
    }
    Ok((header, endian))
}

/// A rewritten instruction must not be another segment's data, or the middle of another's
/// instruction.
fn check_apart(segments: &[Segment]) -> Result<(), ImageError> {
    let mut ranges: Vec<&Range<u64>> = segments
        .iter()
        .map(|segment| &segment.range)
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| range.start);
    let overlap = ranges
        .iter()
        .zip(ranges.iter().skip(1))
        .find(|(one, next)| next.start < one.end);
    overlap.map_or(Ok(()), |(_, next)| {
        Err(ImageError::Overlap { address: next.start })
    })
}

fn segment(
    header: &ProgramHeader64<Endianness>,
    endian: Endianness,
    image: &[u8],
    memory_bytes: u64,
) -> Result<Segment, ImageError> {
    let start = header.p_paddr(endian);
    let length = header.p_memsz(endian);
    let file_bytes = header.p_filesz(endian);
    let end = start.saturating_add(length.max(file_bytes));
    if start < IMAGE_ADDRESS_MIN || end > memory_bytes {
        return Err(ImageError::Segment {
            start,
            end,
            limit: memory_bytes,
        });
    }
    let file_offset = header.p_offset(endian);
    if header.data(endian, image).is_err() {
        return Err(ImageError::NotElf {
            why: format!(
                "its segment at {start:#x} takes {file_bytes} bytes from byte {file_offset} of the file, which has {} bytes",
                image.len()
            ),
        });
    }
    Ok(Segment {
        range: start..end,
        file_offset,
        file_bytes,
        executable: header.p_flags(endian).contains(PF_X),
    })
}
