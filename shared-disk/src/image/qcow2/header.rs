//! The header of a qcow2 file, as far as it decides whether the file can be used (QEMU's
//! `docs/interop/qcow2.rst`).
//!
//! The crate that reads the format believes lengths that a header gives, and takes some headers
//! apart without looking; so what it would fall over is refused here, before it sees the file.

use super::super::kinds::SIZE_BYTES_MAX;
use std::ops::Range;

/// Bytes at the beginning of every qcow2 file.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Bytes of the largest part of a file that this looks at: a cluster, to which a header and all its
/// extensions are confined.
pub(super) const HEADER_BYTES_MAX: usize = 1 << CLUSTER_BITS.end;

/// Sizes of clusters, as powers of two: 4 KiB, below which tables are larger than what they are
/// for, to 2 MiB, which is QEMU's own limit.
const CLUSTER_BITS: Range<u32> = 12..21;

/// Bytes of a table of the first level: 32 MiB, QEMU's own limit.
const L1_BYTES_MAX: u64 = 32 << 20;

/// Bytes of a table of reference counts: 8 MiB, QEMU's own limit.
const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;

/// Clusters of a disk. The tables that lead to them have 8 bytes for each: 2 GiB, which are read
/// once when an image is opened. 16 TiB have so many of the usual 64 KiB.
const CLUSTERS_MAX: u64 = 1 << 28;

/// Extensions of a header. QEMU writes three.
const EXTENSIONS_MAX: usize = 64;

/// Bytes of one name in an extension that names features.
const FEATURE_NAME_BYTES: u32 = 48;

/// Bytes of a header of version 3 at least.
const HEADER_LENGTH_MIN: u32 = 104;

const EXTENSION_END: u32 = 0;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;

/// Incompatible features.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;

/// Advice on an image that QEMU can make into one that is supported.
const CONVERT: &str = "`qemu-img convert -O qcow2` makes an image of its own out of it";
const REPAIR: &str = "`qemu-img check -r all` repairs what can be repaired";

/// Fields that later steps need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Header {
    /// Size of the disk.
    pub(in super::super) size_bytes: u64,
    /// Logarithm of the size of a cluster.
    pub(in super::super) cluster_bits: u32,
    /// Entries of the table of the first level, and its place.
    pub(in super::super) l1_entries: u64,
    pub(in super::super) l1_offset: u64,
    /// Clusters of the table of reference counts, and its place.
    pub(in super::super) refcount_clusters: u64,
    pub(in super::super) refcount_offset: u64,
    /// Logarithm of the bits of a reference count.
    pub(in super::super) refcount_order: u32,
    /// Image whose content this one changes.
    pub(in super::super) backing: Option<String>,
}

/// Reason why a header is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Refused {
    /// It contradicts itself or the file.
    Damaged(String),
    /// It has something that is not supported.
    Unsupported { why: String, hint: &'static str },
}

fn damaged<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Damaged(why.into()))
}

fn unsupported<T>(why: impl Into<String>, hint: &'static str) -> Result<T, Refused> {
    let why = why.into();
    Err(Refused::Unsupported { why, hint })
}

impl Header {
    pub(in super::super) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Reference counts that a block of them has.
    pub(super) fn counts_in_block(&self) -> u64 {
        1 << (self.cluster_bits + 3 - self.refcount_order)
    }

    /// Clusters of the disk.
    pub(in super::super) fn clusters(&self) -> u64 {
        self.size_bytes.div_ceil(self.cluster_bytes())
    }

    /// Reads the header that `bytes` begin with: those of a file of `file_bytes`, all or the first
    /// [`HEADER_BYTES_MAX`].
    pub(in super::super) fn read(bytes: &[u8], file_bytes: u64) -> Result<Self, Refused> {
        let fields = Fields(bytes);
        if bytes.get(..4) != Some(&MAGIC) {
            return damaged("it does not begin as one");
        }
        let version = fields.u32(4)?;
        if version != 3 {
            return unsupported(format!("it is of version {version} of the format"), CONVERT);
        }
        check_features(fields.u64(72)?)?;
        if fields.u32(32)? != 0 {
            return unsupported("it is encrypted", CONVERT);
        }
        if fields.u32(60)? != 0 {
            return unsupported("it has internal snapshots", CONVERT);
        }
        let cluster_bits = fields.u32(20)?;
        if !CLUSTER_BITS.contains(&cluster_bits) && cluster_bits != CLUSTER_BITS.end {
            return unsupported(
                format!("its clusters have 2^{cluster_bits} bytes, not 4 KiB to 2 MiB"),
                CONVERT,
            );
        }
        let header = Self {
            size_bytes: fields.u64(24)?,
            cluster_bits,
            l1_entries: fields.u32(36)?.into(),
            l1_offset: fields.u64(40)?,
            refcount_clusters: fields.u32(56)?.into(),
            refcount_offset: fields.u64(48)?,
            refcount_order: fields.u32(96)?,
            backing: backing(&fields, 1 << cluster_bits)?,
        };
        header.check_tables(file_bytes)?;
        check_extensions(&fields, fields.u32(100)?, header.cluster_bytes())?;
        Ok(header)
    }

    /// Refuses tables that are larger than they can be, or not in the file.
    fn check_tables(&self, file_bytes: u64) -> Result<(), Refused> {
        if self.size_bytes > SIZE_BYTES_MAX || self.clusters() > CLUSTERS_MAX {
            let why = format!(
                "a disk of {} bytes in clusters of {} is larger than it may be",
                self.size_bytes,
                self.cluster_bytes()
            );
            return unsupported(why, "disks have 16 TiB at most, in 2^28 clusters at most");
        }
        if self.refcount_order > 6 {
            return damaged(format!(
                "its reference counts have 2^{} bits",
                self.refcount_order
            ));
        }
        let l1_bytes = self.l1_entries * 8;
        let covered = self
            .l1_entries
            .saturating_mul((self.cluster_bytes() / 8).saturating_mul(self.cluster_bytes()));
        if l1_bytes > L1_BYTES_MAX || covered < self.size_bytes {
            let (entries, size) = (self.l1_entries, self.size_bytes);
            return damaged(format!(
                "its first table has {entries} entries, and the disk {size} bytes"
            ));
        }
        let refcount_bytes = self.refcount_clusters << self.cluster_bits;
        if self.refcount_clusters == 0 || refcount_bytes > REFCOUNT_TABLE_BYTES_MAX {
            return damaged(format!(
                "its table of reference counts has {refcount_bytes} bytes"
            ));
        }
        for (name, offset, length) in [
            ("first table", self.l1_offset, l1_bytes),
            ("table of reference counts", self.refcount_offset, refcount_bytes),
        ] {
            if !offset.is_multiple_of(self.cluster_bytes()) {
                return damaged(format!("its {name} does not begin with a cluster"));
            }
            // A file may end within its last cluster.
            let end = offset.saturating_add(length);
            if offset == 0 && length > 0 || end > file_bytes.next_multiple_of(self.cluster_bytes()) {
                return damaged(format!(
                    "its {name} is at byte {offset}, and the file has {file_bytes}: it was cut"
                ));
            }
        }
        Ok(())
    }
}

fn check_features(features: u64) -> Result<(), Refused> {
    if features & CORRUPT != 0 {
        return damaged("it is marked as damaged");
    }
    if features & DIRTY != 0 {
        return unsupported("it was not closed, and its reference counts may be wrong", REPAIR);
    }
    if features & EXTERNAL_DATA != 0 {
        return unsupported("its data are in another file", CONVERT);
    }
    if features != 0 {
        return unsupported(format!("it has the incompatible features {features:#x}"), CONVERT);
    }
    Ok(())
}

/// Name of the image below this one.
fn backing(fields: &Fields<'_>, cluster_bytes: u64) -> Result<Option<String>, Refused> {
    let (offset, length) = (fields.u64(8)?, u64::from(fields.u32(16)?));
    if offset == 0 {
        return Ok(None);
    }
    let end = offset.saturating_add(length);
    // At most 1,023 bytes, says the format.
    if length > 1023 || end >= cluster_bytes {
        return damaged("the name of its backing file is not in its first cluster");
    }
    let name = fields.0.get(offset as usize..end as usize);
    match name.map(str::from_utf8) {
        Some(Ok(name)) => Ok(Some(name.to_owned())),
        _ => damaged("the name of its backing file is no text"),
    }
}

/// Refuses extensions that the crate would fall over.
fn check_extensions(fields: &Fields<'_>, header_length: u32, cluster_bytes: u64) -> Result<(), Refused> {
    if header_length < HEADER_LENGTH_MIN || u64::from(header_length) > cluster_bytes {
        return damaged(format!("its header has {header_length} bytes"));
    }
    let mut offset = u64::from(header_length);
    for _ in 0..EXTENSIONS_MAX {
        let (kind, length) = (fields.u32(offset as usize)?, fields.u32(offset as usize + 4)?);
        let end = (offset + 8).saturating_add(u64::from(length));
        if end > cluster_bytes || end > fields.0.len() as u64 {
            return damaged("the extensions of its header do not end");
        }
        if kind == EXTENSION_END {
            return Ok(());
        }
        if kind == EXTENSION_FEATURE_NAMES && !length.is_multiple_of(FEATURE_NAME_BYTES) {
            return damaged("its names of features are cut");
        }
        offset = end.next_multiple_of(8);
    }
    damaged(format!("its header has more than {EXTENSIONS_MAX} extensions"))
}

/// Big-endian numbers at places.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, offset: usize) -> Result<[u8; N], Refused> {
        let bytes = self.0.get(offset..).and_then(|rest| rest.first_chunk());
        let cut = || Refused::Damaged(format!("its header is cut at byte {offset}"));
        bytes.copied().ok_or_else(cut)
    }

    fn u32(&self, offset: usize) -> Result<u32, Refused> {
        self.array(offset).map(u32::from_be_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, Refused> {
        self.array(offset).map(u64::from_be_bytes)
    }
}
