//! Decompression of kernels, modules and initial RAM disks.
//!
//! No more is decompressed than the caller allows, whatever the bytes say: output grows as it is
//! made, and the decoders' own memory has the bounds below.

use super::super::error::{ImageError, first_bytes};
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;
use std::io::{self, Read};

/// Memory of an xz decoder: the dictionary that Linux's own build chooses (128 MiB,
/// scripts/xz_wrap.sh), and 1 MiB for the rest of its state.
const XZ_MEMORY_KIB_MAX: u32 = (128 + 1) << 10;
/// Window of a zstd decoder: what `zstd --ultra -22` chooses, with which Linux's own build
/// compresses (scripts/Makefile.lib).
const ZSTD_WINDOW_BYTES_MAX: u64 = 128 << 20;
/// Bytes to which a block of a legacy LZ4 frame decompresses at most (lz4_Frame_format.md, "Legacy
/// frame").
const LZ4_BLOCK_BYTES_MAX: usize = 8 << 20;
const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Bytes behind a kernel's compressed data that say its size.
const SIZE_BYTES: usize = 4;

/// Format of compressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// gzip (RFC 1952).
    Gzip,
    /// xz.
    Xz,
    /// zstd (RFC 8878).
    Zstd,
    /// Legacy frames of LZ4: the only ones that Linux decompresses.
    Lz4,
}

impl Format {
    /// The format of which `bytes` has the beginning.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x02, 0x21, 0x4c, 0x18, ..] => Some(Self::Lz4),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "LZ4",
        }
    }

    /// Decompresses what `bytes` begins with, and leaves in `bytes` what is behind it.
    ///
    /// # Errors
    /// [`ImageError::Decompress`]: it is damaged, or is more than `limit` bytes.
    pub fn decompress(self, bytes: &mut &[u8], limit: u64) -> Result<Vec<u8>, ImageError> {
        let failed = |why| self.failed(&why);
        let mut output = Vec::new();
        let reader = self.reader(bytes).map_err(failed)?;
        let found = reader
            .take(limit.saturating_add(1))
            .read_to_end(&mut output)
            .map_err(failed)?;
        if found as u64 > limit {
            let why = format!("it decompresses to more than {limit} bytes");
            return Err(failed(io::Error::other(why)));
        }
        Ok(output)
    }

    /// The decompressed form of what `bytes` begins with. When it is over, what is behind it is
    /// left in `bytes`.
    ///
    /// # Errors
    /// The beginning is damaged.
    pub fn reader<'reader>(self, bytes: &'reader mut &[u8]) -> io::Result<Box<dyn Read + 'reader>> {
        Ok(match self {
            Self::Gzip => Box::new(GzDecoder::new(bytes)),
            Self::Xz => Box::new(XzReader::new_mem_limit(bytes, false, XZ_MEMORY_KIB_MAX)),
            Self::Zstd => Box::new(
                StreamingDecoder::new_with_max_window_size(bytes, ZSTD_WINDOW_BYTES_MAX)
                    .map_err(io::Error::other)?,
            ),
            Self::Lz4 => Box::new(LegacyFrames {
                bytes,
                block: Vec::new(),
                filled: 0,
                read: 0,
            }),
        })
    }

    /// The error that says that decompression failed.
    #[must_use]
    pub fn failed(self, why: &io::Error) -> ImageError {
        ImageError::Decompress {
            format: self.name(),
            why: why.to_string(),
        }
    }
}

/// Format of a kernel's payload; `None` if it is an ELF file as it is.
///
/// # Errors
/// [`ImageError::Payload`], [`ImageError::PayloadFormat`].
pub fn format(payload: &[u8]) -> Result<Option<Format>, ImageError> {
    let by_name = |format| Err(ImageError::PayloadFormat { format });
    match payload {
        [0x7f, b'E', b'L', b'F', ..] => Ok(None),
        [b'B', b'Z', b'h', ..] => by_name("bzip2"),
        [0x5d, 0, 0, ..] => by_name("LZMA"),
        [0x89, b'L', b'Z', b'O', ..] => by_name("LZO"),
        _ => match Format::of(payload) {
            Some(format) => Ok(Some(format)),
            None => Err(ImageError::Payload {
                first: first_bytes(payload),
            }),
        },
    }
}

/// Decompresses a kernel's payload, whose last four bytes say how much it is.
///
/// # Errors
/// [`ImageError`]: also if it is more than `limit` bytes.
pub fn decompress(payload: &[u8], format: Format, limit: u64) -> Result<Vec<u8>, ImageError> {
    let (compressed, size) = payload.split_last_chunk().ok_or(ImageError::Truncated {
        what: "the payload",
        needs: SIZE_BYTES as u64,
        has: payload.len() as u64,
    })?;
    let declared = u64::from(u32::from_le_bytes(*size));
    if declared > limit {
        return Err(ImageError::TooLarge {
            needs: declared,
            limit,
        });
    }
    // The size is part of gzip's own trailer, and behind everything else.
    let mut bytes = match format {
        Format::Gzip => payload,
        _ => compressed,
    };
    let output = format.decompress(&mut bytes, declared)?;
    if output.len() as u64 != declared {
        return Err(ImageError::PayloadSize {
            declared,
            found: output.len() as u64,
        });
    }
    Ok(output)
}

/// Reads legacy frames of LZ4. Each is a number and blocks behind their lengths, and none has an
/// end but the file's: zeros, or less than a length.
struct LegacyFrames<'reader, 'bytes> {
    bytes: &'reader mut &'bytes [u8],
    /// The block that is read, decompressed: its first `filled` bytes. It is made once, so that its
    /// pages are taken as they are used.
    block: Vec<u8>,
    filled: usize,
    read: usize,
}

impl LegacyFrames<'_, '_> {
    /// Takes the next block; false if there is none.
    fn advance(&mut self) -> io::Result<bool> {
        while let Some((head, rest)) = self.bytes.split_first_chunk::<4>() {
            if *head == LZ4_LEGACY_MAGIC {
                *self.bytes = rest;
                continue;
            }
            let length = u32::from_le_bytes(*head) as usize;
            if length == 0 {
                return Ok(false);
            }
            let (block, behind) = rest.split_at_checked(length).ok_or_else(|| {
                let left = rest.len();
                io::Error::other(format!("a block of {length} bytes is cut off after {left}"))
            })?;
            if self.block.is_empty() {
                self.block = vec![0; LZ4_BLOCK_BYTES_MAX];
            }
            self.filled =
                lz4_flex::block::decompress_into(block, &mut self.block).map_err(io::Error::other)?;
            self.read = 0;
            *self.bytes = behind;
            return Ok(true);
        }
        Ok(false)
    }
}

impl Read for LegacyFrames<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.filled {
            if !self.advance()? {
                return Ok(0);
            }
        }
        let left = self.block.get(self.read..self.filled).unwrap_or_default();
        let count = left.len().min(buffer.len());
        buffer.iter_mut().zip(left).for_each(|(to, from)| *to = *from);
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{FORMATS, compress, payload_of};
    use super::*;

    /// More than a block of LZ4, and not the same everywhere.
    fn sample() -> Vec<u8> {
        (0..LZ4_BLOCK_BYTES_MAX as u32 / 4 + 1000)
            .flat_map(|word| (word / 7).to_le_bytes())
            .collect()
    }

    #[test]
    fn each_format_is_known_and_decompresses() {
        let sample = sample();
        for format in FORMATS {
            let payload = payload_of(&sample, format);
            assert_eq!(super::format(&payload), Ok(Some(format)));
            let output = decompress(&payload, format, sample.len() as u64).unwrap();
            assert!(output == sample, "{format:?}");
        }
    }

    #[test]
    fn what_is_behind_compressed_bytes_is_left() {
        for format in [Format::Gzip, Format::Xz, Format::Zstd] {
            let bytes = [compress(b"one", format).as_slice(), b"two"].concat();
            let mut rest = bytes.as_slice();
            let output = format.decompress(&mut rest, 3).unwrap();
            assert_eq!((output.as_slice(), rest), (b"one".as_slice(), b"two".as_slice()));
        }
    }

    #[test]
    fn no_more_is_decompressed_than_is_allowed() {
        for format in FORMATS {
            let compressed = compress(&[0; 1000], format);
            let refused = format.decompress(&mut compressed.as_slice(), 999).unwrap_err();
            assert!(refused.to_string().contains("more than 999 bytes"), "{refused}");
        }
    }

    #[test]
    fn damage_is_an_error_that_names_the_format() {
        for format in FORMATS {
            let mut compressed = compress(&sample()[..10_000], format);
            let half = compressed.len() / 2;
            compressed.truncate(half);
            let refused = format.decompress(&mut compressed.as_slice(), 10_000).unwrap_err();
            assert!(refused.to_string().contains(format.name()), "{refused}");
        }
    }

    #[test]
    fn a_payload_that_declares_another_size_is_refused() {
        for format in [Format::Lz4, Format::Zstd, Format::Xz] {
            let mut payload = compress(b"four", format);
            payload.extend(5_u32.to_le_bytes());
            let (declared, found) = (5, 4);
            let refused = decompress(&payload, format, 100);
            assert_eq!(refused, Err(ImageError::PayloadSize { declared, found }));
        }
    }

    #[test]
    fn a_payload_that_declares_more_than_the_limit_is_not_decompressed() {
        let payload = payload_of(&[0; 100], Format::Lz4);
        let (needs, limit) = (100, 99);
        let refused = decompress(&payload, Format::Lz4, limit);
        assert_eq!(refused, Err(ImageError::TooLarge { needs, limit }));
        let short = decompress(&[1, 2], Format::Lz4, limit).unwrap_err();
        assert!(short.to_string().contains("cut off"), "{short}");
    }

    #[test]
    fn a_payload_of_another_kind_is_refused_by_name_or_with_its_first_bytes() {
        assert_eq!(super::format(b"\x7fELF"), Ok(None));
        let named = super::format(b"BZh91AY").unwrap_err();
        assert!(named.to_string().contains("compressed with bzip2"), "{named}");
        let unknown = super::format(&[0xde, 0xad]).unwrap_err();
        assert!(unknown.to_string().contains("de ad"), "{unknown}");
    }

    #[test]
    fn a_dictionary_or_window_beyond_its_bound_is_refused() {
        // An xz block header that asks for 1.5 GiB, whose checksum fits.
        let mut xz = compress(b"x", Format::Xz);
        let dictionary = 12 + 4;
        xz[dictionary] = 37;
        let crc = crc32(&xz[12..20]);
        xz[20..24].copy_from_slice(&crc.to_le_bytes());
        let refused = Format::Xz.decompress(&mut xz.as_slice(), 1).unwrap_err();
        assert!(refused.to_string().contains("memory"), "{refused}");
        // A zstd frame header with a window of 2 to the 30.
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 20 << 3, 0, 0, 0];
        let refused = Format::Zstd.decompress(&mut zstd.as_slice(), 1).unwrap_err();
        assert!(refused.to_string().contains("indow"), "{refused}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    }
}
