//! Linux kernels, their modules, and initial RAM disks. Whatever the file: no panic, and an error
//! has a text. A kernel that is loaded is in guest memory, above what is below images, and entered
//! there; rewriting it once more finds nothing. What is said of a file is said twice the same.
//!
//! The first byte chooses what the rest is: 0 a file, 1 the payload of a bzImage, 2 a kernel's ELF
//! file (compressed with LZ4 and put into a bzImage here), 3 a module in an initrd.

use super::input::Input;
use lockstep_core::machine::image::inspect::inspect;
use lockstep_core::machine::image::linux::{Kernel, LoadedKernel, PreparedKernel, check_initrd};
use lockstep_core::machine::image::{IMAGE_ADDRESS_MIN, ImageError};
use lockstep_core::machine::memory::{self, MEMORY_BYTES_MIN, Memory};
use vm_memory::{Bytes, GuestAddress};

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 4 {
        0 => check(input.rest()),
        1 => check(&bzimage(input.rest())),
        2 => check(&bzimage(&lz4_payload(input.rest()))),
        _ => check(&initrd(input.rest())),
    }
}

fn check(file: &[u8]) {
    let inspection = inspect(file);
    assert_eq!(inspection, inspect(file));
    if let Err(why) = inspection.and_then(|inspection| inspection.check()) {
        refused(&why);
    }
    if let Err(why) = check_initrd(file) {
        refused(&why);
    }
    let memory = memory::allocate(MEMORY_BYTES_MIN).expect("memory for a kernel");
    let loaded = match load(file, &memory) {
        Ok(loaded) => loaded,
        Err(why) => return refused(&why),
    };
    assert!((IMAGE_ADDRESS_MIN..loaded.end).contains(&loaded.entry));
    assert!(loaded.end <= MEMORY_BYTES_MIN);
    assert!(loaded.iretq.is_none_or(|address| loaded.text.contains(&address)));
    let mut below = vec![0; IMAGE_ADDRESS_MIN as usize];
    memory.read_slice(&mut below, GuestAddress(0)).expect("memory");
    assert!(below.iter().all(|byte| *byte == 0), "below images");

    let mut kernel = Kernel::open(file, MEMORY_BYTES_MIN).expect("it was opened before");
    let once = kernel.rewrite().expect("it was rewritten before");
    assert_eq!(once.counts, loaded.counts);
    let twice = kernel.rewrite().expect("what was rewritten is as good");
    assert_eq!(twice.counts.rewritten(), 0, "rewriting twice changes more");
}

fn load(file: &[u8], memory: &Memory) -> Result<LoadedKernel, ImageError> {
    let prepared = PreparedKernel::new(file, memory::size_bytes(memory))?;
    prepared.load(memory)?;
    Ok(prepared.kernel)
}

fn refused(why: &ImageError) {
    assert!(!why.to_string().is_empty());
}

fn lz4_payload(elf: &[u8]) -> Vec<u8> {
    let block = lz4_flex::block::compress(elf);
    let length = (block.len() as u32).to_le_bytes();
    let size = (elf.len() as u32).to_le_bytes();
    [&[0x02, 0x21, 0x4c, 0x18], length.as_slice(), &block, &size].concat()
}

/// A bzImage of one setup sector, as protocol 2.15 has it.
#[must_use]
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    let mut set = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    set(0x1f1, &[1]);
    set(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    set(0x202, b"HdrS");
    set(0x206, &[0x0f, 0x02]);
    set(0x236, &[1]);
    set(0x24c, &(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    image
}

/// An initrd with one module.
#[must_use]
pub fn initrd(module: &[u8]) -> Vec<u8> {
    let mut archive = entry("lib/modules/a.ko", module);
    archive.extend(entry("TRAILER!!!", b""));
    archive
}

fn entry(name: &str, contents: &[u8]) -> Vec<u8> {
    const REGULAR: usize = 0o10_0644;
    let name_bytes = name.len() + 1;
    let fields = [1, REGULAR, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name_bytes, 0];
    let mut entry = b"070701".to_vec();
    entry.extend(
        fields
            .iter()
            .flat_map(|field| format!("{field:08x}").into_bytes()),
    );
    entry.extend(name.as_bytes());
    entry.push(0);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry.extend(contents);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry
}

#[cfg(test)]
mod tests {
    use super::super::corpus::seeds;
    use super::*;

    /// The seed's file.
    fn seed(name: &str) -> Vec<u8> {
        let found = seeds("kernel").into_iter().find(|seed| seed.name == name);
        found.expect("a seed of this name").bytes[1..].to_vec()
    }

    #[test]
    fn the_seeds_of_kernels_are_loaded_and_that_of_a_module_is_refused_for_its_sites() {
        let memory = || memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let elf = seed("elf.hex");
        let loaded = load(&bzimage(&lz4_payload(&elf)), &memory()).unwrap();
        assert_eq!(loaded.counts.rewritten(), 5);
        for name in ["gzip.hex", "xz.hex", "zstd.hex"] {
            assert!(load(&bzimage(&seed(name)), &memory()).is_ok(), "{name}");
        }
        let refused = check_initrd(&initrd(&seed("module.hex"))).unwrap_err();
        assert!(refused.to_string().contains("1 RDTSC"), "{refused}");
    }
}
