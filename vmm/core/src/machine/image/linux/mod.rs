//! Linux: kernels as distributions ship them, their modules, and initial RAM disks.
//!
//! A kernel is a bzImage, whose payload is decompressed here, or the ELF file that such a payload
//! is (vmlinux). Its segments are loaded at their physical addresses, and the instructions in its
//! sections of code that would not exit are rewritten before ([`sites`]).

pub mod bzimage;
mod elf;
pub mod initrd;
pub mod module;
pub mod payload;
pub mod sites;
#[cfg(test)]
pub mod synthetic;

use super::error::{ImageError, first_bytes};
use super::segments::{self, Executable};
use crate::machine::memory::{self, Memory};
use bzimage::BzImage;
use elf::CodeSection;
use iced_x86::{Code, Instruction};
use initrd::Initrd;
use object::Endianness;
use object::elf::{ET_EXEC, PT_LOAD, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use payload::Format;
use sites::Counts;
use std::borrow::Cow;
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress};

/// The most that a kernel's payload is decompressed to: ten times what a distribution's needs.
pub const KERNEL_BYTES_MAX: u64 = 512 << 20;
/// Section that holds most of a kernel's code, its entry text last.
const TEXT: &str = ".text";
/// Section with a kernel's data, and with its code for kexec, which makes all of it code by its
/// flags (`.data..relocate_kernel` in arch/x86/kernel/vmlinux.lds.S, Linux 6.14 and later). A kernel
/// that another starts is refused, so it is left as it is.
const DATA: &str = ".data";
/// The entry text begins at a multiple of this, where the kernel isolates its page tables, and is
/// smaller (`ALIGN_ENTRY_TEXT_BEGIN` in arch/x86/kernel/vmlinux.lds.S).
const ENTRY_TEXT_ALIGNMENT: u64 = 2 << 20;
/// `testb $4, 0x20(%rsp)` and the opcode of a short jump: what is before the IRETQ with which the
/// kernel returns from interrupts (`native_iret` in arch/x86/entry/entry_64.S), but for the jump's
/// distance.
const BEFORE_IRETQ: [u8; 6] = [0xf6, 0x44, 0x24, 0x20, 0x04, 0x75];

/// A kernel as it is in guest memory.
#[derive(Debug, Default)]
pub struct LoadedKernel {
    /// Physical address of its 64-bit entry.
    pub entry: u64,
    /// Setup header, from byte 0x1f1 of a zero page on.
    pub setup_header: Vec<u8>,
    /// First physical address behind everything that it uses before it knows what memory there is.
    pub end: u64,
    /// Virtual address of an IRETQ in the entry text: one at which the kernel's user page tables
    /// have code.
    pub iretq: Option<u64>,
    /// Virtual addresses of `.text`.
    pub text: Range<u64>,
    /// Instructions that were rewritten, and that tell of the host, by kind and section.
    pub counts: Counts,
}

/// A kernel as its file has it, decompressed.
#[derive(Debug)]
pub struct Kernel<'image> {
    /// Its container; `None` for a bare vmlinux.
    pub container: Option<BzImage<'image>>,
    /// Format of its payload, if it is compressed.
    pub format: Option<Format>,
    /// Its ELF file.
    pub vmlinux: Cow<'image, [u8]>,
}

/// A kernel that is decompressed and rewritten once, and loaded as often as its guest begins.
#[derive(Debug)]
pub struct PreparedKernel {
    /// Description of it.
    pub kernel: LoadedKernel,
    vmlinux: Vec<u8>,
    segments: Vec<Placed>,
}

impl PreparedKernel {
    /// Decompresses `kernel` to what `memory_bytes` of guest memory hold, and rewrites it.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn new(kernel: &[u8], memory_bytes: u64) -> Result<Self, ImageError> {
        let mut opened = Kernel::open(kernel, memory_bytes.min(KERNEL_BYTES_MAX))?;
        let rewritten = opened.rewrite()?;
        let layout = opened.layout()?;
        Ok(Self {
            kernel: LoadedKernel {
                entry: layout.entry,
                setup_header: opened.setup_header(),
                end: layout.end,
                iretq: rewritten.iretq,
                text: rewritten.text,
                counts: rewritten.counts,
            },
            segments: layout.segments,
            vmlinux: opened.vmlinux.into_owned(),
        })
    }

    /// Puts it into guest memory.
    ///
    /// # Errors
    /// [`ImageError::TooLarge`]; guest memory is as it was, unless it ends before the kernel.
    pub fn load(&self, memory: &Memory) -> Result<&LoadedKernel, ImageError> {
        let (needs, limit) = (self.kernel.end, memory::size_bytes(memory));
        let too_large = || ImageError::TooLarge { needs, limit };
        if needs > limit {
            return Err(too_large());
        }
        for Placed { address, file } in &self.segments {
            let bytes = self.vmlinux.get(file.clone()).unwrap_or_default();
            memory
                .write_slice(bytes, GuestAddress(*address))
                .map_err(|_| too_large())?;
        }
        Ok(&self.kernel)
    }
}

/// Places of a kernel in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Physical address of its 64-bit entry.
    pub entry: u64,
    /// First physical address behind it.
    pub end: u64,
    segments: Vec<Placed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    address: u64,
    file: Range<usize>,
}

/// Result of rewriting a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Instructions in its code, by kind.
    pub counts: Counts,
    /// [`LoadedKernel::iretq`].
    pub iretq: Option<u64>,
    /// [`LoadedKernel::text`].
    pub text: Range<u64>,
}

impl<'image> Kernel<'image> {
    /// Opens `image`, and decompresses no more than `limit` bytes.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn open(image: &'image [u8], limit: u64) -> Result<Self, ImageError> {
        let Some(container) = bzimage::parse(image)? else {
            if !image.starts_with(b"\x7fELF") {
                return Err(unknown(image));
            }
            return Ok(Self {
                container: None,
                format: None,
                vmlinux: Cow::Borrowed(image),
            });
        };
        let format = payload::format(container.payload)?;
        let vmlinux = match format {
            Some(format) => Cow::Owned(payload::decompress(container.payload, format, limit)?),
            None => Cow::Borrowed(container.payload),
        };
        Ok(Self {
            container: Some(container),
            format,
            vmlinux,
        })
    }

    /// Rewrites its sites in all sections of code.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn rewrite(&mut self) -> Result<Rewritten, ImageError> {
        let sections = self.code_sections()?;
        let text = sections.iter().find(|section| section.name == TEXT);
        let text = text.ok_or(ImageError::NoSections)?.addresses();
        let mut returns = Returns::default();
        let mut counts = Counts::default();
        let vmlinux = self.vmlinux.to_mut();
        for section in &sections {
            let is_text = section.name == TEXT;
            if let Some(code) = vmlinux.get_mut(section.file.clone()) {
                let see = |instruction: &Instruction, code: &[u8]| {
                    if is_text && instruction.code() == Code::Iretq {
                        returns.see(instruction.ip(), code, &text);
                    }
                };
                sites::rewrite(code, section.address, &section.name, &mut counts, see)?;
            }
        }
        Ok(Rewritten {
            counts,
            iretq: returns.best(),
            text,
        })
    }

    fn code_sections(&self) -> Result<Vec<CodeSection>, ImageError> {
        let mut sections = elf::code_sections(&self.vmlinux, ET_EXEC.0)?;
        sections.retain(|section| !(section.writable && section.name == DATA));
        Ok(sections)
    }

    /// Addresses at which it is loaded and entered: in a section of code, in whatever segment.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn layout(&self) -> Result<Layout, ImageError> {
        let executable = Executable::read_with_any_entry(&self.vmlinux, u64::MAX)?;
        let entry = executable.entry;
        let in_file = executable
            .segments
            .iter()
            .find_map(|segment| segment.file_byte(entry));
        let is_code = |byte: u64| {
            let sections = self.code_sections()?;
            Ok(sections
                .iter()
                .any(|section| section.file.contains(&(byte as usize))))
        };
        if !in_file.map_or(Ok(false), is_code)? {
            return Err(ImageError::Entry { entry });
        }
        let initial = self.container.as_ref().map(|container| container.initial.end);
        let ends = executable.segments.iter().map(|segment| segment.range.end);
        let placed = executable.segments.iter().map(|segment| Placed {
            address: segment.range.start,
            file: segment.file_offset as usize..(segment.file_offset + segment.file_bytes) as usize,
        });
        Ok(Layout {
            entry,
            end: ends.chain(initial).max().unwrap_or_default(),
            segments: placed.filter(|placed| !placed.file.is_empty()).collect(),
        })
    }

    /// Its setup header, or one made for a kernel that has none.
    #[must_use]
    pub fn setup_header(&self) -> Vec<u8> {
        match &self.container {
            Some(container) => container.setup_header.to_vec(),
            None => bzimage::synthetic_setup_header(),
        }
    }
}

/// Reads an initrd, and refuses one that has modules with sites: those would run as they are.
///
/// # Errors
/// [`ImageError::Modules`] names them; [`ImageError::Initrd`] and [`ImageError::Decompress`] where
/// it is damaged.
pub fn check_initrd(bytes: &[u8]) -> Result<Initrd, ImageError> {
    let initrd = Initrd::read(bytes)?;
    initrd.check()?;
    Ok(initrd)
}

/// True if `image`, an ELF file, is linked to run where kernels do: in the upper half of the
/// addresses. Guest images run where they are loaded.
#[must_use]
pub fn is_vmlinux(image: &[u8]) -> bool {
    let is_upper = |header: &ProgramHeader64<Endianness>, endian| {
        header.p_type(endian) == PT_LOAD && header.p_vaddr(endian) >> 63 == 1
    };
    segments::header(image, ET_EXEC.0).is_ok_and(|(header, endian)| {
        header
            .program_headers(endian, image)
            .is_ok_and(|headers| headers.iter().any(|header| is_upper(header, endian)))
    })
}

fn unknown(image: &[u8]) -> ImageError {
    /// Place and bytes of the magic numbers of kernels that are not x86's, in the header that Linux
    /// gives them (Documentation/arch/arm64/booting.rst,
    /// Documentation/arch/riscv/boot-image-header.rst).
    const OTHERS: [(usize, &[u8], &str); 2] = [(0x38, b"ARM\x64", "arm64"), (0x38, b"RSC\x05", "RISC-V")];
    let is_there = |(at, magic, _): &&(usize, &[u8], &str)| {
        image.get(*at..).is_some_and(|bytes| bytes.starts_with(magic))
    };
    match OTHERS.iter().find(is_there) {
        Some((.., architecture)) => ImageError::Architecture { architecture },
        None => ImageError::UnknownImage {
            first: first_bytes(image),
        },
    }
}

/// The IRETQs of `.text`, as far as one of them is needed.
#[derive(Debug, Default)]
struct Returns {
    from_interrupt: Option<u64>,
    in_last_part: Option<u64>,
}

impl Returns {
    fn see(&mut self, address: u64, code: &[u8], text: &Range<u64>) {
        let at = (address - text.start) as usize;
        let before = code.get(at.saturating_sub(BEFORE_IRETQ.len() + 1)..at);
        if before.is_some_and(|before| before.starts_with(&BEFORE_IRETQ)) {
            self.from_interrupt.get_or_insert(address);
        }
        let part = |address: u64| address / ENTRY_TEXT_ALIGNMENT;
        if self.in_last_part.is_none_or(|first| part(first) != part(address)) {
            self.in_last_part = Some(address);
        }
    }

    /// The kernel's own way back from an interrupt; else the first in the last part that has any:
    /// the entry text is behind all other code that returns.
    fn best(&self) -> Option<u64> {
        self.from_interrupt.or(self.in_last_part)
    }
}

#[cfg(test)]
mod tests;
