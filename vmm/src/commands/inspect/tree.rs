//! The files of an ext4, and the kernel modules among them.
//!
//! An image may be made by an enemy. The crate `ext4_view` checks what it reads, but believes a
//! superblock about how much there is: that is checked here first. It takes no time for more than
//! [`ENTRIES_MAX`] entries, and none below [`DEPTH_MAX`] folders; what it does in one step may still
//! be made to last for ever (a tree of extents without blocks), so that all of it has a bound in
//! time, and runs on a thread that ends with the process.

use ext4_view::{Ext4, Ext4Read, ReadDir};
use lockstep_core::machine::image::linux::initrd::{MODULES_BYTES_MAX, Module, NAMED_MAX, is_module_path};
use lockstep_core::machine::image::linux::module::MODULE_BYTES_MAX;
use lockstep_shared_disk::image::Image;
use std::error::Error;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Files and folders: ten times what a desktop has.
const ENTRIES_MAX: u64 = 5_000_000;
/// Folders within each other, each of which is held open: a block, and a path.
const DEPTH_MAX: usize = 64;
/// All folders: a hundred times what a desktop's have, and 2^20 blocks of the smallest size.
const FOLDERS_BYTES_MAX: u64 = 1 << 30;
/// Groups of blocks, of which 16 bytes each are held: those of 16 TiB in blocks of 4 KiB, twice.
const GROUPS_MAX: u64 = 1 << 18;
/// Block sizes are 1 KiB shifted by so much: 64 KiB, the largest that Linux can be built for.
const BLOCK_SHIFT_MAX: u32 = 6;
/// The smallest inode, and the smallest that has all of its checksum.
const INODE_BYTES_MIN: u64 = 128;
const INODE_BYTES_CHECKED: u64 = 256;
/// Sizes of a group's descriptor where it has one of its own.
const DESCRIPTOR_BYTES: std::ops::RangeInclusive<u64> = 64..=1024;

/// Place and size of the superblock.
const SUPERBLOCK: (u64, usize) = (1024, 1024);
/// Features: 64-bit block numbers (incompatible), checksums of metadata (compatible for readers).
const IS_64BIT: u64 = 0x80;
const METADATA_CHECKSUMS: u64 = 0x400;

/// The files of a file system.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Files, folders, links, devices.
    pub entries: u64,
    /// Kernel modules.
    pub modules: u64,
    /// Modules that have sites, or that cannot be read.
    pub refused: u64,
    /// The first of those.
    pub named: Vec<Module>,
}

/// Reads all of the ext4 on `image`, for at most `bound`.
///
/// # Errors
/// The reason why it is not read.
pub(super) fn read_within(bound: Duration, image: Image) -> Result<Tree, String> {
    let (send, receive) = mpsc::sync_channel(1);
    let reading = thread::Builder::new()
        .name("ext4".to_owned())
        .spawn(move || send.send(read(image).map_err(|why| format!("its ext4 cannot be read: {why}"))));
    reading.map_err(|why| format!("a thread cannot be started: {why}"))?;
    receive.recv_timeout(bound).unwrap_or_else(|why| {
        Err(match why {
            RecvTimeoutError::Timeout => format!("its ext4 was not read within {} s", bound.as_secs()),
            RecvTimeoutError::Disconnected => {
                "its ext4 is damaged in a way that stopped the reading".to_owned()
            }
        })
    })
}

/// Content of an image for the crate.
struct Content(Image);

impl Ext4Read for Content {
    fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        self.0.read_at(at, to).map_err(Into::into)
    }
}

type Failure = Box<dyn Error>;

fn read(image: Image) -> Result<Tree, Failure> {
    check_superblock(&image)?;
    let files = Ext4::load(Box::new(Content(image)))?;
    let mut walk = Walk {
        tree: Tree::default(),
        folders_left: FOLDERS_BYTES_MAX,
        read_left: MODULES_BYTES_MAX,
        decompressed_left: MODULES_BYTES_MAX,
        open: vec![files.read_dir("/")?],
        files,
    };
    while walk.step()? {}
    Ok(walk.tree)
}

struct Walk {
    files: Ext4,
    tree: Tree,
    /// Folders within each other.
    open: Vec<ReadDir>,
    /// Bytes of folders that may still be read.
    folders_left: u64,
    /// Bytes of modules that may still be read.
    read_left: u64,
    /// Bytes of modules that may still be decompressed.
    decompressed_left: u64,
}

impl Walk {
    /// Looks at the next entry; false if there is none.
    fn step(&mut self) -> Result<bool, Failure> {
        let Some(folder) = self.open.last_mut() else {
            return Ok(false);
        };
        let Some(entry) = folder.next() else {
            self.open.pop();
            return Ok(true);
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == "." || name == ".." {
            return Ok(true);
        }
        self.tree.entries += 1;
        if self.tree.entries > ENTRIES_MAX {
            return Err(format!("it has more than {ENTRIES_MAX} files").into());
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if self.open.len() == DEPTH_MAX {
                return Err(format!("it has more than {DEPTH_MAX} folders within each other").into());
            }
            let bytes = entry.metadata()?.len();
            let left = self.folders_left.checked_sub(bytes);
            self.folders_left =
                left.ok_or_else(|| format!("its folders have more than {FOLDERS_BYTES_MAX} bytes"))?;
            self.open.push(self.files.read_dir(&entry.path())?);
        } else if kind.is_regular_file() && is_module_path(name.as_ref()) {
            let path = entry.path();
            let bytes = entry.metadata()?.len();
            if bytes > MODULE_BYTES_MAX {
                return Err(format!("the module {} of {bytes} bytes is too large", path.display()).into());
            }
            let left = self.read_left.checked_sub(bytes);
            self.read_left =
                left.ok_or_else(|| format!("its modules have more than {MODULES_BYTES_MAX} bytes"))?;
            let contents = self.files.read(&path)?;
            self.module(path.as_ref(), &contents);
        }
        Ok(true)
    }

    fn module(&mut self, path: &[u8], contents: &[u8]) {
        self.tree.modules += 1;
        let Some(module) = Module::refused(path, contents, &mut self.decompressed_left) else {
            return;
        };
        self.tree.refused += 1;
        if self.tree.named.len() < NAMED_MAX {
            self.tree.named.push(module);
        }
    }
}

/// Checks what a superblock says of sizes (Documentation/filesystems/ext4/super.rst of Linux).
fn check_superblock(image: &Image) -> Result<(), Failure> {
    let (at, bytes) = SUPERBLOCK;
    let mut superblock = vec![0; bytes];
    image.read_at(at, &mut superblock)?;
    let field = |at: usize, bytes: usize| {
        let field = superblock.get(at..at + bytes).unwrap_or_default();
        field
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    };
    let refused = |why: String| Err(Failure::from(why));
    let shift = field(0x18, 4) as u32;
    if shift > BLOCK_SHIFT_MAX {
        return refused("its superblock has an impossible size of blocks".to_owned());
    }
    let block_bytes = 1024_u64 << shift;
    let blocks = field(0x150, 4) << 32 | field(0x4, 4);
    let size_bytes = image.size_bytes();
    if blocks > size_bytes / block_bytes {
        return refused(format!(
            "it is cut off: it has {blocks} blocks of {block_bytes} bytes, and the disk {size_bytes} bytes"
        ));
    }
    let per_group = field(0x20, 4);
    if per_group == 0 || blocks.div_ceil(per_group) > GROUPS_MAX {
        return refused(format!("it has {blocks} blocks in groups of {per_group}"));
    }
    let inode_bytes = field(0x58, 2);
    let has_checksums = field(0x64, 4) & METADATA_CHECKSUMS != 0;
    let inode_bytes_min = if has_checksums {
        INODE_BYTES_CHECKED
    } else {
        INODE_BYTES_MIN
    };
    if !(inode_bytes_min..=block_bytes).contains(&inode_bytes) {
        return refused(format!("its superblock has inodes of {inode_bytes} bytes"));
    }
    let descriptor_bytes = field(0xfe, 2);
    if field(0x60, 4) & IS_64BIT != 0 && !DESCRIPTOR_BYTES.contains(&descriptor_bytes) {
        return refused(format!(
            "its superblock has group descriptors of {descriptor_bytes} bytes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
