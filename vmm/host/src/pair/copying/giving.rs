//! The holder's side: says what its images have, and sends what differs.

use super::asking::{ask, digests};
use super::known::{Compared, batches};
use super::wire::{Said, receive, send, to_state};
use crate::configuration::Pace;
use crate::disk::Mirrored;
use crate::disk::mirrored::in_background;
use crate::pair::pace::Paced;
use lockstep_logging_channel::Generation;
use lockstep_logging_channel::transport::Connection;
use lockstep_shared_disk::image::{COPY_BLOCK_BYTES, Equal};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tokio::time::sleep_until;

/// Progress of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Bytes that are to be compared: of all images, less what their bitmaps except.
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
    compared: Vec<Compared>,
    /// States that the newcomer has in common with this side, by the places of the disks.
    common: BTreeMap<u8, Vec<Equal>>,
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
            compared: Vec::new(),
            common: BTreeMap::new(),
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

    /// What was compared of each disk.
    #[must_use]
    pub fn compared(&self) -> &[Compared] {
        &self.compared
    }

    /// Compares the blocks that may differ, and sends those that do. `show` is told how far it is.
    ///
    /// # Errors
    /// The newcomer is lost, or an image cannot be read.
    pub async fn compare(
        &mut self,
        connection: &mut Connection,
        mut show: impl FnMut(Given),
    ) -> Result<(), String> {
        for image in self.images.clone() {
            let (compared, blocks, common) = ask(connection, &image).await?;
            tracing::info!("{}: {compared}", image.path);
            let size_bytes = image.image.size_bytes();
            let bytes = (compared.blocks * COPY_BLOCK_BYTES).min(size_bytes);
            self.given.all_bytes = (self.given.all_bytes - size_bytes) + bytes;
            self.compared.push(compared);
            self.common.insert(image.disk, common);
            let end_bytes = self.given.compared_bytes + bytes;
            for ranges in batches(&blocks) {
                self.batch(connection, &image, &ranges).await?;
                self.given.compared_bytes = self.given.compared_bytes.min(end_bytes);
                show(self.given);
            }
            self.given.compared_bytes = end_bytes;
        }
        Ok(())
    }

    /// Compares the blocks of these ranges.
    async fn batch(
        &mut self,
        connection: &mut Connection,
        image: &Mirrored,
        ranges: &[Range<u64>],
    ) -> Result<(), String> {
        let digests = digests(image, ranges).await;
        let digests = digests.map_err(|why| unread(image, &why))?;
        let count = digests.len() as u64;
        let digests = Said::Digests {
            disk: image.disk,
            ranges: ranges.iter().map(|range| (range.start, range.end)).collect(),
            digests,
        };
        send(connection, &digests).await?;
        let Said::Wanted { blocks: wanted } = receive(connection).await? else {
            return Err("it did not say which blocks differ".to_owned());
        };
        let is_asked = |block: &u64| ranges.iter().any(|range| range.contains(block));
        if wanted.len() as u64 > count || !wanted.iter().all(is_asked) {
            return Err("it wants blocks that it was not asked about".to_owned());
        }
        for block in wanted {
            self.block(connection, image, block).await?;
        }
        self.given.compared_bytes += count * COPY_BLOCK_BYTES;
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

    /// The same, where the newcomer's images are those of this side as they were when it began to
    /// count for the join `name`: both record that state, and this side clears its older marks.
    ///
    /// # Errors
    /// As [`Giving::finish`].
    pub async fn finish_equal(
        &self,
        connection: &mut Connection,
        name: [u8; 16],
        generation: Generation,
    ) -> Result<(), String> {
        for image in &self.images {
            let common = self.common.get(&image.disk).cloned().unwrap_or_default();
            if let Some(state) = recorded(image, name, generation, common).await {
                let (disk, state) = (image.disk, to_state(&state));
                send(connection, &Said::Equal { disk, state }).await?;
            }
        }
        self.finish(connection).await?;
        for changes in self.images.iter().filter_map(|image| image.changes.clone()) {
            let cleared = in_background(move || {
                changes.joined();
                Ok(())
            });
            cleared.await.map_err(|why| why.to_string())?;
        }
        Ok(())
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

/// Makes the image durable, and records the state of the join `name`. Where that is not possible
/// there is none: the newcomer is needed all the more.
async fn recorded(
    image: &Mirrored,
    name: [u8; 16],
    generation: Generation,
    common: Vec<Equal>,
) -> Option<Equal> {
    let changes = image.changes.clone()?;
    let disk = image.image.clone();
    let recorded = in_background(move || {
        disk.flush()?;
        Ok(changes.record_join(name, generation, &common))
    });
    recorded.await.unwrap_or_else(|why| {
        tracing::warn!("{} has no bitmap: it cannot be made durable: {why}", image.path);
        None
    })
}

fn unread(image: &Mirrored, why: &std::io::Error) -> String {
    format!("{} cannot be read: {why}", image.path)
}
