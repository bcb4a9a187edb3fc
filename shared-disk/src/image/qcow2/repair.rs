//! Counts the clusters of a qcow2 file that are in use and not counted.
//!
//! The crate writes a table into the one above it at once, and its count with the next flush. A
//! process that is killed in between leaves clusters that are in use and not counted; nobody else
//! has them, as the check has shown, so each is counted once. That may be cut short anywhere, and
//! is then done again.

use super::check::{Found, ReadOrZero};
use super::header::Header;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// Logarithm of the bits of a count: 16, which QEMU and this software give their images.
const REFCOUNT_ORDER: u32 = 4;

/// Counts what `found` has not counted.
pub(super) fn repair(file: &File, header: &Header, found: Found) -> io::Result<()> {
    if header.refcount_order != REFCOUNT_ORDER {
        let why =
            "its clusters in use are not all counted, and counts that have not 16 bits are not repaired";
        return Err(io::Error::new(ErrorKind::Unsupported, why));
    }
    let Found {
        blocks,
        mut uncounted,
        mut clusters,
        ..
    } = found;
    let each = header.counts_in_block();
    let mut added = Vec::new();
    let mut block = 0;
    while block * each < clusters {
        let counted = block * each..(block + 1) * each;
        let place = blocks.get(block as usize).copied();
        if counted.clone().any(|cluster| uncounted.get(cluster)) {
            let place = match place {
                None => return Err(io::Error::other("its table of reference counts is too short")),
                Some(0) => {
                    // A block behind the end of the file, which needs a count, too: here or in a
                    // later block.
                    let cluster = clusters;
                    uncounted.set(cluster);
                    clusters += 1;
                    added.push((block, cluster << header.cluster_bits));
                    cluster << header.cluster_bits
                }
                Some(place) => place,
            };
            let mut bytes = vec![0; header.cluster_bytes() as usize];
            file.read_exact_or_zero(&mut bytes, place)?;
            for cluster in counted.filter(|cluster| uncounted.get(*cluster)) {
                let at = (cluster - block * each) as usize * 2;
                if let Some(count) = bytes.get_mut(at..at + 2) {
                    count.copy_from_slice(&1_u16.to_be_bytes());
                }
            }
            file.write_all_at(&bytes, place)?;
        }
        block += 1;
    }
    file.sync_data()?;
    // A block is in the table when its content is durable.
    for (block, place) in added {
        file.write_all_at(&place.to_be_bytes(), header.refcount_offset + block * 8)?;
    }
    file.sync_data()
}
