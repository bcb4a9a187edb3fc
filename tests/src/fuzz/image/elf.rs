//! Small ELF files, built from choices and taken apart again without the loader's help.

use super::super::input::Input;
use super::sections;
use super::segment::{Segment, number};
use std::ops::Range;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;

/// Program headers in a built file, at most.
const SEGMENTS_MAX: usize = 4;

/// Instructions, or pieces of some, in a segment, at most.
const PIECES_MAX: usize = 64;

/// Bytes of a built file that are changed afterwards, at most.
const PATCHES_MAX: usize = 8;

/// A segment of a file that was loaded.
pub struct Loadable<'a> {
    /// Where it is loaded.
    pub address: u64,
    /// Its part of the file.
    pub file_bytes: &'a [u8],
    /// Bytes it has in memory.
    pub memory_bytes: u64,
    /// True if it is executable.
    pub executable: bool,
}

impl Loadable<'_> {
    /// Where it lies.
    pub fn range(&self) -> Range<u64> {
        self.address..self.address + self.memory_bytes.max(self.file_bytes.len() as u64)
    }
}

/// The loadable segments of a file that was found good.
pub fn loadable(file: &[u8]) -> Vec<Loadable<'_>> {
    let first = number(file, 32, 8) as usize;
    let count = number(file, 56, 2) as usize;
    let headers = (0..count).map(|index| &file[first + index * PROGRAM_HEADER_BYTES..]);
    headers
        .filter(|header| number(header, 0, 4) == u64::from(PT_LOAD))
        .map(|header| segment(file, header))
        .collect()
}

fn segment<'a>(file: &'a [u8], header: &[u8]) -> Loadable<'a> {
    let (offset, length) = (number(header, 8, 8) as usize, number(header, 32, 8) as usize);
    Loadable {
        address: number(header, 24, 8),
        // An empty part may be said to lie anywhere.
        file_bytes: if length == 0 {
            &[]
        } else {
            &file[offset..offset + length]
        },
        memory_bytes: number(header, 40, 8),
        executable: number(header, 4, 4) & u64::from(PF_X) != 0,
    }
}

/// A file of one to four segments with code full of what is rewritten, and a few bytes changed
/// afterwards; then section headers and symbols, which say what of it is data, and a few bytes
/// changed in all.
pub fn build(input: &mut Input<'_>) -> Vec<u8> {
    let count = 1 + usize::from(input.byte()) % SEGMENTS_MAX;
    let mut segments: Vec<Segment> = Vec::new();
    for _ in 0..count {
        let after = segments.last().map_or(1 << 20, |last| {
            last.address.wrapping_add(last.content.len() as u64)
        });
        segments.push(choose_segment(input, after));
    }
    let entry = segments[0].address.wrapping_add(u64::from(input.byte()));
    let mut file = lay_out(&segments, entry);
    patch(input, &mut file);
    sections::declare(input, &segments, &mut file);
    patch(input, &mut file);
    file
}

fn patch(input: &mut Input<'_>, file: &mut [u8]) {
    for _ in 0..usize::from(input.byte()) % (PATCHES_MAX + 1) {
        let at = usize::from(input.word()) % file.len();
        file[at] = input.byte();
    }
}

fn choose_segment(input: &mut Input<'_>, after: u64) -> Segment {
    let kind = input.pick(&[PT_LOAD, PT_LOAD, PT_LOAD, PT_NOTE]);
    let flags = input.pick(&[5, 5, 7, 6, 1, 4]);
    let address = match input.byte() % 4 {
        0 => after,
        1 => after.wrapping_sub(u64::from(input.byte())),
        2 => (1 << 20) + 16 * u64::from(input.word()),
        _ => input.quad(),
    };
    let pieces = usize::from(input.byte()) % (PIECES_MAX + 1);
    let mut content = Vec::new();
    (0..pieces).for_each(|_| append_piece(&mut content, input));
    let memory_bytes = match input.byte() % 4 {
        0 | 1 => content.len() as u64,
        2 => content.len() as u64 + u64::from(input.word()),
        _ => input.quad(),
    };
    Segment {
        kind,
        flags,
        address,
        memory_bytes,
        content,
    }
}

/// An instruction that is rewritten (to exit, or to fault), a prefix, the beginning of another
/// instruction, or any byte.
fn append_piece(code: &mut Vec<u8>, input: &mut Input<'_>) {
    let choice = input.byte();
    let register = input.byte() & 7;
    match choice % 20 {
        0 => code.extend([0x0f, 0x31]),
        1 => code.extend([0x0f, 0x01, 0xf9]),
        2 => code.extend([0x0f, 0xa2]),
        3 => code.extend([0x0f, 0xc7, 0xf0 | register]),
        4 => code.extend([0x0f, 0xc7, 0xf8 | register]),
        5 => code.push(0x48 | register),
        6 => code.push(0x66),
        7 => code.push(0xf2 | register & 1),
        8 => code.push(0xf0),
        9 => code.push(0xb8 | register),
        10 => code.push(0x0f),
        11 => code.extend([0x48, 0xb8 | register]),
        12 => code.push(0x90),
        13 => code.extend([0x0f, 0x01, 0xd0]),
        14 => code.extend([0xf3, 0x0f, 0xc7, 0xf8 | register]),
        15 => code.extend([0x0f, 0x01, 0xc8]),
        16 => code.extend([0x66, 0x0f, 0xae, 0xf0 | register]),
        17 => code.extend([0x0f, 0xae, 0x20 | register]),
        18 => code.extend([0xc7, 0xf8]),
        _ => code.push(input.byte()),
    }
}

fn lay_out(segments: &[Segment], entry: u64) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(2_u16.to_le_bytes());
    file.extend(62_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    [entry, HEADER_BYTES as u64, 0]
        .iter()
        .for_each(|field| file.extend(field.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    let sizes = [HEADER_BYTES, PROGRAM_HEADER_BYTES, segments.len(), 64, 0, 0];
    sizes
        .iter()
        .for_each(|size| file.extend((*size as u16).to_le_bytes()));
    let mut offset = (HEADER_BYTES + segments.len() * PROGRAM_HEADER_BYTES) as u64;
    for segment in segments {
        let length = segment.content.len() as u64;
        file.extend(segment.kind.to_le_bytes());
        file.extend(segment.flags.to_le_bytes());
        let fields = [
            offset,
            segment.address,
            segment.address,
            length,
            segment.memory_bytes,
            16,
        ];
        fields.iter().for_each(|field| file.extend(field.to_le_bytes()));
        offset += length;
    }
    segments.iter().for_each(|segment| file.extend(&segment.content));
    file
}
