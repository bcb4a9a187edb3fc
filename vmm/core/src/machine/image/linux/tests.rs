//! Whole kernels, loaded.

use super::super::IMAGE_ADDRESS_MIN;
use super::super::trap_ports::KernelTrap;
use super::sites::Kind;
use super::synthetic::{self, ENTRY, FORMATS, INITIAL, Section, VIRTUAL, payload_of};
use super::*;
use crate::machine::memory::{MEMORY_BYTES_MIN, allocate};
use object::elf::ET_REL;

/// rdtsc; mov cr4, rax; testb $4, 0x20(%rsp); jnz; iretq; hlt
const TEXT_BYTES: [u8; 15] = [
    0x0f, 0x31, 0x0f, 0x22, 0xe0, 0xf6, 0x44, 0x24, 0x20, 0x04, 0x75, 0x02, 0x48, 0xcf, 0xf4,
];
/// rdtscp
const ALTERNATIVE: [u8; 3] = [0x0f, 0x01, 0xf9];
/// Data that looks like RDTSC.
const DATA: [u8; 2] = [0x0f, 0x31];

fn code<'bytes>(name: &'bytes str, bytes: &'bytes [u8]) -> Section<'bytes> {
    Section {
        name,
        bytes,
        is_code: true,
    }
}

fn vmlinux() -> Vec<u8> {
    let data = Section {
        name: ".rodata",
        bytes: &DATA,
        is_code: false,
    };
    synthetic::elf(
        ET_EXEC.0,
        &[
            code(".text", &TEXT_BYTES),
            data,
            code(".altinstr_replacement", &ALTERNATIVE),
        ],
    )
}

fn load(image: &[u8], memory: &Memory) -> Result<LoadedKernel, ImageError> {
    let prepared = PreparedKernel::new(image, memory::size_bytes(memory))?;
    prepared.load(memory)?;
    Ok(prepared.kernel)
}

fn load_new(image: &[u8]) -> Result<(LoadedKernel, Memory), ImageError> {
    let memory = allocate(MEMORY_BYTES_MIN).unwrap();
    load(image, &memory).map(|loaded| (loaded, memory))
}

fn refused(image: &[u8]) -> ImageError {
    load_new(image).unwrap_err()
}

#[test]
fn a_kernel_is_loaded_and_rewritten_whatever_its_payload_is() {
    let cr4 = KernelTrap::SetCr4 { register: 0 }.instruction();
    let tscp = KernelTrap::TscAndProcessor.instruction();
    let expected = [
        &KernelTrap::Tsc.instruction()[..],
        &cr4,
        &[0x90],
        &TEXT_BYTES[5..],
        &DATA,
        &tscp,
        &[0x90],
    ]
    .concat();
    let compressed = FORMATS.map(|format| payload_of(&vmlinux(), format));
    let mut images: Vec<Vec<u8>> = compressed
        .iter()
        .map(|payload| synthetic::bzimage(payload))
        .collect();
    images.push(synthetic::bzimage(&vmlinux()));
    images.push(vmlinux());
    for image in images {
        let (loaded, memory) = load_new(&image).unwrap();
        let mut found = vec![0; expected.len()];
        memory.read_slice(&mut found, GuestAddress(ENTRY)).unwrap();
        assert_eq!(found, expected);
        assert_eq!(loaded.entry, ENTRY);
        assert_eq!(
            loaded.text,
            VIRTUAL + ENTRY..VIRTUAL + ENTRY + TEXT_BYTES.len() as u64
        );
        assert_eq!(loaded.iretq, Some(VIRTUAL + ENTRY + 12));
        let counts: Vec<_> = loaded.counts.iter().collect();
        assert_eq!(
            counts,
            [
                (Kind::Rdtsc, ".text", 1),
                (Kind::Rdtscp, ".altinstr_replacement", 1),
                (Kind::SetCr4, ".text", 1)
            ]
        );
    }
}

#[test]
fn the_end_counts_what_the_kernel_uses_at_first() {
    let (bare, _) = load_new(&vmlinux()).unwrap();
    let bytes = (TEXT_BYTES.len() + DATA.len() + ALTERNATIVE.len()) as u64;
    assert_eq!(
        bare.end,
        ENTRY + bytes + 0x1000,
        "with what the file does not have"
    );
    assert_eq!(bare.setup_header[0x11..0x15], *b"HdrS");
    let (contained, _) = load_new(&synthetic::bzimage(&vmlinux())).unwrap();
    assert_eq!(contained.end, INITIAL.end);
}

#[test]
fn the_way_back_is_in_the_last_part_with_any_where_nothing_better_is_known() {
    // An IRETQ in the first two MiB, two in the next, and none in those that are last.
    let mut text = vec![0x90; (3 << 20) + 8];
    let next = 1 << 20;
    text[..2].copy_from_slice(&[0x48, 0xcf]);
    text[next..next + 4].copy_from_slice(&[0x48, 0xcf, 0x48, 0xcf]);
    let memory = allocate(3 * MEMORY_BYTES_MIN).unwrap();
    let image = synthetic::elf(ET_EXEC.0, &[code(".text", &text)]);
    let loaded = load(&image, &memory).unwrap();
    assert_eq!(loaded.iretq, Some(VIRTUAL + ENTRY + next as u64));
    let without = synthetic::elf(ET_EXEC.0, &[code(".text", &[0xf4])]);
    assert_eq!(load_new(&without).unwrap().0.iretq, None);
}

#[test]
fn a_kernel_that_memory_does_not_hold_says_what_it_needs() {
    let limit = MEMORY_BYTES_MIN;
    let mut image = synthetic::bzimage(&vmlinux());
    image[0x260..0x264].copy_from_slice(&0x0100_0000_u32.to_le_bytes());
    let needs = INITIAL.start + 0x0100_0000;
    assert_eq!(refused(&image), ImageError::TooLarge { needs, limit });
    let payload = payload_of(&vec![0; limit as usize + 1], Format::Lz4);
    let needs = limit + 1;
    assert_eq!(
        refused(&synthetic::bzimage(&payload)),
        ImageError::TooLarge { needs, limit }
    );
}

#[test]
fn what_is_no_kernel_for_this_processor_is_refused_by_name() {
    let mut arm = vec![0; 0x40];
    arm[0x38..].copy_from_slice(b"ARM\x64\0\0\0\0");
    assert_eq!(
        refused(&arm),
        ImageError::Architecture {
            architecture: "arm64"
        }
    );
    let text = refused(b"#!/bin/sh\n").to_string();
    assert!(text.contains("23 21 2f 62"), "{text}");
    assert!(refused(&[]).to_string().contains("it is empty"));
    let mut other = vmlinux();
    other[18] = 183;
    assert_eq!(refused(&other), ImageError::Machine { machine: 183 });
    other[4] = 1;
    assert!(matches!(refused(&other), ImageError::NotElf { .. }));
}

#[test]
fn a_kernel_whose_code_cannot_be_told_is_refused() {
    let stripped = synthetic::elf(ET_EXEC.0, &[]);
    assert_eq!(refused(&stripped), ImageError::NoSections);
    let mut without = vmlinux();
    without[0x28..0x30].fill(0);
    without[0x3c..0x40].fill(0);
    assert_eq!(refused(&without), ImageError::NoSections);
}

/// Place of the headers of sections in `image`.
fn section_headers(image: &[u8]) -> usize {
    u64::from_le_bytes(image[0x28..0x30].try_into().unwrap()) as usize
}

#[test]
fn a_kernel_is_entered_in_a_section_of_code_whatever_its_segment_is() {
    let mut image = vmlinux();
    // Readable and writable.
    image[64 + 4] = 6;
    assert_eq!(load_new(&image).unwrap().0.entry, ENTRY);
    let entry = ENTRY + TEXT_BYTES.len() as u64;
    image[0x18..0x20].copy_from_slice(&entry.to_le_bytes());
    assert_eq!(refused(&image), ImageError::Entry { entry });
}

#[test]
fn data_that_counts_as_code_is_left_as_it_is() {
    let sections = [code(".text", &TEXT_BYTES), code(".data", &DATA)];
    let mut image = synthetic::elf(ET_EXEC.0, &sections);
    // Writable, allocated, executable.
    let flags = section_headers(&image) + 2 * 64 + 8;
    image[flags] = 7;
    let (loaded, memory) = load_new(&image).unwrap();
    let mut found = [0; 2];
    let at = GuestAddress(ENTRY + TEXT_BYTES.len() as u64);
    memory.read_slice(&mut found, at).unwrap();
    assert_eq!(found, DATA);
    assert_eq!(loaded.counts.rewritten(), 2);
}

#[test]
fn sections_that_overlap_are_refused() {
    let mut image = synthetic::elf(
        ET_EXEC.0,
        &[code(".text", &[0xf4; 600]), code(".more", &[0xf4; 600])],
    );
    // The second begins where the first does, and both are all of the file.
    let sections = section_headers(&image);
    for section in [1, 2] {
        let at = sections + 64 * section;
        let length = image.len() as u64;
        image[at + 0x18..at + 0x20].fill(0);
        image[at + 0x20..at + 0x28].copy_from_slice(&length.to_le_bytes());
    }
    let text = refused(&image).to_string();
    assert!(text.contains("overlap"), "{text}");
}

#[test]
fn an_image_below_the_place_for_images_is_refused() {
    let mut image = vmlinux();
    image[64 + 0x18..64 + 0x20].copy_from_slice(&(IMAGE_ADDRESS_MIN - 1).to_le_bytes());
    assert!(matches!(refused(&image), ImageError::Segment { .. }));
}

#[test]
fn a_module_is_counted_and_a_kernel_is_not_one() {
    let image = synthetic::elf(ET_REL.0, &[code(".text", &TEXT_BYTES), code(".exit.text", &DATA)]);
    assert_eq!(
        module::count(&image).unwrap().to_string(),
        "2 RDTSC, 1 MOV to CR4"
    );
    assert_eq!(
        module::count(&synthetic::elf(ET_REL.0, &[])),
        Ok(Counts::default())
    );
    assert_eq!(
        module::count(&vmlinux()),
        Err(ImageError::Kind { kind: ET_EXEC.0 })
    );
}
