//! Section headers and symbols of a built file, and what those of any file say is data: taken apart
//! without the loader's help.

use super::super::input::Input;
use super::segment::{Segment, number};
use std::ops::Range;

const SECTION_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const SYMBOL_TABLE: u64 = 2;
const STRING_TABLE: u64 = 3;
const NO_BITS: u64 = 8;
const ALLOCATED_AND_EXECUTABLE: u64 = 2 | 4;
const OBJECT: u8 = 1;

/// Sections of instructions or data in a built file, at most.
const SECTIONS_MAX: usize = 3;
/// Symbols in it, at most.
const SYMBOLS_MAX: usize = 7;

/// Adds section headers and symbols to a built file; none for an input that is over.
pub fn declare(input: &mut Input<'_>, segments: &[Segment], file: &mut Vec<u8>) {
    let count = usize::from(input.byte()) % (SECTIONS_MAX + 1);
    if count == 0 {
        return;
    }
    let mut headers = vec![0; SECTION_BYTES];
    for _ in 0..count {
        let (start, size) = place(input, segments);
        let kind = input.pick(&[1, 1, 1, NO_BITS]);
        let flags = input.pick(&[6, 6, 6, 2, 7, 0]);
        headers.extend(header(kind, flags, [start, 0, size], [0, 0]));
    }
    let mut symbols = vec![0; SYMBOL_BYTES];
    for _ in 0..usize::from(input.byte()) % (SYMBOLS_MAX + 1) {
        let (start, size) = place(input, segments);
        symbols.extend([0, 0, 0, 0, input.pick(&[OBJECT, OBJECT, 2, 0]), 0, 1, 0]);
        symbols.extend(start.to_le_bytes());
        symbols.extend(size.to_le_bytes());
    }
    let at = file.len() as u64;
    let length = symbols.len() as u64;
    let names = [0, at + length, 1];
    let table = [count as u64 + 2, SYMBOL_BYTES as u64];
    headers.extend(header(SYMBOL_TABLE, 0, [0, at, length], table));
    headers.extend(header(STRING_TABLE, 0, names, [0, 0]));
    file.extend(symbols);
    file.push(0);
    let first = file.len() as u64;
    file[40..48].copy_from_slice(&first.to_le_bytes());
    file[60..62].copy_from_slice(&(count as u16 + 3).to_le_bytes());
    file.extend(headers);
}

/// Somewhere in a segment, or a little beyond it.
fn place(input: &mut Input<'_>, segments: &[Segment]) -> (u64, u64) {
    let segment = &segments[usize::from(input.byte()) % segments.len()];
    let length = segment.content.len() as u64;
    let start = u64::from(input.byte()) % (length + 1);
    let size = match input.byte() {
        0 => length,
        some => u64::from(some) % (length + 2),
    };
    (segment.address.wrapping_add(start), size)
}

/// Address, offset and size; link and size of an entry.
fn header(
    kind: u64,
    flags: u64,
    [address, offset, size]: [u64; 3],
    [link, entry_bytes]: [u64; 2],
) -> Vec<u8> {
    let mut bytes = (kind << 32).to_le_bytes().to_vec();
    for field in [flags, address, offset, size, link | 1 << 32, 1, entry_bytes] {
        bytes.extend(field.to_le_bytes());
    }
    bytes
}

/// What a file that was found good says of its bytes.
#[derive(Default)]
pub struct Said {
    /// Sections of instructions, where there are any headers.
    code: Option<Vec<Range<u64>>>,
    objects: Vec<Range<u64>>,
}

impl Said {
    /// Reads it.
    pub fn of(file: &[u8]) -> Self {
        let (first, stated) = (number(file, 40, 8) as usize, number(file, 60, 2));
        if first == 0 {
            return Self::default();
        }
        // A count too large for its field stands in the first header.
        let count = match stated {
            0 => number(file, first + 32, 8),
            some => some,
        };
        if count < 2 {
            return Self::default();
        }
        let sections: Vec<&[u8]> = (1..count as usize)
            .map(|index| &file[first + index * SECTION_BYTES..])
            .collect();
        let kind = |section: &[u8]| number(section, 4, 4);
        let code = sections.iter().filter(|section| {
            let flags = number(section, 8, 8);
            flags & ALLOCATED_AND_EXECUTABLE == ALLOCATED_AND_EXECUTABLE && kind(section) != NO_BITS
        });
        let code = code.map(|section| range(section, 16, 32)).collect();
        let table = sections.iter().find(|section| kind(section) == SYMBOL_TABLE);
        let objects = table.map_or_else(Vec::new, |table| {
            let (at, length) = (number(table, 24, 8) as usize, number(table, 32, 8) as usize);
            let symbols = file[at..at + length].chunks_exact(SYMBOL_BYTES);
            symbols
                .filter(|symbol| symbol[4] & 0xf == OBJECT)
                .map(|symbol| range(symbol, 8, 16))
                .collect()
        });
        Self {
            code: Some(code),
            objects,
        }
    }

    /// True if the byte at `address` does not belong to an instruction.
    pub fn is_data(&self, address: u64) -> bool {
        let within = |ranges: &[Range<u64>]| ranges.iter().any(|range| range.contains(&address));
        within(&self.objects) || self.code.as_ref().is_some_and(|code| !within(code))
    }
}

fn range(bytes: &[u8], start_at: usize, size_at: usize) -> Range<u64> {
    let start = number(bytes, start_at, 8);
    start..start.saturating_add(number(bytes, size_at, 8))
}
