//! What the disks of a machine hold, block by block: what is written into a snapshot of a recording,
//! and put back from it.

use super::storage::Storage;
use super::threads::{Drive, DriveStorage};
use lockstep_core::machine::disk::{DiskShape, SECTOR_BYTES};
use lockstep_core::replica::snapshot::{DISK_BLOCK_BYTES, DiskBlock};
use lockstep_logging_channel::{Digest, PartDigest};
use lockstep_shared_disk::image::COPY_BLOCK_BYTES;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Blocks are those that the disks' threads note as written.
const _: () = assert!(DISK_BLOCK_BYTES == COPY_BLOCK_BYTES);

/// The disks of a machine, in the order of their places.
#[derive(Clone, Default)]
pub struct Contents(Vec<Content>);

#[derive(Clone)]
struct Content {
    name: String,
    storage: Arc<dyn Storage>,
    size_bytes: u64,
}

impl Contents {
    /// What `drives`, of these `shapes`, hold.
    #[must_use]
    pub fn of(drives: &[Drive], shapes: &[DiskShape]) -> Self {
        let all = drives.iter().zip(shapes);
        let contents = all.map(|(drive, shape)| Content {
            name: drive.name.clone(),
            storage: match &drive.storage {
                DriveStorage::Own(storage) => storage.clone(),
                DriveStorage::Shared(image) => image.clone(),
            },
            size_bytes: shape.sectors.saturating_mul(SECTOR_BYTES),
        });
        Self(contents.collect())
    }

    /// True where the machine has no disks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sizes of the disks.
    #[must_use]
    pub fn sizes_bytes(&self) -> Vec<u64> {
        self.0.iter().map(|content| content.size_bytes).collect()
    }

    fn find(&self, block: DiskBlock) -> io::Result<(&Content, u64, u64)> {
        let content = self.0.get(usize::from(block.disk));
        let found = content.and_then(|content| {
            let length = block.length_on(content.size_bytes)?;
            Some((content, block.block * DISK_BLOCK_BYTES, length))
        });
        found.ok_or_else(|| io::Error::other("there is no such block"))
    }

    /// Reads a block into `buffer`.
    ///
    /// # Errors
    /// The system's, with the disk's name.
    pub fn read(&self, block: DiskBlock, buffer: &mut Vec<u8>) -> io::Result<()> {
        let (content, offset_bytes, length_bytes) = self.find(block)?;
        buffer.resize(length_bytes as usize, 0);
        let read = content.storage.read_at(offset_bytes, buffer);
        read.map_err(|why| named(content, "read", &why))
    }

    /// Writes a block: `bytes`, or zeros where there are none.
    ///
    /// # Errors
    /// The system's, with the disk's name.
    pub fn write(&self, block: DiskBlock, bytes: &[u8]) -> io::Result<()> {
        let (content, offset_bytes, length_bytes) = self.find(block)?;
        let written = if bytes.is_empty() {
            content.storage.write_zeroes(offset_bytes, length_bytes, true)
        } else {
            content.storage.write_at(offset_bytes, bytes)
        };
        written.map_err(|why| named(content, "written", &why))
    }

    /// Digests of what each disk has in `blocks`.
    ///
    /// # Errors
    /// The system's, with the disk's name.
    pub fn digests(&self, blocks: &BTreeSet<DiskBlock>) -> io::Result<Vec<PartDigest>> {
        let mut buffer = Vec::new();
        let mut hashers = vec![blake3::Hasher::new(); self.0.len()];
        for block in blocks {
            self.read(*block, &mut buffer)?;
            if let Some(hasher) = hashers.get_mut(usize::from(block.disk)) {
                hasher.update(&block.block.to_le_bytes());
                hasher.update(blake3::hash(&buffer).as_bytes());
            }
        }
        let digests = hashers.iter().enumerate().map(|(disk, hasher)| PartDigest {
            part: format!("content of disk {disk}"),
            digest: Digest::from_hash(&hasher.finalize()),
        });
        Ok(digests.collect())
    }
}

fn named(content: &Content, what: &str, why: &io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("{} cannot be {what}: {why}", content.name))
}
