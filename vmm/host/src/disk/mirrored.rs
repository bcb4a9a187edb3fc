//! An image of which each side of a pair has its own, block by block.

use super::changes::KeptChanges;
use lockstep_shared_disk::image::{COPY_BLOCK_BYTES, Image};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// An image of which each side has its own.
#[derive(Clone, Debug)]
pub struct Mirrored {
    /// Place of its disk.
    pub disk: u8,
    /// The image.
    pub image: Arc<Image>,
    /// Blocks that may differ from the other side's; none where the image is only read.
    pub changes: Option<Arc<KeptChanges>>,
    /// Its path, for messages.
    pub path: String,
}

impl Mirrored {
    /// Blocks that it has.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.image.size_bytes().div_ceil(COPY_BLOCK_BYTES)
    }

    /// Bytes of `block`; the last one may be shorter.
    #[must_use]
    pub fn range(&self, block: u64) -> Range<u64> {
        let size = self.image.size_bytes();
        let first = block.saturating_mul(COPY_BLOCK_BYTES).min(size);
        first..first.saturating_add(COPY_BLOCK_BYTES).min(size)
    }

    /// Digests of `blocks`, in order.
    ///
    /// # Errors
    /// The system's.
    pub async fn digests(&self, blocks: Range<u64>) -> io::Result<Vec<[u8; 32]>> {
        let image = self.image.clone();
        in_background(move || {
            let digests = image.block_digests(blocks);
            digests.map(|digest| digest.map(|(_, digest)| digest)).collect()
        })
        .await
    }

    /// Content of `block`; no bytes where all of them are zeros.
    ///
    /// # Errors
    /// The system's.
    pub async fn content(&self, block: u64) -> io::Result<Vec<u8>> {
        let (image, range) = (self.image.clone(), self.range(block));
        in_background(move || {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            image.read_at(range.start, &mut bytes)?;
            if bytes.iter().all(|byte| *byte == 0) {
                bytes.clear();
            }
            Ok(bytes)
        })
        .await
    }

    /// Writes the content of `block`.
    ///
    /// # Errors
    /// The system's.
    pub async fn put(&self, block: u64, bytes: Vec<u8>) -> io::Result<()> {
        let (image, range, changes) = (self.image.clone(), self.range(block), self.changes.clone());
        in_background(move || {
            if let Some(changes) = &changes {
                changes.mark(None, &range)?;
            }
            if bytes.is_empty() {
                return image.write_zeroes(range.start, range.end - range.start, true);
            }
            image.write_at(range.start, &bytes)
        })
        .await
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// The system's.
    pub async fn flush(&self) -> io::Result<()> {
        let image = self.image.clone();
        in_background(move || image.flush()).await
    }
}

/// Does what blocks on a thread of its own.
pub async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|why| Err(io::Error::other(why)))
}
