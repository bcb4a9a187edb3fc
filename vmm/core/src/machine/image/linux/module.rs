//! Kernel modules: relocatable ELF files, compressed or not. They are looked at and never changed.

use super::super::error::ImageError;
use super::elf;
use super::payload::Format;
use super::sites::{self, Counts};
use object::elf::ET_REL;

/// One module, decompressed: the largest of a distribution have some 30 MB without debug
/// information.
pub const MODULE_BYTES_MAX: u64 = 128 << 20;

/// Counts what is in a module's code, and changes nothing.
///
/// # Errors
/// [`ImageError`]: it is not a module for this processor.
pub fn count(image: &[u8]) -> Result<Counts, ImageError> {
    let mut counts = Counts::default();
    let sections = match elf::code_sections(image, ET_REL.0) {
        // Modules of data only exist: tables of another module's.
        Err(ImageError::NoSections) => return Ok(counts),
        sections => sections?,
    };
    for section in sections {
        if let Some(code) = image.get(section.file.clone()) {
            sites::count(code, &section.name, &mut counts);
        }
    }
    Ok(counts)
}

/// Instructions in the code of a module, compressed or not. `left` is how much may be decompressed,
/// and becomes less.
///
/// # Errors
/// [`ImageError`].
pub fn count_file(contents: &[u8], left: &mut u64) -> Result<Counts, ImageError> {
    let Some(format) = Format::of(contents) else {
        *left = left.saturating_sub(contents.len() as u64);
        return count(contents);
    };
    let limit = MODULE_BYTES_MAX.min(*left);
    let decompressed = format.decompress(&mut &*contents, limit)?;
    *left = left.saturating_sub(decompressed.len() as u64);
    count(&decompressed)
}
