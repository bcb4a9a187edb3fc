//! Checks an ELF64 image, loads it through linux-loader, and rewrites its executable segments.
//!
//! Format: System V ABI, ELF-64 object file format; AMD64 supplement for `e_machine`.

use super::code::Declared;
use super::error::ImageError;
use super::rewrite;
use super::segments::{Executable, Segment};
use super::sites::Sites;
use crate::machine::memory::{self, Memory};
use linux_loader::loader::KernelLoader;
use std::io::Cursor;
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress};

/// An image that was loaded.
#[derive(Debug)]
pub struct LoadedImage {
    /// Address at which to enter it.
    pub entry: u64,
    /// The instructions that were rewritten.
    pub sites: Sites,
    /// Stretches that were decoded as instructions, each from its first byte on.
    pub code: Vec<Range<u64>>,
    /// Places that hold the bytes of such an instruction across others' boundaries: data or
    /// immediates, said at `-v`.
    pub suspicious: Vec<u64>,
    /// Rewritten instructions that no function symbol with a size claims: what is data there has
    /// been changed. Said at `-v`.
    pub unclaimed: Vec<u64>,
}

/// Loads `image` into guest memory and rewrites it.
///
/// # Errors
/// [`ImageError`]; guest memory may be partly written then.
pub fn load(image: &[u8], memory: &Memory) -> Result<LoadedImage, ImageError> {
    let executable = Executable::read(image, memory::size_bytes(memory))?;
    let declared = Declared::read(image, executable.header, executable.endian)?;
    let entry = executable.entry;
    if declared.is_data(entry) {
        return Err(ImageError::Entry { entry });
    }
    linux_loader::loader::elf::Elf::load(memory, None, &mut Cursor::new(image), None)
        .map_err(|why| ImageError::NotElf { why: why.to_string() })?;
    let mut loaded = LoadedImage {
        entry,
        sites: Sites::default(),
        code: Vec::new(),
        suspicious: Vec::new(),
        unclaimed: Vec::new(),
    };
    for segment in executable.segments.iter().filter(|segment| segment.executable) {
        rewrite_segment(memory, segment, &declared, &mut loaded)?;
    }
    Ok(loaded)
}

fn rewrite_segment(
    memory: &Memory,
    segment: &Segment,
    declared: &Declared,
    loaded: &mut LoadedImage,
) -> Result<(), ImageError> {
    let address = segment.range.start;
    let outside = |_| ImageError::Segment {
        start: address,
        end: segment.range.end,
        limit: memory::size_bytes(memory),
    };
    let mut code = vec![0; segment.file_bytes as usize];
    memory
        .read_slice(&mut code, GuestAddress(address))
        .map_err(outside)?;
    let in_file = address..address + segment.file_bytes;
    for stretch in declared.stretches(&in_file) {
        let (from, to) = (stretch.start - address, stretch.end - address);
        if let Some(bytes) = code.get_mut(from as usize..to as usize) {
            let done = rewrite::rewrite(bytes, stretch.start, &mut loaded.sites)?;
            let unclaimed = done
                .changed
                .into_iter()
                .filter(|at| !declared.is_in_function(*at));
            loaded.unclaimed.extend(unclaimed);
            loaded.code.push(stretch);
        }
    }
    loaded.suspicious.extend(rewrite::leftovers(&code, address));
    memory.write_slice(&code, GuestAddress(address)).map_err(outside)
}

#[cfg(test)]
mod tests {
    use super::super::error::IMAGE_ADDRESS_MIN;
    use super::*;
    use crate::machine::memory::MEMORY_BYTES_MIN;

    const HEADER_BYTES: u64 = 64;
    const PROGRAM_HEADER_BYTES: u64 = 56;
    const READ_EXECUTE: u32 = 5;

    /// A file header: `headers` program headers at `at`, and a first section header behind it.
    fn header(at: u64, headers: u16) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        [IMAGE_ADDRESS_MIN, at, HEADER_BYTES]
            .iter()
            .for_each(|field| file.extend(field.to_le_bytes()));
        file.extend([0; 4]);
        [64, 56, headers, 64, 1, 0]
            .iter()
            .for_each(|field: &u16| file.extend(field.to_le_bytes()));
        file
    }

    fn program_header(offset: u64, address: u64, bytes: u64) -> Vec<u8> {
        let mut header = [1_u32.to_le_bytes(), READ_EXECUTE.to_le_bytes()].concat();
        let fields = [offset, address, address, bytes, bytes, 16];
        fields.iter().for_each(|field| header.extend(field.to_le_bytes()));
        header
    }

    /// Two executable segments of two bytes, at the address for images and `distance` behind it.
    fn two_segments(distance: u64) -> Vec<u8> {
        let data = HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES;
        let first = program_header(data, IMAGE_ADDRESS_MIN, 2);
        let second = program_header(data + 2, IMAGE_ADDRESS_MIN + distance, 2);
        [
            header(HEADER_BYTES, 2),
            second,
            first,
            vec![0x0f, 0x31, 0x0f, 0x31],
        ]
        .concat()
    }

    #[test]
    fn segments_that_touch_are_loaded_and_rewritten() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        assert_eq!(load(&two_segments(2), &memory).unwrap().sites.len(), 2);
    }

    #[test]
    fn segments_that_overlap_are_refused() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let address = IMAGE_ADDRESS_MIN + 1;
        assert_eq!(
            load(&two_segments(1), &memory).unwrap_err(),
            ImageError::Overlap { address }
        );
    }

    #[test]
    fn a_segment_beyond_the_file_names_both_lengths() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let file = [
            header(HEADER_BYTES, 1),
            program_header(100, IMAGE_ADDRESS_MIN, 1000),
        ]
        .concat();
        let refused = load(&file, &memory).unwrap_err().to_string();
        assert!(
            refused.contains("1000 bytes from byte 100 of the file, which has 120 bytes"),
            "{refused}"
        );
    }

    /// RDTSC, eight bytes of data that hold RDTSC, RDTSC; a section that is code, and a symbol for
    /// the data.
    fn data_in_text(symbol_size: u64) -> Vec<u8> {
        const SECTION_BYTES: usize = 64;
        const SYMBOL_BYTES: u64 = 24;
        let text = [
            0x0f, 0x31, 0x0f, 0x31, 0x06, 0x0f, 0x31, 0x06, 0x0f, 0x31, 0x0f, 0x31,
        ];
        let (length, data) = (text.len() as u64, HEADER_BYTES + PROGRAM_HEADER_BYTES);
        let (symbols, names) = (data + length, data + length + 2 * SYMBOL_BYTES);
        let sections = names + 1;
        let mut file = header(HEADER_BYTES, 1);
        file[40..48].copy_from_slice(&sections.to_le_bytes());
        file[60..62].copy_from_slice(&4_u16.to_le_bytes());
        file.extend(program_header(data, IMAGE_ADDRESS_MIN, length));
        file.extend(text);
        file.extend([0; SYMBOL_BYTES as usize]);
        // Name, STT_OBJECT, section 1; value; size.
        file.extend([0, 0, 0, 0, 1, 0, 1, 0]);
        file.extend((IMAGE_ADDRESS_MIN + 2).to_le_bytes());
        file.extend(symbol_size.to_le_bytes());
        file.push(0);
        let section = |kind: u32, flags: u64, fields: [u64; 3], link: u32, entry: u64| {
            let mut bytes = [0_u32.to_le_bytes(), kind.to_le_bytes()].concat();
            [flags, fields[0], fields[1], fields[2]]
                .iter()
                .for_each(|field| bytes.extend(field.to_le_bytes()));
            bytes.extend([link.to_le_bytes(), 1_u32.to_le_bytes()].concat());
            bytes.extend([1_u64.to_le_bytes(), entry.to_le_bytes()].concat());
            bytes
        };
        file.extend([0; SECTION_BYTES]);
        file.extend(section(1, 6, [IMAGE_ADDRESS_MIN, data, length], 0, 0));
        file.extend(section(2, 0, [0, symbols, 2 * SYMBOL_BYTES], 3, SYMBOL_BYTES));
        file.extend(section(3, 0, [0, names, 1], 0, 0));
        file
    }

    #[test]
    fn data_that_is_declared_is_left_as_it_is_and_code_around_it_rewritten() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let loaded = load(&data_in_text(8), &memory).unwrap();

        let sites: Vec<u64> = loaded
            .sites
            .iter()
            .map(|site| site.address - IMAGE_ADDRESS_MIN)
            .collect();
        assert_eq!(sites, [0, 10]);
        let data: [u8; 8] = memory.read_obj(GuestAddress(IMAGE_ADDRESS_MIN + 2)).unwrap();
        assert_eq!(data, [0x0f, 0x31, 0x06, 0x0f, 0x31, 0x06, 0x0f, 0x31]);
        assert_eq!(loaded.suspicious.len(), 3, "named all the same");
        let unclaimed: Vec<u64> = loaded.unclaimed.iter().map(|at| at - IMAGE_ADDRESS_MIN).collect();
        assert_eq!(unclaimed, [0, 10], "no function holds them");
    }

    #[test]
    fn data_that_is_not_declared_is_refused_where_it_cannot_be_told_from_code() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let refused = load(&data_in_text(0), &memory).unwrap_err();
        assert!(
            refused.to_string().contains("declare data as an object"),
            "{refused}"
        );
    }

    /// 0xffff program headers mean that a section header says how many there are: one, here. All
    /// the others, which would be loaded unchecked, lie below the address for images.
    #[test]
    fn a_number_of_headers_that_stands_elsewhere_is_refused() {
        const EVERY: u16 = u16::MAX;
        let mut section_header = vec![0; 64];
        section_header[44] = 1;
        let at = HEADER_BYTES + 64;
        let data = at + u64::from(EVERY) * PROGRAM_HEADER_BYTES;
        let mut file = [header(at, EVERY), section_header].concat();
        file.extend(program_header(data, IMAGE_ADDRESS_MIN, 2));
        (1..EVERY).for_each(|_| file.extend(program_header(data, 0x1000, 2)));
        file.extend([0x0f, 0x31]);
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let refused = load(&file, &memory).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("65535 program headers, the most is 64"),
            "{refused}"
        );
        assert_eq!(memory.read_obj::<u16>(GuestAddress(0x1000)).unwrap(), 0);
    }
}
