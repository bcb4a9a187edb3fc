//! Whether the tables of a qcow2 file agree with each other and with the length of the file.
//!
//! A file that was cut reads as zeroes where its end was, and one whose process was killed may not
//! count a cluster that is in use, so that it would be given away twice. Both are silent losses
//! later, so every opening looks, which costs one read of the tables: 8 bytes for each cluster that
//! is in use. The counts are then repaired: see [`super::repair`].

use super::header::Header;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// Clusters of a file that are counted: four times those of the largest disk, for which one bit
/// each is kept, twice. 2^30 bits are 128 MiB.
const HOST_CLUSTERS_MAX: u64 = 1 << 30;

/// Place of a cluster in an entry of a table.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Mark of a compressed cluster in an entry of the second level.
const COMPRESSED: u64 = 1 << 62;

/// Result of a check of a file that is sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Clusters that hold data of the disk. Compressed ones are counted one each.
    pub data_clusters: u64,
    /// Clusters that are counted as used and that nothing refers to: they cost room, nothing else.
    pub leaked_clusters: u64,
    /// Clusters that are in use and not counted: those that a process had just taken when it was
    /// killed, or its host lost power. They are counted when the image is next opened to be written.
    pub uncounted_clusters: u64,
}

/// Reason why a file is not sound.
#[derive(Debug)]
pub(in super::super) enum Unsound {
    /// It cannot be read.
    Read(io::Error),
    /// Its tables contradict each other.
    Damaged(String),
}

impl From<io::Error> for Unsound {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

fn damaged<T>(why: String) -> Result<T, Unsound> {
    Err(Unsound::Damaged(why))
}

/// A file that is sound, but for counts that are missing.
pub(super) struct Found {
    pub(super) checked: Checked,
    /// Places of the blocks of reference counts; 0 for one that there is not.
    pub(super) blocks: Vec<u64>,
    /// Clusters that are in use and not counted.
    pub(super) uncounted: Bits,
    /// Clusters of the file, the last of which may be cut.
    pub(super) clusters: u64,
}

/// Checks the tables of `file`, which has `file_bytes` and begins with `header`.
pub(super) fn check(file: &File, header: &Header, file_bytes: u64) -> Result<Found, Unsound> {
    let mut check = Check::new(file, header, file_bytes)?;
    check.header_tables()?;
    check.mappings()?;
    let (blocks, uncounted) = check.counts()?;
    Ok(Found {
        checked: check.checked,
        blocks,
        uncounted,
        clusters: check.clusters,
    })
}

struct Check<'a> {
    file: &'a File,
    header: &'a Header,
    /// Clusters of the file, the last of which may be cut.
    clusters: u64,
    /// Clusters that something refers to.
    used: Bits,
    /// Clusters with compressed data, which may share them.
    compressed: Bits,
    checked: Checked,
}

impl<'a> Check<'a> {
    fn new(file: &'a File, header: &'a Header, file_bytes: u64) -> Result<Self, Unsound> {
        let clusters = file_bytes.div_ceil(header.cluster_bytes());
        if clusters > HOST_CLUSTERS_MAX {
            return damaged(format!(
                "the file has {file_bytes} bytes, more than its disk can need"
            ));
        }
        Ok(Self {
            file,
            header,
            clusters,
            used: Bits::default(),
            compressed: Bits::default(),
            checked: Checked::default(),
        })
    }

    /// Counts the header and the two tables that it leads to.
    fn header_tables(&mut self) -> Result<(), Unsound> {
        let header = self.header;
        self.take_range("its header", 0, header.cluster_bytes())?;
        self.take_range("its first table", header.l1_offset, header.l1_entries * 8)?;
        let bytes = header.refcount_clusters << header.cluster_bits;
        self.take_range("its table of reference counts", header.refcount_offset, bytes)
    }

    /// Follows the tables to the data.
    fn mappings(&mut self) -> Result<(), Unsound> {
        let (l1_offset, l1_entries) = (self.header.l1_offset, self.header.l1_entries);
        let mut table = Vec::new();
        for entry in self.read_entries(l1_offset, l1_entries)? {
            let offset = entry & OFFSET_MASK;
            if offset == 0 {
                continue;
            }
            self.take("a table of the second level", offset)?;
            table.clear();
            table.extend(self.read_entries(offset, self.header.cluster_bytes() / 8)?);
            for &entry in &table {
                self.take_data(entry)?;
            }
        }
        Ok(())
    }

    fn take_data(&mut self, entry: u64) -> Result<(), Unsound> {
        if entry & COMPRESSED != 0 {
            self.checked.data_clusters += 1;
            return self.take_compressed(entry);
        }
        let offset = entry & OFFSET_MASK;
        if offset == 0 {
            return Ok(());
        }
        self.checked.data_clusters += 1;
        self.take("data", offset)
    }

    /// A descriptor of compressed data: their place in bytes, and sectors of 512 after the first.
    fn take_compressed(&mut self, entry: u64) -> Result<(), Unsound> {
        let offset_bits = 62 - (self.header.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> offset_bits;
        let end = (offset - offset % 512).saturating_add((sectors + 1) * 512);
        let (first, last) = (
            offset >> self.header.cluster_bits,
            (end - 1) >> self.header.cluster_bits,
        );
        for cluster in first..=last {
            // The last sectors of the last cluster need not be in the file.
            if cluster >= self.clusters {
                return damaged(self.outside("compressed data", offset));
            }
            if self.used.get(cluster) && !self.compressed.get(cluster) {
                return damaged(format!(
                    "cluster {cluster} has compressed data and something else"
                ));
            }
            self.used.set(cluster);
            self.compressed.set(cluster);
        }
        Ok(())
    }

    /// Compares the counts with what was found. Gives the places of their blocks, and the clusters
    /// that are not counted.
    fn counts(&mut self) -> Result<(Vec<u64>, Bits), Unsound> {
        let header = self.header;
        let entries = header.refcount_clusters << (header.cluster_bits - 3);
        let blocks = self.read_entries(header.refcount_offset, entries)?;
        let blocks: Vec<u64> = blocks.map(|entry| entry & OFFSET_MASK).collect();
        for &offset in blocks.iter().filter(|offset| **offset != 0) {
            self.take("a block of reference counts", offset)?;
        }
        let each = header.counts_in_block();
        let mut uncounted = Bits::default();
        let mut bytes = vec![0; header.cluster_bytes() as usize];
        for (block, first) in (0..self.clusters).step_by(each as usize).enumerate() {
            match blocks.get(block) {
                Some(&offset) if offset != 0 => self.file.read_exact_or_zero(&mut bytes, offset)?,
                _ => bytes.fill(0),
            }
            for cluster in first..self.clusters.min(first + each) {
                let counted = count_at(&bytes, cluster - first, header.refcount_order);
                match (counted, self.used.get(cluster)) {
                    (0, false) => {}
                    (0, true) if self.compressed.get(cluster) => {
                        return damaged(format!(
                            "cluster {cluster} has compressed data and is not counted"
                        ));
                    }
                    (0, true) => uncounted.set(cluster),
                    (_, false) => self.checked.leaked_clusters += 1,
                    (2.., true) if !self.compressed.get(cluster) => {
                        return damaged(format!(
                            "cluster {cluster} is counted {counted} times, and used once"
                        ));
                    }
                    (_, true) => {}
                }
            }
        }
        // It was counted when the image was made: a disk on which a guest wrote a header is none.
        if uncounted.get(0) {
            return damaged("its header is not counted as used".to_owned());
        }
        self.checked.uncounted_clusters = uncounted.set;
        Ok((blocks, uncounted))
    }

    fn take_range(&mut self, what: &str, offset: u64, length: u64) -> Result<(), Unsound> {
        let clusters = length.div_ceil(self.header.cluster_bytes());
        for index in 0..clusters {
            self.take(what, offset + (index << self.header.cluster_bits))?;
        }
        Ok(())
    }

    /// Counts a cluster, which nothing else may be in.
    fn take(&mut self, what: &str, offset: u64) -> Result<(), Unsound> {
        if !offset.is_multiple_of(self.header.cluster_bytes()) {
            return damaged(format!("{what} at byte {offset} does not begin with a cluster"));
        }
        let cluster = offset >> self.header.cluster_bits;
        if cluster >= self.clusters {
            return damaged(self.outside(what, offset));
        }
        if self.used.get(cluster) {
            return damaged(format!("cluster {cluster} has {what} and something else"));
        }
        self.used.set(cluster);
        Ok(())
    }

    fn outside(&self, what: &str, offset: u64) -> String {
        let kib = (self.clusters << self.header.cluster_bits) / 1024;
        format!("{what} should be at byte {offset}, and the file ends after {kib} KiB: it was cut")
    }

    /// Reads a table.
    fn read_entries(&self, offset: u64, entries: u64) -> io::Result<impl Iterator<Item = u64> + use<>> {
        let mut bytes = vec![0; (entries * 8) as usize];
        self.file.read_exact_or_zero(&mut bytes, offset)?;
        let entries = (0..entries as usize).map(move |index| {
            let entry = bytes.get(index * 8..).and_then(|rest| rest.first_chunk());
            entry.copied().map_or(0, u64::from_be_bytes)
        });
        Ok(entries)
    }
}

/// A count in a block of them. Those of less than a byte begin with its least significant bits.
fn count_at(bytes: &[u8], index: u64, order: u32) -> u64 {
    let bits = 1_usize << order;
    let at = index as usize * bits;
    if bits < 8 {
        let byte = bytes.get(at / 8).copied().unwrap_or(0);
        return u64::from(byte >> (at % 8)) & ((1 << bits) - 1);
    }
    let place = bytes.get(at / 8..).and_then(|rest| rest.get(..bits / 8));
    let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    place.unwrap_or_default().iter().fold(0, fold)
}

/// Reads that take what is beyond the end of a file for zeroes: its last cluster may be cut.
pub(super) trait ReadOrZero {
    fn read_exact_or_zero(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadOrZero for File {
    fn read_exact_or_zero(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Set of clusters. Only as large as the highest of them needs.
#[derive(Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    set: u64,
}

impl Bits {
    pub(super) fn get(&self, index: u64) -> bool {
        let word = self.words.get((index / 64) as usize);
        word.is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(super) fn set(&mut self, index: u64) {
        let at = (index / 64) as usize;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        if let Some(word) = self.words.get_mut(at) {
            self.set += u64::from(*word >> (index % 64) & 1 == 0);
            *word |= 1 << (index % 64);
        }
    }
}
