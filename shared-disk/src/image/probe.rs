//! Opens the file of an image, and finds out its format.

use super::beside::identity::Identity;
use super::error::{ImageError, failed};
use super::kinds::{BLOCK_BYTES, Format, Opened, Options, SIZE_BYTES_MAX};
use super::lock::{Lock, lock};
use super::qcow2::header;
use lockstep_regular_file as regular_file;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Formats of other programs, which as raw images would be disks full of nonsense: where their mark
/// is, and what it is.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (0, b"KDMV", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "the description of a VMDK image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a VHD image"),
    (64, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"QED\0", "a QED image"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"\xfd7zXZ\0", "compressed by xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (0, b"BZh", "compressed by bzip2"),
    (0, b"\x7fELF", "an ELF file"),
];

/// Bytes at the beginning of a file that tell its format: the last mark above ends at 68.
const PROBED_BYTES: usize = 68;

/// Opens the regular file `path` and locks it.
pub(super) fn open(path: &Path, options: &Options) -> Result<(Opened, Lock), ImageError> {
    let read_only = options.read_only;
    // A user for whom permissions do not count is told, too.
    let found = fs::metadata(path).map_err(failed(path, "open"))?;
    if !read_only && found.is_file() && found.permissions().readonly() {
        return Err(ImageError::ReadOnly {
            path: path.to_owned(),
        });
    }
    let opened = if read_only {
        regular_file::open(path)
    } else {
        regular_file::open_to_write(path)
    };
    let file = opened.map_err(|error| match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied if !read_only => ImageError::ReadOnly {
            path: path.to_owned(),
        },
        _ => failed(path, "open")(error),
    })?;
    let lock = lock(&file, path, options)?;
    // After the lock: before it, another user could have changed it.
    let bytes = file.metadata().map_err(failed(path, "open"))?.len();
    let opened = Opened {
        file,
        path: path.to_owned(),
        bytes,
        read_only,
        direct: options.direct,
    };
    Ok((opened, lock))
}

/// Format of an image. What is recorded beside it counts more than its first bytes, which a guest
/// can write.
pub(super) fn format(file: &File, path: &Path, bytes: u64) -> Result<Format, ImageError> {
    if let Some(identity) = Identity::read(path)? {
        return Ok(identity.format);
    }
    let first = first_bytes(file, path, bytes)?;
    if first.starts_with(&header::MAGIC) {
        return Ok(Format::Qcow2);
    }
    let is_at = |place: usize, mark: &[u8]| first.get(place..).is_some_and(|rest| rest.starts_with(mark));
    let other = OTHERS.iter().find(|(place, mark, _)| is_at(*place, mark));
    other.map_or(Ok(Format::Raw), |(_, _, what)| {
        let path = path.to_owned();
        Err(ImageError::Format { path, what })
    })
}

/// True if a file begins as qcow2 files do.
pub(super) fn is_qcow2(file: &File, path: &Path, bytes: u64) -> Result<bool, ImageError> {
    first_bytes(file, path, bytes).map(|first| first.starts_with(&header::MAGIC))
}

fn first_bytes(file: &File, path: &Path, bytes: u64) -> Result<Vec<u8>, ImageError> {
    let mut first = vec![0; PROBED_BYTES.min(usize::try_from(bytes).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut first, 0).map_err(failed(path, "read"))?;
    Ok(first)
}

/// Refuses a size that no disk has.
pub(super) fn check_size(path: &Path, size_bytes: u64, block_bytes: u32) -> Result<(), ImageError> {
    let why = if !BLOCK_BYTES.contains(&block_bytes) {
        format!("blocks have 512 or 4,096 bytes, not {block_bytes}")
    } else if size_bytes == 0 {
        "it is empty".to_owned()
    } else if size_bytes > SIZE_BYTES_MAX {
        "a disk has 16 TiB at most".to_owned()
    } else if !size_bytes.is_multiple_of(block_bytes.into()) {
        format!("that is not a multiple of its blocks of {block_bytes}")
    } else {
        return Ok(());
    };
    let path = path.to_owned();
    Err(ImageError::Size {
        path,
        size_bytes,
        why,
    })
}
