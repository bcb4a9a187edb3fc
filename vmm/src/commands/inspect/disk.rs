//! Disk images: which file system is on one, and which kernel modules are in that.

use super::tree::{Tree, read_within};
use lockstep_core::machine::image::inspect::Type;
use lockstep_host::error::RunError;
use lockstep_shared_disk::image::{Format, Image, Options, QCOW2_MAGIC};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// Bytes at the beginning of a disk that tell what is on it: the last mark below ends before.
const PROBED_BYTES: u64 = 68 << 10;
/// What may be on a disk: where its mark is, the mark, and its name. The boot sector's is the last:
/// other formats begin with one.
const CONTENTS: &[(usize, &[u8], &str)] = &[
    (1080, b"\x53\xef", EXT4),
    (0, b"XFSB", "xfs"),
    (0x1_0040, b"_BHRfS_M", "btrfs"),
    (0, b"hsqs", "squashfs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (512, b"LABELONE", "LVM"),
    (4086, b"SWAPSPACE2", "swap space"),
    (512, b"EFI PART", "partitions"),
    (510, b"\x55\xaa", "partitions"),
];
const EXT4: &str = "ext4";
/// Time for reading a file system. One of a distribution takes a minute or two; one that is made to
/// be read for ever ends here.
const READING_TIME_MAX: Duration = Duration::from_secs(1200);

/// A disk image.
#[derive(Debug)]
pub(super) struct Disk {
    /// Its format.
    pub format: Format,
    /// Size of the disk.
    pub size_bytes: u64,
    /// The name of what is on it, where that is known.
    pub content: Option<&'static str>,
    /// The files on it, or the reason why they are not known.
    pub tree: Result<Tree, String>,
}

/// True if a file that begins with these bytes is a disk image.
fn is_disk(first: &[u8]) -> bool {
    first.starts_with(&QCOW2_MAGIC) || Type::of(first).is_none() && content(first).is_some()
}

fn content(first: &[u8]) -> Option<&'static str> {
    let is_at = |place: usize, mark: &[u8]| first.get(place..).is_some_and(|rest| rest.starts_with(mark));
    let found = CONTENTS.iter().find(|(place, mark, _)| is_at(*place, mark));
    found.map(|(_, _, name)| *name)
}

/// Looks at the file `path`, if it is a disk image. The inner error says why it cannot be read as
/// one.
///
/// # Errors
/// [`RunError::File`]: it cannot be read at all.
pub(super) fn look(path: &Path) -> Result<Option<Result<Disk, String>>, RunError> {
    let failed = |source: io::Error| RunError::File {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let mut first = Vec::new();
    let file = lockstep_regular_file::open(path).map_err(failed)?;
    file.take(PROBED_BYTES).read_to_end(&mut first).map_err(failed)?;
    if !is_disk(&first) {
        return Ok(None);
    }
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    Ok(Some(match Image::open(path, &options) {
        Ok(image) => look_at(image).map_err(|why| why.to_string()),
        Err(why) => Err(why.to_string()),
    }))
}

fn look_at(image: Image) -> io::Result<Disk> {
    let (format, size_bytes) = (image.format(), image.size_bytes());
    let mut first = vec![0; size_bytes.min(PROBED_BYTES) as usize];
    image.read_at(0, &mut first)?;
    let content = content(&first);
    let tree = match content {
        Some(EXT4) => read_within(READING_TIME_MAX, image),
        Some(other) => Err(format!(
            "the disk has {other}, in which modules are not looked for: only ext4 on the whole disk is read"
        )),
        None => Err("no file system that is known is on the disk: only ext4 is read".to_owned()),
    };
    Ok(Disk {
        format,
        size_bytes,
        content,
        tree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_a_disk_is_known_by_its_mark() {
        for (place, mark, name) in CONTENTS {
            let mut first = vec![0; PROBED_BYTES as usize];
            first[*place..*place + mark.len()].copy_from_slice(mark);
            assert_eq!(content(&first), Some(*name));
            assert!(is_disk(&first), "{name}");
        }
        assert!(is_disk(&QCOW2_MAGIC));
        assert!(!is_disk(&[0; 4096]));
    }

    #[test]
    fn a_kernel_begins_with_a_boot_sector_and_is_not_a_disk() {
        let mut first = vec![0; 4096];
        first[510..512].copy_from_slice(b"\x55\xaa");
        first[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(!is_disk(&first));
    }
}
