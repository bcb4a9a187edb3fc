//! The image loader and rewriter. Whatever the file: no panic; what is loaded is entered in an executable segment, leaves the
//! memory below images alone, and differs from the file only where an instruction was rewritten; each such site is in an
//! executable segment and exits; rewriting once more changes nothing.
//!
//! The first byte chooses: even, the rest is the file; odd, the rest builds one ([`elf`]).

mod elf;

use lockstep::machine::image::load::IMAGE_ADDRESS_MIN;
use lockstep::machine::image::sites::{Sites, TRAP_PORT};
use lockstep::machine::image::{LoadedImage, load, rewrite};
use lockstep::machine::memory::{self, MEMORY_BYTES_MIN, Memory};
use vm_memory::{Bytes, GuestAddress};

use super::input::Input;

/// Bytes of the longest x86 instruction.
const INSTRUCTION_BYTES_MAX: u64 = 15;

/// `IN EAX, imm8`.
const TRAP: [u8; 2] = [0xe5, TRAP_PORT];

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
    for segment in &segments {
        check_contents(memory, segment, loaded);
    }
}

/// A segment holds what the file has for it, but for its sites; and those stay as they are.
fn check_contents(memory: &Memory, segment: &elf::Loadable, loaded: &LoadedImage) {
    let found = read(memory, segment.address, segment.file_bytes.len() as u64);
    let sites: Vec<u64> = loaded.sites.iter().map(|site| site.address).collect();
    let is_rewritten = |address: u64| {
        let before = sites.partition_point(|site| *site <= address);
        before > 0 && address - sites[before - 1] < INSTRUCTION_BYTES_MAX
    };
    let pairs = found.iter().zip(segment.file_bytes).zip(segment.address..);
    for ((found, in_file), address) in pairs {
        assert!(
            found == in_file || segment.executable && is_rewritten(address),
            "{address:#x} was changed"
        );
    }
    if segment.executable {
        let (mut again, mut more) = (found.clone(), Sites::default());
        let suspicious =
            rewrite::rewrite(&mut again, segment.address, &mut more).expect("nothing to rewrite");
        assert_eq!(
            (again, more),
            (found, Sites::default()),
            "rewriting twice changes more"
        );
        assert!(
            suspicious
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
