//! The two sides tell each other what their marks are.

use super::known::{Compared, Marks, bounded, to_compare};
use super::wire::{Said, State, of_state, receive, send, to_state};
use super::{BATCH_BLOCKS, RANGES_MAX};
use crate::disk::{Known, Mirrored};
use lockstep_core::replica::disk_changes::Blocks;
use lockstep_logging_channel::transport::Connection;
use lockstep_shared_disk::image::{EQUAL_MAX, Equal};
use std::ops::Range;

/// Reason for an image without a bitmap.
const ONLY_READ: &str = "it is only read";

fn known(image: &Mirrored) -> Result<Known, String> {
    let changes = image.changes.as_ref().ok_or_else(|| ONLY_READ.to_owned())?;
    changes.known()
}

fn marks(states: &[State], blocks: Blocks) -> Result<Marks, String> {
    if states.len() > EQUAL_MAX {
        return Err("it names too many states".to_owned());
    }
    let equal = states.iter().map(of_state).collect();
    Ok(Marks { equal, blocks })
}

/// At the holder: asks for the newcomer's marks, and decides what is compared of `image`. Gives the
/// states of the newcomer, too.
pub(super) async fn ask(
    connection: &mut Connection,
    image: &Mirrored,
) -> Result<(Compared, Vec<Range<u64>>, Vec<Equal>), String> {
    let (disk, of) = (image.disk, image.blocks());
    send(connection, &Said::Asked { disk }).await?;
    let theirs = theirs(connection, of).await?;
    // What is written from now on is watched.
    let own = known(image).map(|Known { equal, blocks }| Marks { equal, blocks });
    let (holder, newcomer) = (own.as_ref(), theirs.as_ref());
    let (compared, blocks) = to_compare(
        disk,
        of,
        holder.map_err(Clone::clone),
        newcomer.map_err(Clone::clone),
    );
    let comparing = Said::Comparing {
        blocks: compared.blocks,
        of,
        bitmap: compared.bitmap.clone(),
    };
    send(connection, &comparing).await?;
    let common = match (&compared.bitmap, theirs) {
        (Ok(_), Ok(theirs)) => theirs.equal,
        _ => Vec::new(),
    };
    Ok((compared, blocks, common))
}

/// The newcomer's marks, of a disk that has `of` blocks, or the reason why it has none.
async fn theirs(connection: &mut Connection, of: u64) -> Result<Result<Marks, String>, String> {
    let Said::Marked {
        states: there,
        records,
    } = receive(connection).await?
    else {
        return Err("it did not say which blocks it has marked".to_owned());
    };
    let mut blocks = Blocks::new(of);
    let mut end = 0;
    for _ in 0..records {
        let Said::Ranges { ranges } = receive(connection).await? else {
            return Err("it did not say which blocks it has marked".to_owned());
        };
        // Ascending and within the disk: there cannot be more records than blocks.
        for (start, next) in &ranges {
            if *start < end || start >= next || *next > of {
                return Err("the blocks that it has marked are not where the disk is".to_owned());
            }
            blocks.insert(*start..*next);
            end = *next;
        }
        if ranges.is_empty() || ranges.len() > RANGES_MAX {
            return Err("it sent no ranges of blocks, or too many".to_owned());
        }
    }
    match there {
        Ok(states) => Ok(Ok(marks(&states, blocks)?)),
        Err(why) => Ok(Err(bounded(&why))),
    }
}

/// At the newcomer: answers with the marks of `image`. Gives what is compared.
pub(super) async fn answer(connection: &mut Connection, image: &Mirrored) -> Result<Compared, String> {
    let own = known(image);
    let ranges = match &own {
        Ok(own) => own.blocks.ranges(),
        Err(_) => Vec::new(),
    };
    let marked = Said::Marked {
        states: match &own {
            Ok(own) => Ok(own.equal.iter().map(to_state).collect()),
            Err(why) => Err(why.clone()),
        },
        records: ranges.len().div_ceil(RANGES_MAX) as u64,
    };
    send(connection, &marked).await?;
    for ranges in ranges.chunks(RANGES_MAX) {
        let ranges = ranges.iter().map(|range| (range.start, range.end)).collect();
        send(connection, &Said::Ranges { ranges }).await?;
    }
    let Said::Comparing { blocks, of, bitmap } = receive(connection).await? else {
        return Err("it did not say what is compared".to_owned());
    };
    Ok(Compared {
        disk: image.disk,
        blocks,
        of,
        bitmap: bitmap.map_err(|why| bounded(&why)),
    })
}

/// The digests of these blocks, in order.
pub(super) async fn digests(image: &Mirrored, ranges: &[Range<u64>]) -> std::io::Result<Vec<[u8; 32]>> {
    let mut all = Vec::with_capacity(BATCH_BLOCKS as usize);
    for range in ranges {
        all.extend(image.digests(range.clone()).await?);
    }
    Ok(all)
}
