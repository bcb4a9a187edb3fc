//! The holder's side: says what its images have, and sends what differs.

use super::BATCH_BLOCKS;
use super::wire::{Said, receive, send};
use crate::configuration::Pace;
use crate::disk::Mirrored;
use crate::pair::pace::Paced;
use lockstep_logging_channel::transport::Connection;
use lockstep_shared_disk::image::COPY_BLOCK_BYTES;
use std::collections::BTreeSet;
use tokio::time::sleep_until;

/// Progress of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Bytes of all images.
    pub all_bytes: u64,
    /// Bytes that were compared.
    pub compared_bytes: u64,
    /// Bytes of blocks that were copied.
    pub copied_bytes: u64,
}

/// Copies images to a newcomer.
pub struct Giving {
    images: Vec<Mirrored>,
    given: Given,
    paced: Paced,
}

impl Giving {
    /// Copies `images` at this pace.
    #[must_use]
    pub fn of(images: Vec<Mirrored>, pace: Pace) -> Self {
        let all_bytes = images.iter().map(|image| image.image.size_bytes()).sum();
        let given = Given {
            all_bytes,
            ..Given::default()
        };
        Self {
            images,
            given,
            paced: Paced::new(pace),
        }
    }

    /// True where there is nothing to copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Progress.
    #[must_use]
    pub fn given(&self) -> Given {
        self.given
    }

    /// Compares all blocks, and sends those that differ. `show` is told how far it is.
    ///
    /// # Errors
    /// The newcomer is lost, or an image cannot be read.
    pub async fn compare(
        &mut self,
        connection: &mut Connection,
        mut show: impl FnMut(Given),
    ) -> Result<(), String> {
        for image in self.images.clone() {
            let blocks = image.blocks();
            let mut first = 0;
            while first < blocks {
                let batch = first..(first + BATCH_BLOCKS).min(blocks);
                let digests = image.digests(batch.clone()).await;
                let digests = digests.map_err(|why| unread(&image, &why))?;
                let disk = image.disk;
                send(connection, &Said::Digests { disk, first, digests }).await?;
                let Said::Wanted { blocks: wanted } = receive(connection).await? else {
                    return Err("it did not say which blocks differ".to_owned());
                };
                if wanted.len() as u64 > BATCH_BLOCKS || wanted.iter().any(|block| !batch.contains(block)) {
                    return Err("it wants blocks that it was not asked about".to_owned());
                }
                for block in wanted {
                    self.block(connection, &image, block).await?;
                }
                self.given.compared_bytes += (batch.end - batch.start) * COPY_BLOCK_BYTES;
                self.given.compared_bytes = self.given.compared_bytes.min(self.given.all_bytes);
                show(self.given);
                first = batch.end;
            }
        }
        Ok(())
    }

    /// Sends these blocks of a disk.
    ///
    /// # Errors
    /// As [`Giving::compare`].
    pub async fn blocks(
        &mut self,
        connection: &mut Connection,
        disk: u8,
        blocks: BTreeSet<u64>,
    ) -> Result<(), String> {
        let image = self.images.iter().find(|image| image.disk == disk).cloned();
        let Some(image) = image else { return Ok(()) };
        for block in blocks {
            self.block(connection, &image, block).await?;
        }
        Ok(())
    }

    /// Waits until the newcomer has made durable what it was sent.
    ///
    /// # Errors
    /// The newcomer is lost.
    pub async fn finish(&self, connection: &mut Connection) -> Result<(), String> {
        send(connection, &Said::All).await?;
        match receive(connection).await? {
            Said::Durable => Ok(()),
            _ => Err("it did not say that its disks are durable".to_owned()),
        }
    }

    async fn block(
        &mut self,
        connection: &mut Connection,
        image: &Mirrored,
        block: u64,
    ) -> Result<(), String> {
        let bytes = image.content(block).await.map_err(|why| unread(image, &why))?;
        let disk = image.disk;
        let sent = send(connection, &Said::Block { disk, block, bytes }).await?;
        sleep_until(self.paced.sent(sent)).await;
        self.given.copied_bytes += COPY_BLOCK_BYTES;
        Ok(())
    }
}

fn unread(image: &Mirrored, why: &std::io::Error) -> String {
    format!("{} cannot be read: {why}", image.path)
}
