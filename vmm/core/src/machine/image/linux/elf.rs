//! ELF files of Linux: the kernel's own, and its modules.
//!
//! A kernel's executable segment holds data as well; its section headers say what is code, and its
//! own build keeps them ("vmlinux.bin" in arch/x86/boot/compressed/Makefile). Format: System V ABI.

use super::super::error::ImageError;
use super::super::segments;
use super::sites::NAME_BYTES_MAX;
use object::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS};
use object::read::elf::{FileHeader, SectionHeader};
use std::ops::Range;

/// A section of instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeSection {
    /// Its name, as far as [`NAME_BYTES_MAX`].
    pub name: String,
    /// Virtual address of its first byte.
    pub address: u64,
    /// Its bytes in the file.
    pub file: Range<usize>,
    /// True if it can be written as well.
    pub writable: bool,
}

impl CodeSection {
    /// Its virtual addresses.
    #[must_use]
    pub fn addresses(&self) -> Range<u64> {
        self.address..self.address + self.file.len() as u64
    }
}

/// The sections of instructions of `image`, which is of ELF type `kind`.
///
/// # Errors
/// [`ImageError`]; without any it is [`ImageError::NoSections`].
pub fn code_sections(image: &[u8], kind: u16) -> Result<Vec<CodeSection>, ImageError> {
    let (header, endian) = segments::header(image, kind)?;
    let damaged = |why: &dyn std::fmt::Display| ImageError::NotElf {
        why: format!("its section headers are damaged: {why}"),
    };
    let headers = header
        .section_headers(endian, image)
        .map_err(|why| damaged(&why))?;
    if headers.is_empty() {
        return Err(ImageError::NoSections);
    }
    let names = header
        .section_strings(endian, image, headers)
        .map_err(|why| damaged(&why))?;
    let mut sections: Vec<CodeSection> = Vec::new();
    for section in headers {
        let flags = section.sh_flags(endian);
        let is_code = flags.contains(SHF_ALLOC) && flags.contains(SHF_EXECINSTR);
        if !is_code || section.sh_type(endian) == SHT_NOBITS || section.sh_size(endian) == 0 {
            continue;
        }
        let offset = section.sh_offset(endian) as usize;
        let end = offset.saturating_add(section.sh_size(endian) as usize);
        let file = offset..end;
        image.get(file.clone()).ok_or(ImageError::Truncated {
            what: "a section of code",
            needs: end as u64,
            has: image.len() as u64,
        })?;
        let address = section.sh_addr(endian);
        if address.checked_add(section.sh_size(endian)).is_none() {
            return Err(damaged(&"a section of code is beyond the last address"));
        }
        let name = section.name(endian, names).map_err(|why| damaged(&why))?;
        let name = name.get(..NAME_BYTES_MAX).unwrap_or(name);
        sections.push(CodeSection {
            name: name.escape_ascii().to_string(),
            address,
            file,
            writable: flags.contains(SHF_WRITE),
        });
    }
    if sections.is_empty() {
        return Err(ImageError::NoSections);
    }
    // So all of them together are no more than the file, and no byte is decoded twice.
    sections.sort_by_key(|section| section.file.start);
    let mut pairs = sections.iter().zip(sections.iter().skip(1));
    if pairs.any(|(one, next)| next.file.start < one.file.end) {
        return Err(damaged(&"sections of code overlap"));
    }
    Ok(sections)
}
