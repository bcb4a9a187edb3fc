//! Initial RAM disks: which kernel modules are in one, and what is in those.
//!
//! An initrd is one cpio archive or several in a row, each as it is or compressed, with zeros
//! between them: a first one with microcode, uncompressed, and a second one with the rest are
//! usual. It is read as a stream, in the order in which Linux unpacks it. Formats:
//! Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c of Linux.

use super::super::error::{ImageError, first_bytes};
use super::module::{self, MODULE_BYTES_MAX};
use super::payload::Format;
use super::sites::Counts;
use std::io::{self, Read};

/// Everything that an initrd holds, decompressed: guest memory has to hold it.
pub const UNPACKED_BYTES_MAX: u64 = crate::machine::memory::MEMORY_BYTES_MAX;
/// All modules of an initrd or a disk, decompressed: three times what all 4,000 of a distribution
/// have.
pub const MODULES_BYTES_MAX: u64 = 1 << 30;
/// Modules that are named; the others are only counted.
pub const NAMED_MAX: usize = 32;
/// Longest path that Linux unpacks (PATH_MAX).
const PATH_BYTES_MAX: u64 = 4096;
/// Longest path that is shown.
const SHOWN_BYTES_MAX: usize = 256;
/// Archives in a row: more than anybody appends by hand.
const ARCHIVES_MAX: u64 = 1024;
/// Zeros behind an archive inside compressed data: archives are padded to blocks of 512 bytes, and
/// some tools write twenty of those.
const ZEROS_MAX: u64 = 1 << 20;

const HEADER_BYTES: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";
/// File type bits of a mode, and a regular file's.
const TYPE_MASK: u64 = 0o17_0000;
const REGULAR: u64 = 0o10_0000;

/// Content of an initrd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initrd {
    /// Archives in a row.
    pub archives: u64,
    /// Format of the last one that is compressed; earlier ones rarely are.
    pub format: Option<Format>,
    /// Entries: files, directories, links, devices.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Kernel modules.
    pub modules: u64,
    /// Modules that have sites, or that cannot be read.
    pub refused: u64,
    /// The first of those.
    pub named: Vec<Module>,
}

/// A module that would be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its path in the initrd or on the disk.
    pub path: String,
    /// Instructions in its code, or the reason why they are not known.
    pub found: Result<Counts, ImageError>,
}

impl Initrd {
    /// Reads an initrd.
    ///
    /// # Errors
    /// [`ImageError::Initrd`], [`ImageError::Decompress`].
    pub fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut reading = Reading {
            initrd: Self::default(),
            unpacked_left: UNPACKED_BYTES_MAX,
            modules_left: MODULES_BYTES_MAX,
        };
        let mut rest = bytes;
        loop {
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            rest = rest.get(zeros..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(reading.initrd);
            }
            reading.initrd.archives += 1;
            if reading.initrd.archives > ARCHIVES_MAX {
                let why = format!("it has more than {ARCHIVES_MAX} archives in a row");
                return Err(reading.damaged(0, why));
            }
            if rest.starts_with(b"0707") {
                // Linux aligns to the beginning of all of it.
                let at = (bytes.len() - rest.len()) as u64;
                reading.archive(&mut Archive::new(&mut rest, at))?;
                continue;
            }
            let format = Format::of(rest).ok_or_else(|| {
                let first = first_bytes(rest);
                let why = format!("it is neither cpio nor gzip, xz, zstd or LZ4: it begins with {first}");
                reading.damaged(0, why)
            })?;
            reading.initrd.format = Some(format);
            let before = rest.len();
            let reader = format.reader(&mut rest).map_err(|why| format.failed(&why))?;
            let mut archive = Archive::new(reader, 0);
            while archive.skip_zeros().map_err(|why| format.failed(&why))? {
                reading.archive(&mut archive)?;
            }
            drop(archive);
            if rest.len() == before {
                return Err(reading.damaged(0, "it is empty".to_owned()));
            }
        }
    }

    /// Refuses it if it has modules with sites.
    ///
    /// # Errors
    /// [`ImageError::Modules`].
    pub fn check(&self) -> Result<(), ImageError> {
        if self.refused == 0 {
            return Ok(());
        }
        let modules = self.named.iter().map(Module::to_string).collect();
        Err(ImageError::Modules {
            count: self.refused,
            modules,
        })
    }
}

impl Module {
    /// The module with these contents, if it would be refused. `left` is how much may be
    /// decompressed, and becomes less.
    #[must_use]
    pub fn refused(path: &[u8], contents: &[u8], left: &mut u64) -> Option<Self> {
        let found = module::count_file(contents, left);
        if matches!(&found, Ok(counts) if counts.rewritten() == 0) {
            return None;
        }
        let shown = path.get(..SHOWN_BYTES_MAX).unwrap_or(path);
        let path = shown.escape_ascii().to_string();
        Some(Self { path, found })
    }
}

/// "lib/modules/…/kvm.ko (2 RDTSC)".
impl std::fmt::Display for Module {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.found {
            Ok(counts) => write!(formatter, "{} ({counts})", self.path),
            Err(why) => write!(formatter, "{} (cannot be read: {why})", self.path),
        }
    }
}

struct Reading {
    initrd: Initrd,
    /// Bytes that may still be unpacked.
    unpacked_left: u64,
    /// Bytes of modules that may still be decompressed.
    modules_left: u64,
}

impl Reading {
    fn damaged(&self, at: u64, why: String) -> ImageError {
        ImageError::Initrd {
            archive: self.initrd.archives,
            at,
            why,
        }
    }

    /// Reads entries to the trailer.
    fn archive(&mut self, archive: &mut Archive<impl Read>) -> Result<(), ImageError> {
        loop {
            let at = archive.at;
            let entry = archive
                .entry(self.unpacked_left)
                .map_err(|why| self.damaged(at, why.to_string()))?;
            self.unpacked_left -= entry.bytes + HEADER_BYTES as u64;
            if entry.name == TRAILER {
                return Ok(());
            }
            self.initrd.entries += 1;
            self.initrd.bytes += entry.bytes;
            let is_module = entry.is_regular && entry.bytes > 0 && is_module_path(&entry.name);
            if !is_module {
                archive
                    .skip(entry.bytes)
                    .map_err(|why| self.damaged(at, why.to_string()))?;
            } else if entry.bytes > MODULE_BYTES_MAX {
                let why = format!("a module of {} bytes is too large", entry.bytes);
                return Err(self.damaged(at, why));
            } else {
                let contents = archive
                    .take(entry.bytes)
                    .map_err(|why| self.damaged(at, why.to_string()))?;
                self.module(&entry.name, &contents);
            }
            archive.align().map_err(|why| self.damaged(at, why.to_string()))?;
        }
    }

    fn module(&mut self, path: &[u8], contents: &[u8]) {
        self.initrd.modules += 1;
        let Some(module) = Module::refused(path, contents, &mut self.modules_left) else {
            return;
        };
        self.initrd.refused += 1;
        if self.initrd.named.len() < NAMED_MAX {
            self.initrd.named.push(module);
        }
    }
}

/// True if a file with this path is taken for a module.
#[must_use]
pub fn is_module_path(path: &[u8]) -> bool {
    let endings: [&[u8]; 4] = [b".ko", b".ko.xz", b".ko.zst", b".ko.gz"];
    endings.iter().any(|ending| path.ends_with(ending))
}

/// An entry's header.
struct Entry {
    name: Vec<u8>,
    bytes: u64,
    is_regular: bool,
}

/// A cpio archive in the "newc" format, read from its beginning on.
struct Archive<R> {
    reader: R,
    at: u64,
    /// The first byte behind zeros, which was read already.
    ahead: Option<u8>,
}

impl<R: Read> Archive<R> {
    fn new(reader: R, at: u64) -> Self {
        Self {
            reader,
            at,
            ahead: None,
        }
    }

    /// The next entry; its contents follow.
    fn entry(&mut self, bytes_max: u64) -> io::Result<Entry> {
        let header = self.take(HEADER_BYTES as u64)?;
        let magic = header.get(..6).unwrap_or_default();
        if magic != b"070701" && magic != b"070702" {
            return Err(io::Error::other(format!(
                "there is no header of a cpio entry (newc): {}",
                first_bytes(&header)
            )));
        }
        let field = |index: usize| -> io::Result<u64> {
            let digits = header.get(6 + 8 * index..14 + 8 * index);
            let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
            text.and_then(|text| u64::from_str_radix(text, 16).ok())
                .ok_or_else(|| io::Error::other("a field of its header is not a number"))
        };
        let (mode, bytes, name_bytes) = (field(1)?, field(6)?, field(11)?);
        if !(1..=PATH_BYTES_MAX).contains(&name_bytes) {
            return Err(io::Error::other(format!("a name of {name_bytes} bytes")));
        }
        if bytes + HEADER_BYTES as u64 > bytes_max {
            return Err(io::Error::other(format!(
                "it unpacks to more than the {UNPACKED_BYTES_MAX} bytes that a guest can have"
            )));
        }
        let mut name = self.take(name_bytes)?;
        // The name ends with a zero, which is counted.
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        // Zeros may follow the last entry, and need not.
        if name != TRAILER {
            self.align()?;
        }
        Ok(Entry {
            name,
            bytes,
            is_regular: mode & TYPE_MASK == REGULAR,
        })
    }

    fn take(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let ahead = self.ahead.take_if(|_| bytes > 0);
        let mut taken: Vec<u8> = ahead.into_iter().collect();
        let missing = bytes - taken.len() as u64;
        let found = self.reader.by_ref().take(missing).read_to_end(&mut taken)? as u64;
        self.at += found;
        if found < missing {
            return Err(cut_off(missing - found));
        }
        Ok(taken)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let found = io::copy(&mut self.reader.by_ref().take(bytes), &mut io::sink())?;
        self.at += found;
        if found < bytes {
            return Err(cut_off(bytes - found));
        }
        Ok(())
    }

    /// Goes on to the next multiple of four.
    fn align(&mut self) -> io::Result<()> {
        self.skip(self.at.next_multiple_of(4) - self.at)
    }

    /// Goes on to the next byte that is not zero; false if there is none.
    fn skip_zeros(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        for _ in 0..ZEROS_MAX {
            if self.reader.read(&mut byte)? == 0 {
                return Ok(false);
            }
            self.at += 1;
            let [found] = byte;
            if found != 0 {
                self.ahead = Some(found);
                return Ok(true);
            }
        }
        Err(io::Error::other(format!(
            "more than {ZEROS_MAX} zeros follow an archive"
        )))
    }
}

fn cut_off(missing: u64) -> io::Error {
    io::Error::other(format!("it is cut off: {missing} bytes are missing"))
}

#[cfg(test)]
mod tests {
    use super::super::sites::Kind;
    use super::super::synthetic::{FORMATS, Section, archive, compress, elf, trailer};
    use super::*;
    use object::elf::ET_REL;

    /// rdtsc; hlt
    const TSC: [u8; 3] = [0x0f, 0x31, 0xf4];

    fn module_of(code: &[u8]) -> Vec<u8> {
        let section = Section {
            name: ".text",
            bytes: code,
            is_code: true,
        };
        elf(ET_REL.0, &[section])
    }

    fn damaged(bytes: &[u8]) -> String {
        Initrd::read(bytes).unwrap_err().to_string()
    }

    #[test]
    fn an_initrd_is_a_microcode_archive_and_a_compressed_one() {
        let good = module_of(&[0xf4]);
        let first = archive(&[("kernel/x86/microcode/GenuineIntel.bin", &[1; 5])]);
        let second = archive(&[("init", b"#!/bin/sh"), ("lib/modules/good.ko", &good)]);
        for format in FORMATS {
            let bytes = [first.as_slice(), &[0; 300], &compress(&second, format), &[0; 100]].concat();
            let initrd = Initrd::read(&bytes).unwrap();
            let expected = Initrd {
                archives: 2,
                format: Some(format),
                entries: 3,
                bytes: 5 + 9 + good.len() as u64,
                modules: 1,
                ..Initrd::default()
            };
            assert_eq!(initrd, expected);
            assert_eq!(initrd.check(), Ok(()));
        }
    }

    #[test]
    fn modules_with_sites_are_refused_by_path_however_they_are_compressed() {
        let bad = module_of(&TSC);
        let good = module_of(&[0xf4]);
        let (xz, zstd, gzip) = (
            compress(&bad, Format::Xz),
            compress(&bad, Format::Zstd),
            compress(&bad, Format::Gzip),
        );
        let files: [(&str, &[u8]); 6] = [
            ("lib/a.ko", &bad),
            ("lib/good.ko", &good),
            ("lib/b.ko.xz", &xz),
            ("lib/c.ko.zst", &zstd),
            ("lib/d.ko.gz", &gzip),
            ("lib/e.text", &bad),
        ];
        let bytes = archive(&files);
        let initrd = Initrd::read(&bytes).unwrap();
        assert_eq!((initrd.modules, initrd.refused), (5, 4));
        let counts = initrd.named[0].found.as_ref().unwrap();
        assert_eq!(counts.of_kind(Kind::Rdtsc), 1);
        let refused = initrd.check().unwrap_err().to_string();
        for part in ["4 kernel modules", "lib/a.ko (1 RDTSC), lib/b.ko.xz (1 RDTSC)"] {
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn a_module_that_cannot_be_read_is_refused_and_a_folder_of_its_name_is_not() {
        let initrd = Initrd::read(&archive(&[("a.ko", b"text")])).unwrap();
        let refused = initrd.check().unwrap_err().to_string();
        assert!(refused.contains("a.ko (cannot be read: "), "{refused}");
        let initrd = Initrd::read(&archive(&[("empty.ko", b"")])).unwrap();
        assert_eq!(initrd.check(), Ok(()));
    }

    #[test]
    fn more_modules_than_are_named_are_counted() {
        let bad = module_of(&TSC);
        let names: Vec<String> = (0..NAMED_MAX + 3).map(|at| format!("{at}.ko")).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &*bad)).collect();
        let refused = Initrd::read(&archive(&files))
            .unwrap()
            .check()
            .unwrap_err()
            .to_string();
        assert!(refused.contains("35 kernel modules"), "{refused}");
        assert!(refused.ends_with(", and 3 more"), "{refused}");
    }

    #[test]
    fn several_archives_may_be_in_one_compressed_stream() {
        let both = [archive(&[("a", b"1")]), vec![0; 512], archive(&[("b", b"2")])].concat();
        let initrd = Initrd::read(&compress(&both, Format::Gzip)).unwrap();
        assert_eq!((initrd.archives, initrd.entries), (1, 2));
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let whole = archive(&[("init", b"text")]);
        let cut = damaged(&whole[..whole.len() - 8]);
        assert!(cut.contains("archive 1") && cut.contains("cut off"), "{cut}");
        let unknown = damaged(b"\x01\x02\x03");
        assert!(unknown.contains("neither cpio nor gzip"), "{unknown}");
        let mut other = whole.clone();
        other[5] = b'7';
        assert!(damaged(&other).contains("no header of a cpio entry"));
        let mut field = whole.clone();
        field[94] = b'x';
        assert!(damaged(&field).contains("not a number"));
        let mut name = whole;
        name[94..102].copy_from_slice(b"00002000");
        assert!(damaged(&name).contains("a name of 8192 bytes"));
    }

    #[test]
    fn what_unpacks_to_more_than_a_guest_can_have_is_refused() {
        let mut large = archive(&[("large", b"")]);
        large[54..62].copy_from_slice(b"ffffffff");
        assert!(damaged(&large).contains("more than the 3221225472 bytes"));
        let zeros = [trailer(), vec![0; ZEROS_MAX as usize]].concat();
        let refused = damaged(&compress(&zeros, Format::Gzip));
        assert!(refused.contains("zeros follow"), "{refused}");
        let many = vec![trailer(); ARCHIVES_MAX as usize + 1].concat();
        assert!(damaged(&many).contains("archives in a row"));
    }
}
