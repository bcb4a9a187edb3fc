//! The parts of an image that are code, and the addresses at which decoding may begin.
//!
//! An executable segment says that its bytes may be executed, not that they are instructions.
//! Section headers, where there are any, say which parts are (`SHF_EXECINSTR`); symbols say what in
//! those is data (`STT_OBJECT` with a size), and where instructions begin (functions and labels).
//! An image without section headers has nothing but code in its executable segments. Format: System
//! V ABI, sections and symbol table.

use super::error::ImageError;
use object::Endianness;
use object::elf::{
    FileHeader64, SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, SHT_SYMTAB, STT_FUNC, STT_NOTYPE, STT_OBJECT,
};
use object::read::StringTable;
use object::read::elf::{FileHeader, SectionHeader, SectionTable, Sym};
use std::collections::BTreeSet;
use std::ops::Range;

/// Ranges and addresses that section headers and symbols declare.
#[derive(Debug, Default)]
pub struct Declared {
    /// Sections of instructions; none where there are no section headers.
    sections: Option<Vec<Range<u64>>>,
    data: Vec<Range<u64>>,
    functions: Vec<Range<u64>>,
    starts: BTreeSet<u64>,
}

impl Declared {
    /// Reads them.
    ///
    /// # Errors
    /// [`ImageError::NotElf`]: they are damaged.
    pub fn read(
        image: &[u8],
        header: &FileHeader64<Endianness>,
        endian: Endianness,
    ) -> Result<Self, ImageError> {
        let not_elf = |why: object::read::Error| ImageError::NotElf {
            why: format!("its section headers are damaged: {why}"),
        };
        let headers = header.section_headers(endian, image).map_err(not_elf)?;
        // The first is not a section (System V ABI, SHN_UNDEF).
        if headers.len() < 2 {
            return Ok(Self::default());
        }
        let is_code = |section: &&object::elf::SectionHeader64<Endianness>| {
            let flags = section.sh_flags(endian);
            flags.contains(SHF_ALLOC)
                && flags.contains(SHF_EXECINSTR)
                && section.sh_type(endian) != SHT_NOBITS
        };
        let range = |start: u64, size: u64| start..start.saturating_add(size);
        let sections = headers.iter().skip(1).filter(is_code);
        let mut declared = Self {
            sections: Some(
                sections
                    .map(|section| range(section.sh_addr(endian), section.sh_size(endian)))
                    .collect(),
            ),
            ..Self::default()
        };
        // Nothing here has to have a name.
        let table = SectionTable::<'_, FileHeader64<Endianness>, &[u8]>::new(headers, StringTable::default());
        let symbols = table.symbols(endian, image, SHT_SYMTAB).map_err(not_elf)?;
        for symbol in symbols.iter() {
            let (start, size) = (symbol.st_value(endian), symbol.st_size(endian));
            match symbol.st_type() {
                STT_OBJECT if size > 0 => declared.data.push(range(start, size)),
                STT_FUNC => {
                    declared.starts.insert(start);
                    declared.functions.push(range(start, size));
                }
                STT_NOTYPE => {
                    declared.starts.insert(start);
                }
                _ => {}
            }
        }
        Ok(declared)
    }

    /// The stretches of `segment` that are instructions from their first byte on.
    #[must_use]
    pub fn stretches(&self, segment: &Range<u64>) -> Vec<Range<u64>> {
        let whole = std::slice::from_ref(segment);
        let sections = self.sections.as_deref().unwrap_or(whole);
        let mut cuts: BTreeSet<u64> = self.starts.clone();
        cuts.extend([segment.start, segment.end]);
        for range in sections.iter().chain(&self.data) {
            cuts.extend([range.start, range.end]);
        }
        let within = |ranges: &[Range<u64>], at: u64| ranges.iter().any(|range| range.contains(&at));
        let inside: Vec<u64> = cuts.range(segment.start..=segment.end).copied().collect();
        inside
            .iter()
            .zip(inside.iter().skip(1))
            .filter(|(start, _)| within(sections, **start) && !within(&self.data, **start))
            .map(|(start, end)| *start..*end)
            .collect()
    }

    /// True where a function symbol with a size holds `address`.
    #[must_use]
    pub fn is_in_function(&self, address: u64) -> bool {
        self.functions.iter().any(|range| range.contains(&address))
    }

    /// True where `address` is declared not to be an instruction.
    #[must_use]
    pub fn is_data(&self, address: u64) -> bool {
        let holds = |range: &Range<u64>| range.contains(&address);
        self.data.iter().any(holds)
            || self
                .sections
                .as_ref()
                .is_some_and(|sections| !sections.iter().any(holds))
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of stretches may have one")]
mod tests {
    use super::*;

    #[test]
    fn without_section_headers_a_segment_is_code() {
        assert_eq!(Declared::default().stretches(&(10..20)), [10..20]);
        assert!(!Declared::default().is_data(10));
    }

    #[test]
    fn objects_and_other_sections_are_data_and_symbols_begin_anew() {
        let declared = Declared {
            sections: Some(vec![12..30]),
            data: vec![16..20],
            starts: [14, 24, 99].into(),
            ..Declared::default()
        };
        assert_eq!(declared.stretches(&(10..28)), [12..14, 14..16, 20..24, 24..28]);
        let data: Vec<u64> = (10..28).filter(|at| declared.is_data(*at)).collect();
        assert_eq!(data, [10, 11, 16, 17, 18, 19]);
    }

    #[test]
    fn functions_claim_what_is_in_them() {
        let declared = Declared {
            functions: vec![10..20, 30..30],
            ..Declared::default()
        };
        let claimed: Vec<u64> = (8..32).filter(|at| declared.is_in_function(*at)).collect();
        assert_eq!(claimed, (10..20).collect::<Vec<_>>());
    }
}
