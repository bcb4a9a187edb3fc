//! Kernels for tests: small, of the form that Linux's build gives them.

use super::payload::Format;
use flate2::Compression;
use flate2::write::GzEncoder;
use lzma_rust2::{XzOptions, XzWriter};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::io::Write;
use std::ops::Range;

/// Version text of a synthetic bzImage.
pub const VERSION: &str = "6.1.0-synthetic";
/// Memory that it uses at first, by its header.
pub const INITIAL: Range<u64> = 0x10_0000..0x18_0000;
/// All formats.
pub const FORMATS: [Format; 4] = [Format::Gzip, Format::Xz, Format::Zstd, Format::Lz4];
/// Virtual address of what is loaded at 0.
pub const VIRTUAL: u64 = 0xffff_ffff_8000_0000;
/// Physical address of the first section, and the entry.
pub const ENTRY: u64 = 0x10_0000;

/// Compresses `bytes`.
pub fn compress(bytes: &[u8], format: Format) -> Vec<u8> {
    match format {
        Format::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Format::Xz => {
            let mut writer = XzWriter::new(Vec::new(), XzOptions::with_preset(0)).unwrap();
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        }
        Format::Zstd => compress_to_vec(bytes, CompressionLevel::Fastest),
        Format::Lz4 => {
            let mut frame = vec![0x02, 0x21, 0x4c, 0x18];
            for block in bytes.chunks(8 << 20) {
                let compressed = lz4_flex::block::compress(block);
                frame.extend((compressed.len() as u32).to_le_bytes());
                frame.extend(compressed);
            }
            frame
        }
    }
}

/// A payload as a kernel's build writes it: its size behind it, which gzip has already.
pub fn payload_of(bytes: &[u8], format: Format) -> Vec<u8> {
    let mut payload = compress(bytes, format);
    if format != Format::Gzip {
        payload.extend((bytes.len() as u32).to_le_bytes());
    }
    payload
}

/// A bzImage of one setup sector, with `payload`.
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    const PAYLOAD_OFFSET: u32 = 0x30;
    let mut image = vec![0; 1024 + PAYLOAD_OFFSET as usize];
    let mut set = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    set(0x1f1, &[1]);
    set(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    set(0x202, b"HdrS");
    set(0x206, &0x020f_u16.to_le_bytes());
    set(0x20e, &0x100_u16.to_le_bytes());
    set(0x236, &1_u16.to_le_bytes());
    set(0x248, &PAYLOAD_OFFSET.to_le_bytes());
    set(0x24c, &(payload.len() as u32).to_le_bytes());
    set(0x258, &INITIAL.start.to_le_bytes());
    set(0x260, &((INITIAL.end - INITIAL.start) as u32).to_le_bytes());
    set(0x300, VERSION.as_bytes());
    image.extend(payload);
    image
}

/// A section of an ELF file.
pub struct Section<'bytes> {
    /// Its name.
    pub name: &'bytes str,
    /// Its bytes.
    pub bytes: &'bytes [u8],
    /// True if it holds instructions.
    pub is_code: bool,
}

/// An ELF file of `kind` with `sections` behind each other from [`ENTRY`] on, in one segment that
/// is executable.
pub fn elf(kind: u16, sections: &[Section<'_>]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let contents: Vec<u8> = sections
        .iter()
        .flat_map(|section| section.bytes)
        .copied()
        .collect();
    let mut names = vec![0];
    let mut headers = vec![0; 64];
    let mut at = 0;
    for section in sections {
        let flags: u64 = if section.is_code { 6 } else { 2 };
        headers.extend(section_header(
            names.len() as u32,
            1,
            [
                flags,
                VIRTUAL + ENTRY + at,
                HEADERS + at,
                section.bytes.len() as u64,
            ],
        ));
        names.extend(section.name.as_bytes());
        names.push(0);
        at += section.bytes.len() as u64;
    }
    let name = names.len() as u32;
    names.extend(b".names\0");
    headers.extend(section_header(name, 3, [0, 0, HEADERS + at, names.len() as u64]));
    let sections_at = HEADERS + at + names.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([kind, 62].iter().flat_map(|field| field.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend(
        [ENTRY, 64, sections_at]
            .iter()
            .flat_map(|field| field.to_le_bytes()),
    );
    file.extend([0; 4]);
    let count = sections.len() as u16 + 2;
    let counts = [64, 56, 1, 64, count, count - 1_u16];
    file.extend(counts.iter().flat_map(|field| field.to_le_bytes()));
    file.extend([1_u32, 7].iter().flat_map(|field| field.to_le_bytes()));
    let segment = [HEADERS, VIRTUAL + ENTRY, ENTRY, at, at + 0x1000, 0x1000];
    file.extend(segment.iter().flat_map(|field| field.to_le_bytes()));
    file.extend(contents);
    file.extend(names);
    file.extend(headers);
    file
}

fn section_header(name: u32, kind: u32, fields: [u64; 4]) -> Vec<u8> {
    let mut header: Vec<u8> = [name, kind]
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect();
    header.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    header.extend([0; 8]);
    header.extend([1_u64, 0].iter().flat_map(|field| field.to_le_bytes()));
    header
}

/// A cpio archive ("newc") of regular files.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, contents) in files {
        archive.extend(entry(name, 0o10_0644, contents));
    }
    archive.extend(trailer());
    archive
}

/// The entry that ends a cpio archive.
pub fn trailer() -> Vec<u8> {
    entry("TRAILER!!!", 0, b"")
}

fn entry(name: &str, mode: u32, contents: &[u8]) -> Vec<u8> {
    let fields = [
        1,
        mode,
        0,
        0,
        1,
        0,
        contents.len() as u32,
        0,
        0,
        0,
        0,
        name.len() as u32 + 1,
        0,
    ];
    let mut entry = b"070701".to_vec();
    for field in fields {
        entry.extend(format!("{field:08x}").into_bytes());
    }
    entry.extend(name.as_bytes());
    entry.push(0);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry.extend(contents);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry
}
