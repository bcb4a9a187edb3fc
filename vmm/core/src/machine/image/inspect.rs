//! Kind of a file: a guest image, a Linux kernel, a module or an initrd; and what Lockstep would do
//! with it. Nothing of it is run.

use super::error::ImageError;
use super::linux::initrd::Initrd;
use super::linux::module::{self, MODULE_BYTES_MAX};
use super::linux::payload::Format;
use super::linux::sites::Counts;
use super::linux::{KERNEL_BYTES_MAX, Kernel, is_vmlinux};
use super::load::load;
use super::segments;
use super::sites::{Sites, Trapped};
use crate::machine::memory::{self, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, PAGE_BYTES};
use object::elf::{ET_EXEC, ET_REL};
use std::io::Read;
use std::ops::Range;

/// Type of a file, as it was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A guest image of our own kind: a statically linked ELF64 program.
    GuestImage,
    /// A Linux kernel in its container.
    BzImage,
    /// A Linux kernel's ELF file.
    Vmlinux,
    /// A module of a Linux kernel, compressed or not.
    Module,
    /// An initial RAM disk.
    Initrd,
}

/// True if `file` is an ELF file that may run here, as far as its header says.
#[must_use]
pub fn is_executable(file: &[u8]) -> bool {
    segments::header(file, ET_EXEC.0).is_ok()
}

impl Type {
    /// The type of `file`, as its first bytes say; `None` if they say nothing.
    #[must_use]
    pub fn of(file: &[u8]) -> Option<Self> {
        match file {
            [0x7f, b'E', b'L', b'F', ..] if is_relocatable(file) => Some(Self::Module),
            [0x7f, b'E', b'L', b'F', ..] if is_vmlinux(file) => Some(Self::Vmlinux),
            [0x7f, b'E', b'L', b'F', ..] => Some(Self::GuestImage),
            [b'0', b'7', b'0', b'7', ..] => Some(Self::Initrd),
            _ if file.get(0x202..0x206) == Some(b"HdrS") => Some(Self::BzImage),
            _ => Format::of(file).map(|format| Self::of_compressed(file, format)),
        }
    }

    /// Modules are compressed each by itself; anything else that is compressed is an initrd.
    fn of_compressed(mut file: &[u8], format: Format) -> Self {
        let mut first = [0; 4];
        let read = format
            .reader(&mut file)
            .and_then(|mut reader| reader.read_exact(&mut first));
        match read {
            Ok(()) if first == *b"\x7fELF" => Self::Module,
            _ => Self::Initrd,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GuestImage => "guest image",
            Self::BzImage => "Linux bzImage",
            Self::Vmlinux => "Linux vmlinux",
            Self::Module => "Linux module",
            Self::Initrd => "initrd",
        }
    }
}

/// Findings about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// A guest image.
    GuestImage(GuestImage),
    /// A kernel.
    Kernel(Box<KernelImage>),
    /// A module.
    Module(Counts),
    /// An initrd.
    Initrd(Initrd),
}

/// A guest image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestImage {
    /// Address at which it is entered.
    pub entry: u64,
    /// Its rewritten instructions: name and number.
    pub sites: Vec<(&'static str, u64)>,
    /// Bytes that look like such an instruction inside others.
    pub suspicious: u64,
}

/// A Linux kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelImage {
    /// Version text.
    pub version: Option<String>,
    /// Boot protocol; none for a bare vmlinux.
    pub protocol: Option<u16>,
    /// Format of its payload, if it is compressed.
    pub format: Option<Format>,
    /// Bytes of the payload in the file; none for a bare vmlinux.
    pub payload_bytes: Option<u64>,
    /// Bytes of its ELF file.
    pub vmlinux_bytes: u64,
    /// Physical address at which it is entered.
    pub entry: u64,
    /// First physical address behind it.
    pub end: u64,
    /// Virtual addresses of its `.text`.
    pub text: Range<u64>,
    /// Virtual address of the IRETQ that is used.
    pub iretq: Option<u64>,
    /// Instructions in its code, by kind.
    pub counts: Counts,
}

/// Looks into `file`.
///
/// # Errors
/// [`ImageError`]: why it would be refused before more is known. A module or an initrd that is
/// refused for what is in it is an [`Inspection`]: see [`Inspection::check`].
pub fn inspect(file: &[u8]) -> Result<Inspection, ImageError> {
    match Type::of(file) {
        Some(Type::GuestImage) => guest_image(file).map(Inspection::GuestImage),
        Some(Type::Module) => {
            let mut left = MODULE_BYTES_MAX;
            module::count_file(file, &mut left).map(Inspection::Module)
        }
        Some(Type::Initrd) => Initrd::read(file).map(Inspection::Initrd),
        // What is nothing that is known is refused as a kernel is.
        Some(Type::BzImage | Type::Vmlinux) | None => {
            kernel(file).map(|kernel| Inspection::Kernel(Box::new(kernel)))
        }
    }
}

impl Inspection {
    /// Refuses what could not be used.
    ///
    /// # Errors
    /// [`ImageError::Modules`]: a module with sites, or an initrd with some;
    /// [`ImageError::NoInterruptReturn`]: a kernel without a way back.
    pub fn check(&self) -> Result<(), ImageError> {
        match self {
            Self::GuestImage(_) => Ok(()),
            Self::Kernel(kernel) => {
                let back = kernel.iretq.ok_or(ImageError::NoInterruptReturn);
                back.map(|_| ())
            }
            Self::Module(counts) if counts.rewritten() == 0 => Ok(()),
            Self::Module(counts) => Err(ImageError::ModuleSites {
                sites: counts.to_string(),
            }),
            Self::Initrd(initrd) => initrd.check(),
        }
    }
}

fn is_relocatable(file: &[u8]) -> bool {
    file.get(16..18) == Some(&ET_REL.0.to_le_bytes())
}

fn kernel(file: &[u8]) -> Result<KernelImage, ImageError> {
    let mut kernel = Kernel::open(file, KERNEL_BYTES_MAX)?;
    let vmlinux_bytes = kernel.vmlinux.len() as u64;
    let rewritten = kernel.rewrite()?;
    let layout = kernel.layout()?;
    if layout.end > MEMORY_BYTES_MAX {
        return Err(ImageError::TooLarge {
            needs: layout.end,
            limit: MEMORY_BYTES_MAX,
        });
    }
    let container = kernel.container;
    Ok(KernelImage {
        protocol: container.as_ref().map(|container| container.protocol),
        payload_bytes: container.as_ref().map(|container| container.payload.len() as u64),
        version: container.and_then(|container| container.version),
        format: kernel.format,
        vmlinux_bytes,
        entry: layout.entry,
        end: layout.end,
        text: rewritten.text,
        iretq: rewritten.iretq,
        counts: rewritten.counts,
    })
}

/// Loads the image into memory of its own, which grows once if the image says that it needs more.
fn guest_image(file: &[u8]) -> Result<GuestImage, ImageError> {
    let loaded = match load_into(file, MEMORY_BYTES_MIN) {
        Err(ImageError::Segment { end, limit, .. }) if end > limit && end <= MEMORY_BYTES_MAX => {
            load_into(file, end.next_multiple_of(PAGE_BYTES))
        }
        // The first segment that does not fit may not be the one that needs most.
        other => other,
    };
    match loaded {
        Err(ImageError::Segment { end, limit, .. }) if end > limit && end <= MEMORY_BYTES_MAX => {
            load_into(file, MEMORY_BYTES_MAX)
        }
        other => other,
    }
}

fn load_into(file: &[u8], bytes: u64) -> Result<GuestImage, ImageError> {
    let memory = memory::allocate(bytes).map_err(|_| ImageError::TooLarge {
        needs: bytes,
        limit: MEMORY_BYTES_MIN,
    })?;
    let loaded = load(file, &memory)?;
    Ok(GuestImage {
        entry: loaded.entry,
        sites: by_kind(&loaded.sites),
        suspicious: loaded.suspicious.len() as u64,
    })
}

fn by_kind(sites: &Sites) -> Vec<(&'static str, u64)> {
    let name = |trapped| match trapped {
        Trapped::Tsc => "RDTSC",
        Trapped::TscAndProcessor => "RDTSCP",
        Trapped::Random { .. } => "RDRAND or RDSEED",
        Trapped::Cpuid => "CPUID",
    };
    let mut counts = std::collections::BTreeMap::new();
    for site in sites.iter() {
        *counts.entry(name(site.trapped)).or_default() += 1;
    }
    counts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::linux::sites::Kind;
    use super::super::linux::synthetic::{self, FORMATS, Section, archive, compress, payload_of};
    use super::*;
    use object::elf::ET_EXEC;

    /// rdtsc; hlt
    const TSC: [u8; 3] = [0x0f, 0x31, 0xf4];

    fn elf(kind: u16, code: &[u8]) -> Vec<u8> {
        let section = Section {
            name: ".text",
            bytes: code,
            is_code: true,
        };
        synthetic::elf(kind, &[section])
    }

    /// The same at a virtual address that is not a kernel's.
    fn guest(code: &[u8]) -> Vec<u8> {
        let mut image = elf(ET_EXEC.0, code);
        image[64 + 16..64 + 24].copy_from_slice(&synthetic::ENTRY.to_le_bytes());
        let sections = u64::from_le_bytes(image[0x28..0x30].try_into().unwrap()) as usize;
        let address = sections + 64 + 16;
        image[address..address + 8].copy_from_slice(&synthetic::ENTRY.to_le_bytes());
        image
    }

    #[test]
    fn each_type_is_recognised() {
        let cases = [
            (guest(&TSC), Type::GuestImage),
            (synthetic::bzimage(b""), Type::BzImage),
            (elf(ET_EXEC.0, &TSC), Type::Vmlinux),
            (elf(ET_REL.0, &TSC), Type::Module),
            (archive(&[]), Type::Initrd),
        ];
        for (file, kind) in cases {
            assert_eq!(Type::of(&file), Some(kind));
        }
        for format in FORMATS {
            let module = compress(&elf(ET_REL.0, &TSC), format);
            assert_eq!(Type::of(&module), Some(Type::Module));
            assert_eq!(Type::of(&compress(&archive(&[]), format)), Some(Type::Initrd));
        }
        assert_eq!(Type::of(b"text"), None);
        let refused = inspect(b"text").unwrap_err();
        assert!(matches!(refused, ImageError::UnknownImage { .. }));
    }

    #[test]
    fn a_kernel_is_told_with_its_payload_and_sites() {
        let vmlinux = elf(ET_EXEC.0, &TSC);
        let payload = payload_of(&vmlinux, Format::Zstd);
        let Inspection::Kernel(kernel) = inspect(&synthetic::bzimage(&payload)).unwrap() else {
            panic!("it is a kernel");
        };
        assert_eq!(kernel.version.as_deref(), Some(synthetic::VERSION));
        assert_eq!(kernel.format, Some(Format::Zstd));
        assert_eq!(kernel.payload_bytes, Some(payload.len() as u64));
        assert_eq!(kernel.vmlinux_bytes, vmlinux.len() as u64);
        assert_eq!(kernel.counts.of_kind(Kind::Rdtsc), 1);
    }

    #[test]
    fn a_module_with_sites_is_refused_and_one_without_is_not() {
        let bad = inspect(&elf(ET_REL.0, &TSC)).unwrap();
        let refused = bad.check().unwrap_err().to_string();
        assert!(refused.contains("1 RDTSC"), "{refused}");
        assert_eq!(inspect(&elf(ET_REL.0, &[0xf4])).unwrap().check(), Ok(()));
    }

    #[test]
    fn a_guest_image_is_told_with_its_sites_however_much_memory_it_needs() {
        let small = guest(&TSC);
        let mut large = small.clone();
        // It says that it has 4 MiB in memory.
        large[64 + 40..64 + 48].copy_from_slice(&(4_u64 << 20).to_le_bytes());
        let expected = Inspection::GuestImage(GuestImage {
            entry: synthetic::ENTRY,
            sites: vec![("RDTSC", 1)],
            suspicious: 0,
        });
        assert_eq!(inspect(&small).unwrap(), expected);
        assert_eq!(inspect(&large).unwrap(), expected);
        let mut larger = small;
        larger[64 + 40..64 + 48].copy_from_slice(&MEMORY_BYTES_MAX.to_le_bytes());
        assert!(matches!(inspect(&larger), Err(ImageError::Segment { .. })));
    }

    #[test]
    fn a_kernel_without_a_way_back_would_be_refused() {
        let without = elf(ET_EXEC.0, &TSC);
        let refused = inspect(&synthetic::bzimage(&without)).unwrap().check();
        assert_eq!(refused, Err(ImageError::NoInterruptReturn));
        let with = elf(ET_EXEC.0, &[0x48, 0xcf]);
        assert_eq!(inspect(&synthetic::bzimage(&with)).unwrap().check(), Ok(()));
    }
}
