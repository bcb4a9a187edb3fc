//! What images are made of and opened with.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Sizes of a block that a guest can be shown.
pub const BLOCK_BYTES: [u32; 2] = [512, 4096];

/// The largest disk: 16 TiB. A bit for each 64 KiB of it is 32 MiB.
pub const SIZE_BYTES_MAX: u64 = 16 << 40;

/// Unit in which images are compared and copied.
pub const COPY_BLOCK_BYTES: u64 = 64 << 10;

/// Format of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The bytes of the disk, and nothing else.
    Raw,
    /// QEMU's format, version 3.
    Qcow2,
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            _ => Err("write raw or qcow2"),
        }
    }
}

/// Way in which an image is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Format; none where the file beside the image or its first bytes tell it.
    pub format: Option<Format>,
    /// It is not written. Others may read it, too.
    pub read_only: bool,
    /// Size of the guest's blocks: one of [`BLOCK_BYTES`]. The disk has whole ones.
    pub block_bytes: u32,
    /// `O_DIRECT` for a raw image that is written, where the file system has it.
    pub direct: bool,
    /// A lock that no process is seen to hold is waited for, some seconds: its process has ended, and
    /// the kernel carries out its last requests. Whoever tries again by himself needs no wait.
    pub waits: bool,
}

impl Default for Options {
    fn default() -> Self {
        let [block_bytes, ..] = BLOCK_BYTES;
        Self {
            format: None,
            read_only: false,
            block_bytes,
            direct: true,
            waits: true,
        }
    }
}

/// Way in which the bytes of an image reach its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By `O_DIRECT`, in whole blocks of so many bytes.
    Direct {
        /// Size of the blocks.
        align_bytes: usize,
    },
    /// Through the page cache of the host.
    Buffered {
        /// The reason.
        why: &'static str,
    },
}

impl fmt::Display for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct { align_bytes } => write!(formatter, "O_DIRECT in blocks of {align_bytes} bytes"),
            Self::Buffered { why } => write!(formatter, "through the page cache: {why}"),
        }
    }
}

/// The file of a raw image, for an executor that makes its own system calls.
#[derive(Clone, Copy, Debug)]
pub struct RawFile<'a> {
    /// The file. It is closed with the image.
    pub file: &'a File,
    /// Alignment of offsets and lengths: 1 where it is not `O_DIRECT`. A part of a block is written
    /// by [`Image::write_at`](super::Image::write_at), and by nothing else.
    pub align_bytes: usize,
    /// Alignment of memory.
    pub memory_align_bytes: usize,
}

/// A file that is open.
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) read_only: bool,
    pub(super) direct: bool,
}

/// The base of an overlay: an image that is open to be read only.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
    pub(super) format: Format,
    pub(super) size_bytes: u64,
}
