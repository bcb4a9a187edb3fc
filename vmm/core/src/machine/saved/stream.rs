//! A whole saved state as one stream of bytes, as it is in a file.
//!
//! ```text
//!   "LSSV" | version u16 | reserved u16 | machine section | memory sections, pages ascending | end section | nothing
//! ```

use super::format::{End, HEADER_BYTES, Header, Kind, PAGES_MAX, Section, VERSION};
use super::{Loading, SavedError, SavedMachine, pages};
use crate::machine::memory::Memory;
use lockstep_logging_channel::Digest;
use std::io::{self, Read, Write};

const MAGIC: [u8; 4] = *b"LSSV";
const START_BYTES: usize = 8;
/// Name of what is before the first section, in messages.
const START: &str = "first bytes";

/// Writes `machine` with its `memory`.
///
/// # Errors
/// The sink's.
pub fn write(machine: SavedMachine, memory: &Memory, sink: &mut impl Write) -> io::Result<()> {
    let [version_low, version_high] = VERSION.to_le_bytes();
    let [m, a, g, i] = MAGIC;
    sink.write_all(&[m, a, g, i, version_low, version_high, 0, 0])?;
    let mut sections = blake3::Hasher::new();
    let mut put = |section: &Section| {
        let (bytes, digest) = section.encode();
        sections.update(&digest.0);
        sink.write_all(&bytes)
    };
    put(&Section::Machine(Box::new(machine)))?;
    let mut written = 0;
    let mut rest = pages::non_zero(memory);
    loop {
        let batch: Vec<_> = rest.by_ref().take(PAGES_MAX).collect();
        if batch.is_empty() {
            break;
        }
        written += batch.len() as u64;
        put(&Section::Pages(batch))?;
    }
    let end = End {
        pages: written,
        sections: Digest::from_hash(&sections.finalize()),
    };
    sink.write_all(&Section::End(end).encode().0)
}

/// Reads a machine that has `memory_bytes` bytes of memory, and that memory.
///
/// # Errors
/// [`SavedError`]: whatever is not exactly one whole saved state of such a machine.
pub fn read(source: &mut impl Read, memory_bytes: u64) -> Result<(SavedMachine, Memory), SavedError> {
    check_start(source)?;
    let mut sections = blake3::Hasher::new();
    let (first, digest) = next(source, Kind::Machine)?;
    sections.update(&digest.0);
    let Section::Machine(machine) = first else {
        return Err(misplaced(&first));
    };
    if machine.memory_bytes != memory_bytes {
        return Err(SavedError::MemorySize {
            found: machine.memory_bytes,
            expected: memory_bytes,
        });
    }
    let mut memory = Loading::new(memory_bytes)?;
    let mut loaded = 0;
    let mut free_from = 0;
    loop {
        let (section, digest) = next(source, Kind::End)?;
        match section {
            Section::Machine(_) | Section::Log(_) => return Err(misplaced(&section)),
            Section::Pages(pages) => {
                for page in &pages {
                    if page.index < free_from {
                        return Err(SavedError::Page { index: page.index });
                    }
                    memory.put(page)?;
                    free_from = page.index + 1;
                }
                loaded += pages.len() as u64;
                sections.update(&digest.0);
            }
            Section::End(end) => {
                let expected = End {
                    pages: loaded,
                    sections: Digest::from_hash(&sections.finalize()),
                };
                if end != expected {
                    return Err(SavedError::Damaged {
                        section: Kind::End.name(),
                    });
                }
                break;
            }
        }
    }
    if fill(source, &mut [0])? {
        return Err(SavedError::Order {
            section: Kind::End.name(),
        });
    }
    Ok((*machine, memory.finish()))
}

fn misplaced(section: &Section) -> SavedError {
    SavedError::Order {
        section: section.kind().name(),
    }
}

fn check_start(source: &mut impl Read) -> Result<(), SavedError> {
    let mut start = [0; START_BYTES];
    let whole = fill(source, &mut start)?;
    let [m, a, g, i, version_low, version_high, reserved @ ..] = start;
    if !whole {
        return Err(SavedError::Cut { section: START });
    }
    if [m, a, g, i] != MAGIC {
        return Err(SavedError::Foreign);
    }
    let found = u16::from_le_bytes([version_low, version_high]);
    if found != VERSION {
        return Err(SavedError::Version {
            found,
            known: VERSION,
        });
    }
    if reserved != [0, 0] {
        return Err(SavedError::Malformed { section: START });
    }
    Ok(())
}

/// The next section. Where there is none, `awaited` is what was cut off.
fn next(source: &mut impl Read, awaited: Kind) -> Result<(Section, Digest), SavedError> {
    let mut header = [0; HEADER_BYTES];
    if !fill(source, &mut header)? {
        return Err(SavedError::Cut {
            section: awaited.name(),
        });
    }
    let header = Header::decode(header)?;
    let mut body = Vec::new();
    let limit = header.body_bytes as u64;
    // Grows with what is there, not with what was promised.
    source
        .take(limit)
        .read_to_end(&mut body)
        .map_err(SavedError::Read)?;
    if body.len() != header.body_bytes {
        return Err(SavedError::Cut {
            section: header.kind.name(),
        });
    }
    Ok((Section::decode(&header, &body)?, header.digest))
}

/// Fills `bytes`; false where the source ends before.
fn fill(source: &mut impl Read, bytes: &mut [u8]) -> Result<bool, SavedError> {
    match source.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(why) => Err(SavedError::Read(why)),
    }
}
