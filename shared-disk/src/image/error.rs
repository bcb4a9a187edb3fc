//! Reasons why an image cannot be used.

use super::holder::Holder;
use super::kinds::Format;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Reason why an image, or a file beside it, cannot be used. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The system refuses.
    #[error("cannot {doing} image {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operation that was being done.
        doing: &'static str,
        /// The error that the system reported.
        source: std::io::Error,
    },
    /// An image that is to be made exists.
    #[error("image {} exists", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another user has it open.
    #[error("image {} is in use{}", path.display(), by(holder.as_ref()))]
    InUse {
        /// The file.
        path: PathBuf,
        /// Its user, where the kernel names it.
        holder: Option<Holder>,
    },
    /// Nothing would keep a second user away.
    #[error("image {} cannot be locked: its file system has no locks", path.display())]
    NoLocks {
        /// The file.
        path: PathBuf,
        /// The error that the system reported.
        source: std::io::Error,
    },
    /// A disk that is written has a file that is not.
    #[error("image {} is read-only, and the disk is to be written", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Its size is not that of a disk.
    #[error("image {} has {size_bytes} bytes: {why}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// The rule that it breaks.
        why: String,
    },
    /// It is in a format that is not read.
    #[error("image {} is {what}, which is neither raw nor qcow2", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        what: &'static str,
    },
    /// It is not in the format that it should have.
    #[error("image {} is not {wanted}", path.display())]
    NotIn {
        /// The file.
        path: PathBuf,
        /// The format that it should have.
        wanted: Format,
    },
    /// It is qcow2 with something that is not supported.
    #[error("qcow2 image {} cannot be used: {why}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The feature.
        why: String,
        /// Advice on what to do about it.
        hint: &'static str,
    },
    /// Its tables contradict each other or the length of the file.
    #[error("qcow2 image {} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The defect.
        why: String,
    },
    /// It has become shorter since it was last used.
    #[error(
        "image {} has {size_bytes} bytes, and had {recorded_bytes} when it was last used",
        path.display()
    )]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// The size that is recorded beside it.
        recorded_bytes: u64,
    },
    /// It belongs to another machine.
    #[error("image {} is a disk of machine `{of}`, not of `{wanted}`", path.display())]
    OfAnother {
        /// The file.
        path: PathBuf,
        /// The machine to which it belongs.
        of: String,
        /// The machine that is to have it.
        wanted: String,
    },
    /// A file beside an image does not say what this software writes there.
    #[error("{} is damaged or not ours: {why}", path.display())]
    Beside {
        /// The file.
        path: PathBuf,
        /// The defect.
        why: &'static str,
    },
    /// A file beside an image is of another version of its format.
    #[error(
        "{} was written by {} Lockstep (version {found} of its format, this one reads {known})",
        path.display(),
        if found > known { "a later" } else { "an earlier" }
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this software reads and writes.
        known: u32,
    },
}

impl ImageError {
    /// A remedy, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        let hint = match self {
            Self::File { source, .. } => match source.kind() {
                ErrorKind::NotFound => "`lockstep disk create` makes an image",
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    "free some space; without --preallocate an image takes only what is written"
                }
                ErrorKind::InvalidInput | ErrorKind::IsADirectory => "an image is a regular file",
                _ => return None,
            },
            Self::Exists { .. } => "nothing is overwritten: give another name, or remove it",
            Self::InUse { .. } => {
                "an image has one user: end the other one, or give each its own image; a base can be read by several"
            }
            Self::NoLocks { .. } => "put it on a file system with locks: a local one, or NFS 4",
            Self::ReadOnly { .. } => "make it writable, or attach the disk as read-only: IMAGE,read-only",
            Self::Size { .. } => {
                "a disk has whole blocks: `truncate -s` makes a raw image longer, `lockstep disk create` makes a new one"
            }
            Self::Format { .. } => "`qemu-img convert -O raw` or `-O qcow2` makes an image that can be used",
            Self::NotIn { .. } => "`lockstep disk info` says what an image is",
            Self::Unsupported { hint, .. } => hint,
            Self::Damaged { .. } => {
                "it was cut, or its host lost power: `qemu-img check` says more; take the other side's image, or a copy"
            }
            Self::Shrunk { .. } => {
                "it was cut or replaced: take the other side's image, or a copy; where that was meant, remove its .lockstep file"
            }
            Self::OfAnother { .. } => {
                "give the machine its own image; removed, the .lockstep file beside it gives the image to nobody"
            }
            Self::Beside { .. } => {
                "removed, it is in nobody's way: the image is then as one that nobody has used"
            }
            Self::Version { .. } => "use the Lockstep that wrote it, or remove it",
        };
        Some(hint)
    }
}

/// Makes an error of the system one of the image.
pub(super) fn failed(
    path: impl Into<PathBuf>,
    doing: &'static str,
) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = path.into();
    move |source| ImageError::File { path, doing, source }
}

fn by(holder: Option<&Holder>) -> String {
    holder.map_or_else(
        || ": another process, which the kernel does not name, has it open".to_owned(),
        |holder| format!(" by {holder}"),
    )
}
