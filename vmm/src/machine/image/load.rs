//! Checks an ELF64 image, loads it through linux-loader, and rewrites its executable segments.
//!
//! Format: System V ABI, ELF-64 object file format; AMD64 supplement for `e_machine`.

use super::rewrite;
use super::sites::Sites;
use crate::machine::memory::{self, Memory};
use linux_loader::loader::KernelLoader;
use object::elf::{EM_X86_64, ET_EXEC, FileHeader64, PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::Endianness;
use std::io::Cursor;
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress};

/// Images live at or above this address; boot structures below.
pub const IMAGE_ADDRESS_MIN: u64 = 1 << 20;
/// More program headers than any linker writes for a static image.
const SEGMENTS_MAX: usize = 64;

/// Why an image cannot be run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Not an ELF64 file at all, or a damaged one.
    #[error("it is not a 64-bit ELF image: {why}")]
    NotElf {
        /// What is wrong with it.
        why: String,
    },
    /// Built for something else.
    #[error("it is built for ELF machine {machine}, not for x86-64 (62)")]
    Machine {
        /// `e_machine`.
        machine: u16,
    },
    /// A shared object or a relocatable file.
    #[error("it is of ELF type {kind}, not a statically linked executable (2)")]
    Kind {
        /// `e_type`.
        kind: u16,
    },
    /// A segment lies outside guest memory.
    #[error(
        "its segment at {start:#x} to {end:#x} does not fit: guest memory for images is {IMAGE_ADDRESS_MIN:#x} to {limit:#x}"
    )]
    Segment {
        /// First address.
        start: u64,
        /// Address after the last.
        end: u64,
        /// Size of guest memory, in bytes.
        limit: u64,
    },
    /// The entry is in no executable segment.
    #[error("its entry {entry:#x} is in no executable segment")]
    Entry {
        /// `e_entry`.
        entry: u64,
    },
    /// An instruction that must be rewritten cannot be.
    #[error("its instruction at {address:#x} ({instruction}) cannot be rewritten to exit: {why}")]
    Rewrite {
        /// Where it is.
        address: u64,
        /// What it is.
        instruction: String,
        /// Why it cannot.
        why: &'static str,
    },
}

/// What was loaded.
#[derive(Debug)]
pub struct LoadedImage {
    /// Where to enter it.
    pub entry: u64,
    /// The instructions that were rewritten.
    pub sites: Sites,
    /// Places that hold the bytes of such an instruction across others' boundaries: data or immediates, said at `-v`.
    pub suspicious: Vec<u64>,
}

struct Segment {
    range: Range<u64>,
    file_bytes: u64,
    executable: bool,
}

/// Loads `image` into guest memory and rewrites it.
///
/// # Errors
/// [`ImageError`]; guest memory may be partly written then.
pub fn load(image: &[u8], memory: &Memory) -> Result<LoadedImage, ImageError> {
    let (entry, segments) = check(image, memory::size_bytes(memory))?;
    linux_loader::loader::elf::Elf::load(memory, None, &mut Cursor::new(image), None)
        .map_err(|why| ImageError::NotElf { why: why.to_string() })?;
    let mut loaded = LoadedImage { entry, sites: Sites::default(), suspicious: Vec::new() };
    for segment in segments.iter().filter(|segment| segment.executable) {
        rewrite_segment(memory, segment, &mut loaded)?;
    }
    Ok(loaded)
}

fn rewrite_segment(memory: &Memory, segment: &Segment, loaded: &mut LoadedImage) -> Result<(), ImageError> {
    let address = segment.range.start;
    let outside = |_| ImageError::Segment {
        start: address,
        end: segment.range.end,
        limit: memory::size_bytes(memory),
    };
    let mut code = vec![0; segment.file_bytes as usize];
    memory.read_slice(&mut code, GuestAddress(address)).map_err(outside)?;
    loaded.suspicious.extend(rewrite::rewrite(&mut code, address, &mut loaded.sites)?);
    memory.write_slice(&code, GuestAddress(address)).map_err(outside)
}

fn check(image: &[u8], memory_bytes: u64) -> Result<(u64, Vec<Segment>), ImageError> {
    let not_elf = |why: object::read::Error| ImageError::NotElf { why: why.to_string() };
    let header = FileHeader64::<Endianness>::parse(image).map_err(not_elf)?;
    let endian = header.endian().map_err(not_elf)?;
    if endian != Endianness::Little {
        return Err(ImageError::NotElf { why: "it is big-endian".to_owned() });
    }
    let machine = header.e_machine(endian);
    if machine != EM_X86_64 {
        return Err(ImageError::Machine { machine: machine.0 });
    }
    let kind = header.e_type(endian);
    if kind != ET_EXEC {
        return Err(ImageError::Kind { kind: kind.0 });
    }
    let headers = header.program_headers(endian, image).map_err(not_elf)?;
    if headers.len() > SEGMENTS_MAX {
        return Err(ImageError::NotElf { why: format!("it has {} program headers", headers.len()) });
    }
    let segments: Vec<Segment> = headers
        .iter()
        .filter(|header| header.p_type(endian) == PT_LOAD)
        .map(|header| segment(header, endian, image, memory_bytes))
        .collect::<Result<_, _>>()?;
    let entry = header.e_entry(endian);
    if !segments.iter().any(|segment| segment.executable && segment.range.contains(&entry)) {
        return Err(ImageError::Entry { entry });
    }
    Ok((entry, segments))
}

fn segment<H: ProgramHeader<Endian = Endianness>>(
    header: &H,
    endian: Endianness,
    image: &[u8],
    memory_bytes: u64,
) -> Result<Segment, ImageError>
where
    H::Word: Into<u64>,
{
    let start: u64 = header.p_paddr(endian).into();
    let length: u64 = header.p_memsz(endian).into();
    let file_bytes: u64 = header.p_filesz(endian).into();
    let end = start.saturating_add(length.max(file_bytes));
    if start < IMAGE_ADDRESS_MIN || end > memory_bytes {
        return Err(ImageError::Segment { start, end, limit: memory_bytes });
    }
    if header.data(endian, image).is_err() {
        return Err(ImageError::NotElf { why: format!("its segment at {start:#x} lies beyond the end of the file") });
    }
    Ok(Segment { range: start..end, file_bytes, executable: header.p_flags(endian).contains(PF_X) })
}
