//! The newcomer's side: compares its images with the holder's, and takes what differs.

use super::BATCH_BLOCKS;
use super::asking::{answer, digests};
use super::wire::{Said, of_state, receive, send};
use crate::disk::Mirrored;
use crate::disk::mirrored::in_background;
use lockstep_logging_channel::transport::Connection;
use lockstep_process::once_a_minute::Seldom;
use lockstep_shared_disk::image::COPY_BLOCK_BYTES;
use std::io;
use std::ops::Range;
use std::time::Instant;

/// Reason why images are not those of the holder.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The holder is gone: another try may succeed.
    #[error("the machine was lost while disks were compared: {0}")]
    Lost(String),
    /// What was received is not about these disks.
    #[error("the holder's disks are refused: {0}")]
    Refused(&'static str),
    /// An image that is only read is another one.
    #[error(
        "disk image {path} is only read, and differs from the holder's in the 64 KiB at byte {offset_bytes}: copy the holder's image here"
    )]
    ReadOnly {
        /// Its path.
        path: String,
        /// Position of the first difference.
        offset_bytes: u64,
    },
    /// The system's.
    #[error("disk image {path} cannot be made the holder's")]
    Image {
        /// Its path.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Makes `images` what the holder's are, until it has sent all for now, and they are durable. Gives
/// the number of blocks that were written.
///
/// # Errors
/// [`NotTaken`].
pub async fn take(connection: &mut Connection, images: &[Mirrored]) -> Result<u64, NotTaken> {
    let mut taken = 0;
    let mut told = Seldom::default();
    let mut states = Vec::new();
    loop {
        match receive(connection).await.map_err(NotTaken::Lost)? {
            Said::Asked { disk } => {
                let image = find(images, disk)?;
                let compared = answer(connection, image).await.map_err(NotTaken::Lost)?;
                tracing::info!("{}: {compared}", image.path);
                if let (Err(why), Some(changes)) = (compared.bitmap, image.changes.clone()) {
                    // Before the first block is written that it does not know of.
                    let forgotten = in_background(move || changes.forget(&why)).await;
                    forgotten.map_err(failed(image))?;
                }
            }
            Said::Digests {
                disk,
                ranges,
                digests,
            } => {
                let image = find(images, disk)?;
                let ranges: Vec<_> = ranges.into_iter().map(|(start, end)| start..end).collect();
                let blocks = differing(image, &ranges, &digests).await?;
                if let Some(block) = blocks.first().filter(|_| image.image.read_only()) {
                    return Err(NotTaken::ReadOnly {
                        path: image.path.clone(),
                        offset_bytes: block * COPY_BLOCK_BYTES,
                    });
                }
                if !blocks.is_empty() && told.may(Instant::now()) {
                    let offset_bytes = blocks.first().map_or(0, |block| block * COPY_BLOCK_BYTES);
                    tracing::info!(
                        offset_bytes,
                        "{} differs from the holder's image, which is copied where it does",
                        image.path
                    );
                }
                let wanted = send(connection, &Said::Wanted { blocks }).await;
                wanted.map_err(NotTaken::Lost)?;
            }
            Said::Block { disk, block, bytes } => {
                let image = find(images, disk)?;
                let range = image.range(block);
                let length = range.end - range.start;
                if length == 0 || !(bytes.is_empty() || bytes.len() as u64 == length) {
                    return Err(NotTaken::Refused("a block is not where the disk is"));
                }
                if image.image.read_only() {
                    return Err(NotTaken::Refused("a block of a disk that is only read was sent"));
                }
                image.put(block, bytes).await.map_err(failed(image))?;
                taken += 1;
            }
            Said::Equal { disk, state } => {
                let image = find(images, disk)?;
                if states.len() > images.len() {
                    return Err(NotTaken::Refused(
                        "it said too often what the state of its disks is",
                    ));
                }
                states.push((image, of_state(&state)));
            }
            Said::All => {
                for image in images.iter().filter(|image| !image.image.read_only()) {
                    image.flush().await.map_err(failed(image))?;
                }
                for (image, state) in states {
                    let Some(changes) = image.changes.clone() else {
                        continue;
                    };
                    let begun = in_background(move || changes.begin_equal(state)).await;
                    begun.map_err(failed(image))?;
                }
                let durable = send(connection, &Said::Durable).await;
                durable.map_err(NotTaken::Lost)?;
                return Ok(taken);
            }
            Said::Marked { .. }
            | Said::Ranges { .. }
            | Said::Comparing { .. }
            | Said::Wanted { .. }
            | Said::Durable => {
                return Err(NotTaken::Refused("the holder said what a newcomer says"));
            }
        }
    }
}

/// Those of the holder's blocks in `ranges` whose content is another one here.
async fn differing(
    image: &Mirrored,
    ranges: &[Range<u64>],
    theirs: &[[u8; 32]],
) -> Result<Vec<u64>, NotTaken> {
    let mut count = 0_u64;
    for range in ranges {
        let length = range.end.checked_sub(range.start);
        let length = length.filter(|_| range.end <= image.blocks());
        count = count.saturating_add(length.unwrap_or(u64::MAX));
    }
    if count > BATCH_BLOCKS || count != theirs.len() as u64 {
        return Err(NotTaken::Refused("its blocks are not where the disk is"));
    }
    let own = digests(image, ranges).await.map_err(failed(image))?;
    let blocks = ranges.iter().cloned().flatten();
    let pairs = theirs.iter().zip(&own);
    let differing = blocks.zip(pairs).filter(|(_, (holder, own))| holder != own);
    Ok(differing.map(|(block, _)| block).collect())
}

fn find(images: &[Mirrored], disk: u8) -> Result<&Mirrored, NotTaken> {
    let mut images = images.iter();
    let found = images.find(|image| image.disk == disk);
    found.ok_or(NotTaken::Refused("it has a disk that this side has not"))
}

fn failed(image: &Mirrored) -> impl FnOnce(io::Error) -> NotTaken {
    let path = image.path.clone();
    move |source| NotTaken::Image { path, source }
}
