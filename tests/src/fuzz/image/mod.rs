//! The image loader and rewriter. Whatever the file: no panic; what is loaded is entered in an
//! executable segment, leaves the memory below images alone, and differs from the file only where
//! an instruction was rewritten; each such site is in an executable segment and exits; rewriting
//! once more changes nothing; what section headers or symbols say is data stays as it is.
//!
//! The first byte chooses: even, the rest is the file; odd, the rest builds one ([`elf`]).

mod elf;
mod sections;
mod segment;

use lockstep_core::machine::image::IMAGE_ADDRESS_MIN;
use lockstep_core::machine::image::sites::{Site, Sites, TRAP_PORT};
use lockstep_core::machine::image::{LoadedImage, load, rewrite};
use lockstep_core::machine::memory::{self, MEMORY_BYTES_MIN, Memory};
use vm_memory::{Bytes, GuestAddress};

use super::input::Input;
use sections::Said;

/// Bytes of the longest x86 instruction.
const INSTRUCTION_BYTES_MAX: usize = 15;

/// `IN EAX, imm8`.
const TRAP: [u8; 2] = [0xe5, TRAP_PORT];

/// What stands for an instruction that the guest was promised not to have.
const UD2: [u8; 2] = [0x0f, 0x0b];

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte() & 1 == 0 {
        check(input.rest());
    } else {
        check(&elf::build(&mut input));
    }
}

fn check(file: &[u8]) {
    let memory = memory::allocate(MEMORY_BYTES_MIN).expect("memory for an image");
    match load(file, &memory) {
        Ok(loaded) => check_loaded(file, &memory, &loaded),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_loaded(file: &[u8], memory: &Memory, loaded: &LoadedImage) {
    let segments = elf::loadable(file);
    let code: Vec<_> = segments.iter().filter(|segment| segment.executable).collect();
    assert!(code.iter().any(|segment| segment.range().contains(&loaded.entry)));
    assert_eq!(
        read(memory, 0, IMAGE_ADDRESS_MIN),
        vec![0; IMAGE_ADDRESS_MIN as usize],
        "below images"
    );
    for site in loaded.sites.iter() {
        let within = |segment: &&elf::Loadable| {
            let file_part = segment.address..segment.address + segment.file_bytes.len() as u64;
            file_part.contains(&site.address) && file_part.contains(&(site.address + 1))
        };
        assert!(code.iter().any(within), "site {:#x}", site.address);
        assert_eq!(read(memory, site.address, 2), TRAP);
    }
    let said = Said::of(file);
    for segment in &segments {
        check_contents(memory, segment, loaded, &said);
    }
}

/// A segment holds what the file has for it, but for what was rewritten; and that stays as it is.
fn check_contents(memory: &Memory, segment: &elf::Loadable<'_>, loaded: &LoadedImage, said: &Said) {
    let found = read(memory, segment.address, segment.file_bytes.len() as u64);
    let first = |site: &Site| site.address.checked_sub(segment.address).map(|at| at as usize);
    let mut rewritten: Vec<usize> = loaded.sites.iter().filter_map(first).collect();
    let pairs = found.windows(2).zip(segment.file_bytes.windows(2)).enumerate();
    let faults = pairs.filter(|(_, (found, in_file))| *found == UD2 && *in_file != UD2);
    rewritten.extend(faults.map(|(at, _)| at));
    let is_rewritten = |at: usize| {
        rewritten
            .iter()
            .any(|start| (*start..start + INSTRUCTION_BYTES_MAX).contains(&at))
    };
    let changed = found
        .iter()
        .zip(segment.file_bytes)
        .enumerate()
        .filter(|(_, (found, in_file))| found != in_file);
    for (at, _) in changed {
        let address = segment.address + at as u64;
        assert!(segment.executable && is_rewritten(at), "{address:#x} was changed");
        assert!(!said.is_data(address), "{address:#x} is data, and was changed");
    }
    for stretch in loaded.code.iter().filter(|_| segment.executable) {
        let Some(first) = stretch.start.checked_sub(segment.address) else {
            continue;
        };
        let Some(code) = found.get(first as usize..first as usize + (stretch.end - stretch.start) as usize)
        else {
            continue;
        };
        let (mut again, mut more) = (code.to_vec(), Sites::default());
        let done = rewrite::rewrite(&mut again, stretch.start, &mut more).expect("nothing to rewrite");
        assert_eq!(
            (again.as_slice(), more, done.changed),
            (code, Sites::default(), Vec::new()),
            "rewriting twice changes more"
        );
        assert!(
            done.leftovers
                .iter()
                .all(|address| loaded.suspicious.contains(address))
        );
    }
}

fn read(memory: &Memory, address: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .expect("loaded memory");
    bytes
}
