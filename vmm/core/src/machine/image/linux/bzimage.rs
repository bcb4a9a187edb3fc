//! The file that distributions ship as `vmlinuz`: a setup header, a decompressor, and a payload.
//!
//! The decompressor is not run: the payload is taken out and decompressed here. Format:
//! Documentation/arch/x86/boot.rst of Linux, protocol 2.12.

use super::super::error::ImageError;
use std::ops::Range;

/// First byte of the setup header.
pub const SETUP_HEADER_AT: usize = 0x1f1;
/// End of the setup header's place in the zero page: what follows there has another meaning.
const SETUP_HEADER_END_MAX: usize = 0x290;
/// End of the setup header of protocol 2.12.
const SETUP_HEADER_END_MIN: usize = 0x268;
/// Oldest protocol whose header says whether there is a 64-bit entry.
pub const PROTOCOL_MIN: u16 = 0x020c;
const SECTOR_BYTES: usize = 512;
/// Sectors of setup code that a header without a number means.
const SETUP_SECTORS_DEFAULT: usize = 4;
/// Longest version text: a kernel's own is some 100 bytes.
const VERSION_BYTES_MAX: usize = 256;

const SETUP_SECTORS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const JUMP_LENGTH: usize = 0x201;
const MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const VERSION_POINTER: usize = 0x20e;
const LOAD_FLAGS: usize = 0x211;
const INITRD_ADDRESS_MAX: usize = 0x22c;
const KERNEL_ALIGNMENT: usize = 0x230;
const EXTENDED_LOAD_FLAGS: usize = 0x236;
const COMMAND_LINE_SIZE: usize = 0x238;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const PREFERRED_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;

const BOOT_FLAG_VALUE: u16 = 0xaa55;
const HEADER_MAGIC: [u8; 4] = *b"HdrS";
/// XLF_KERNEL_64: there is a 64-bit entry.
const KERNEL_64: u16 = 1;

/// A bzImage whose header was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BzImage<'image> {
    /// Boot protocol: major version in the upper byte.
    pub protocol: u16,
    /// Version text, if there is one.
    pub version: Option<String>,
    /// Setup header: from [`SETUP_HEADER_AT`] to its end.
    pub setup_header: &'image [u8],
    /// Payload as it is in the file.
    pub payload: &'image [u8],
    /// Memory that the kernel uses before it knows what memory there is.
    pub initial: Range<u64>,
}

/// Reads `image`; `None` if it is not a bzImage at all.
///
/// # Errors
/// [`ImageError`]: it is one, and it cannot be used.
pub fn parse(image: &[u8]) -> Result<Option<BzImage<'_>>, ImageError> {
    if image.get(MAGIC..MAGIC + HEADER_MAGIC.len()) != Some(&HEADER_MAGIC) {
        return Ok(None);
    }
    let field = |at, bytes| field(image, at, bytes);
    let wrong = |why| ImageError::SetupHeader { why };
    if field(BOOT_FLAG, 2)? != u64::from(BOOT_FLAG_VALUE) {
        return Err(wrong("it has no boot flag"));
    }
    let protocol = field(PROTOCOL, 2)? as u16;
    if protocol < PROTOCOL_MIN {
        return Err(ImageError::Protocol { version: protocol });
    }
    if field(EXTENDED_LOAD_FLAGS, 2)? as u16 & KERNEL_64 == 0 {
        return Err(ImageError::Kernel32);
    }
    let header_end = MAGIC + field(JUMP_LENGTH, 1)? as usize;
    if !(SETUP_HEADER_END_MIN..=SETUP_HEADER_END_MAX).contains(&header_end) {
        return Err(wrong("its length is not one of protocol 2.12 or later"));
    }
    let setup_header = part(
        image,
        SETUP_HEADER_AT as u64,
        header_end as u64,
        "the setup header",
    )?;
    let sectors = match field(SETUP_SECTORS, 1)? as usize {
        0 => SETUP_SECTORS_DEFAULT,
        sectors => sectors,
    };
    let payload_at = ((sectors + 1) * SECTOR_BYTES) as u64 + field(PAYLOAD_OFFSET, 4)?;
    let payload_end = payload_at + field(PAYLOAD_LENGTH, 4)?;
    let payload = part(image, payload_at, payload_end, "the payload")?;
    let start = field(PREFERRED_ADDRESS, 8)?;
    Ok(Some(BzImage {
        protocol,
        version: version(image),
        setup_header,
        payload,
        initial: start..start.saturating_add(field(INIT_SIZE, 4)?),
    }))
}

/// A setup header for a kernel that has none of its own: a bare vmlinux.
#[must_use]
pub fn synthetic_setup_header() -> Vec<u8> {
    /// LOADED_HIGH.
    const LOADED_HIGH: u8 = 1;
    const ALIGNMENT: u32 = 2 << 20;
    const LONGEST_COMMAND_LINE: u32 = 2047;
    let mut page = [0; SETUP_HEADER_END_MIN];
    let mut set = |at: usize, bytes: &[u8]| {
        page.iter_mut()
            .skip(at)
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
    };
    set(BOOT_FLAG, &BOOT_FLAG_VALUE.to_le_bytes());
    set(JUMP_LENGTH, &[(SETUP_HEADER_END_MIN - MAGIC) as u8]);
    set(MAGIC, &HEADER_MAGIC);
    set(PROTOCOL, &PROTOCOL_MIN.to_le_bytes());
    set(LOAD_FLAGS, &[LOADED_HIGH]);
    set(INITRD_ADDRESS_MAX, &0x7fff_ffff_u32.to_le_bytes());
    set(KERNEL_ALIGNMENT, &ALIGNMENT.to_le_bytes());
    set(EXTENDED_LOAD_FLAGS, &KERNEL_64.to_le_bytes());
    set(COMMAND_LINE_SIZE, &LONGEST_COMMAND_LINE.to_le_bytes());
    page.get(SETUP_HEADER_AT..).unwrap_or_default().to_vec()
}

fn field(image: &[u8], at: usize, bytes: usize) -> Result<u64, ImageError> {
    let found = part(image, at as u64, (at + bytes) as u64, "the setup header")?;
    Ok(found
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn part<'image>(
    image: &'image [u8],
    from: u64,
    to: u64,
    what: &'static str,
) -> Result<&'image [u8], ImageError> {
    image
        .get(from as usize..to as usize)
        .ok_or(ImageError::Truncated {
            what,
            needs: to,
            has: image.len() as u64,
        })
}

fn version(image: &[u8]) -> Option<String> {
    let pointer = field(image, VERSION_POINTER, 2).ok().filter(|at| *at > 0)?;
    let text = image.get(pointer as usize + SECTOR_BYTES..)?;
    let text = text.iter().take(VERSION_BYTES_MAX).take_while(|byte| **byte != 0);
    let printable = |byte: &u8| matches!(byte, b' '..=b'~').then_some(char::from(*byte));
    text.map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;

    fn with(at: usize, bytes: &[u8]) -> ImageError {
        let mut image = synthetic::bzimage(b"payload");
        image[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&image).unwrap_err()
    }

    #[test]
    fn a_header_is_read() {
        let image = synthetic::bzimage(b"payload");

        let read = parse(&image).unwrap().unwrap();

        assert_eq!(read.payload, b"payload");
        assert_eq!(read.version.as_deref(), Some(synthetic::VERSION));
        assert_eq!(read.protocol, 0x020f);
        assert_eq!(read.initial, synthetic::INITIAL);
        assert_eq!(read.setup_header[0x11..0x15], *b"HdrS");
        assert_eq!(read.setup_header.len(), 0x26c - 0x1f1);
    }

    #[test]
    fn what_is_no_bzimage_is_not_one() {
        assert_eq!(parse(b"\x7fELF"), Ok(None));
        assert_eq!(parse(&[0; 0x300]), Ok(None));
    }

    #[test]
    fn a_header_that_cannot_be_used_is_refused_by_name() {
        let protocol = with(PROTOCOL, &0x020b_u16.to_le_bytes());
        assert!(protocol.to_string().contains("is 2.11"), "{protocol}");
        assert_eq!(with(EXTENDED_LOAD_FLAGS, &[0, 0]), ImageError::Kernel32);
        let flag = with(BOOT_FLAG, &[0]);
        assert!(flag.to_string().contains("no boot flag"), "{flag}");
        let length = with(JUMP_LENGTH, &[0xff]);
        assert!(length.to_string().contains("its length"), "{length}");
    }

    #[test]
    fn a_file_that_ends_in_its_payload_or_header_says_where() {
        let image = synthetic::bzimage(b"payload");
        let has = image.len() as u64 - 1;
        let cut = parse(&image[..has as usize]).unwrap_err();
        assert_eq!(
            cut,
            ImageError::Truncated {
                what: "the payload",
                needs: has + 1,
                has
            }
        );
        let cut = parse(&image[..0x240]).unwrap_err();
        assert!(cut.to_string().contains("the setup header"), "{cut}");
    }

    #[test]
    fn a_synthetic_header_passes_for_one() {
        let header = synthetic_setup_header();
        let mut image = vec![0; SETUP_HEADER_AT];
        image.extend(header);
        image.resize(8 * SECTOR_BYTES, 0);
        let read = parse(&image).unwrap().unwrap();
        assert_eq!((read.protocol, read.version), (PROTOCOL_MIN, None));
    }
}
