use super::super::{Format, Image, ImageError, Options, create};
use super::header::{HEADER_BYTES_MAX, Header};
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// An image with data in places, and its bytes.
fn sample(folder: &TempDir) -> (PathBuf, Vec<u8>) {
    let path = folder.path().join("image");
    create(&path, 4 << 20, Format::Qcow2, false).unwrap();
    let image = Image::open(&path, &Options::default()).unwrap();
    for at in [0, 1 << 20, 3 << 20] {
        image.write_at(at, &[7; 5000]).unwrap();
    }
    image.flush().unwrap();
    drop(image);
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

/// Overwrites bytes of the sample and opens it.
fn opened_with(at: usize, value: &[u8]) -> Result<Image, ImageError> {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut bytes) = sample(&folder);
    bytes[at..][..value.len()].copy_from_slice(value);
    fs::write(&path, bytes).unwrap();
    Image::open(&path, &Options::default())
}

fn refused(at: usize, value: &[u8]) -> String {
    opened_with(at, value).unwrap_err().to_string()
}

fn number(bytes: &[u8], at: usize) -> usize {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (at, value, why) in [
        (4, &2_u32.to_be_bytes()[..], "version 2"),
        (32, &1_u32.to_be_bytes(), "encrypted"),
        (60, &1_u32.to_be_bytes(), "internal snapshots"),
        (72, &1_u64.to_be_bytes(), "was not closed"),
        (72, &2_u64.to_be_bytes(), "marked as damaged"),
        (72, &4_u64.to_be_bytes(), "data are in another file"),
        (72, &16_u64.to_be_bytes(), "incompatible features 0x10"),
        (20, &30_u32.to_be_bytes(), "2^30 bytes"),
        (20, &9_u32.to_be_bytes(), "2^9 bytes"),
    ] {
        let text = refused(at, value);
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn tables_that_are_larger_than_they_can_be_are_refused_before_they_are_read() {
    for (at, value, why) in [
        (36, &u32::MAX.to_be_bytes()[..], "its first table has"),
        (36, &0_u32.to_be_bytes(), "its first table has"),
        (56, &u32::MAX.to_be_bytes(), "table of reference counts has"),
        (56, &0_u32.to_be_bytes(), "table of reference counts has"),
        (24, &u64::MAX.to_be_bytes(), "larger than it may be"),
        (40, &(1_u64 << 50).to_be_bytes(), "it was cut"),
        (40, &7_u64.to_be_bytes(), "does not begin with a cluster"),
        (48, &0_u64.to_be_bytes(), "it was cut"),
        (96, &40_u32.to_be_bytes(), "2^40 bits"),
        (100, &8_u32.to_be_bytes(), "header has 8 bytes"),
        (100, &u32::MAX.to_be_bytes(), "header has"),
        // The length of the first extension.
        (
            108,
            &u32::MAX.to_be_bytes(),
            "extensions of its header do not end",
        ),
        (108, &49_u32.to_be_bytes(), "names of features are cut"),
    ] {
        let text = refused(at, value);
        assert!(text.contains(why), "{at}: {text}");
    }
}

#[test]
fn a_file_that_was_cut_is_refused_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = sample(&folder);
    let cluster = 64 << 10;
    assert!(bytes.len() > 6 * cluster);
    for length in (cluster / 4..bytes.len() - cluster).step_by(cluster / 4) {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = Image::open(&path, &Options::default()).unwrap_err();
        assert!(matches!(error, ImageError::Damaged { .. }), "{length}: {error}");
    }
}

#[test]
fn tables_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = sample(&folder);
    let l1 = number(&bytes, 40);
    let l2 = number(&bytes, l1) & !(1 << 63);
    let refcounts = number(&bytes, number(&bytes, 48));
    let data = number(&bytes, l2) & !(1 << 63);
    let with = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..][..value.len()].copy_from_slice(value);
        fs::write(&path, bytes).unwrap();
        Image::open(&path, &Options::default())
    };
    let mark = 1_u64 << 63;
    for (at, value, why) in [
        (
            l2 + 8,
            (data as u64 | mark).to_be_bytes(),
            "data and something else",
        ),
        (
            l2 + 8,
            (l1 as u64 | mark).to_be_bytes(),
            "data and something else",
        ),
        (l2, ((data as u64 + 512) | mark).to_be_bytes(), "does not begin"),
        (l2, ((1 << 40) | mark).to_be_bytes(), "it was cut"),
        (l1, ((1 << 40) | mark).to_be_bytes(), "it was cut"),
        (refcounts, [0xff; 8], "is counted 65535 times"),
    ] {
        let text = with(at, &value).unwrap_err().to_string();
        assert!(text.contains("is damaged") && text.contains(why), "{why}: {text}");
    }
    // What is not counted is counted before it is written.
    drop(with(refcounts + 2, &[0; 6]).unwrap());
    assert!(
        fs::read(&path).unwrap() == bytes,
        "the counts are not as they were"
    );
    // What nothing refers to costs room, nothing else.
    let image = with(l2, &[0; 8]).unwrap();
    assert_eq!(image.checked().unwrap().leaked_clusters, 1);
    assert_eq!(image.checked().unwrap().data_clusters, 2);
}

#[test]
fn a_name_of_another_file_is_never_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut bytes) = sample(&folder);
    let name = b"/etc/hostname";
    bytes[8..16].copy_from_slice(&4096_u64.to_be_bytes());
    bytes[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
    bytes[4096..][..name.len()].copy_from_slice(name);
    fs::write(&path, bytes).unwrap();
    let error = Image::open(&path, &Options::default()).unwrap_err();
    assert!(
        error.to_string().contains("it is an overlay of /etc/hostname"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_a_header_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..4096), file in any::<u64>()) {
        let magic = b"QFI\xfb\0\0\0\x03";
        let length = bytes.len().min(magic.len());
        bytes[..length].copy_from_slice(&magic[..length]);
        bytes.resize(HEADER_BYTES_MAX, 0);
        let read = Header::read(&bytes, file);
        let is_bounded = |header: &Header| header.l1_entries <= 4 << 20 && header.refcount_clusters <= 2048;
        prop_assert!(read.as_ref().map_or(true, is_bounded), "{:?}", read);
    }

    /// What is opened all the same is read and written without a panic.
    #[test]
    fn a_sample_with_bytes_of_its_tables_changed_never_panics(
        changes in prop::collection::vec((0..7_usize, 0..512_usize, any::<u8>()), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut bytes) = sample(&folder);
        for (cluster, at, value) in changes {
            bytes[cluster * (64 << 10) + at] = value;
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(image) = Image::open(&path, &Options { direct: false, ..Options::default() }) {
            let mut buffer = vec![0; 1 << 16];
            for at in (0..image.size_bytes().min(4 << 20)).step_by(1 << 16) {
                let length = buffer.len().min((image.size_bytes() - at) as usize);
                let _ = image.read_at(at, &mut buffer[..length]);
                let _ = image.write_at(at, &buffer[..length / 2]);
            }
            let _ = image.discard(0, image.size_bytes().min(4 << 20));
            let _ = image.flush();
        }
    }
}

/// The sample with its third cluster with data in compressed form, as `qemu-img convert -c` writes
/// them: raw deflate, at the end of the file, in units of 512 bytes.
#[test]
fn a_compressed_cluster_is_read_and_replaced_when_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut bytes) = sample(&folder);
    let content: Vec<u8> = (0..65_536_u32).map(|index| (index / 300) as u8).collect();
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&content).unwrap();
    let packed = encoder.finish().unwrap();
    let cluster = bytes.len().div_ceil(65_536);
    let offset = cluster * 65_536;
    bytes.resize(offset, 0);
    bytes.extend_from_slice(&packed);
    let sectors = (packed.len() - 1) / 512;
    let entry = 1_u64 << 62 | (sectors as u64) << 54 | offset as u64;
    let l2 = number(&bytes, number(&bytes, 40)) & !(1 << 63);
    bytes[l2 + 48 * 8..][..8].copy_from_slice(&entry.to_be_bytes());
    let refcounts = number(&bytes, number(&bytes, 48));
    bytes[refcounts + cluster * 2..][..2].copy_from_slice(&1_u16.to_be_bytes());
    // The cluster of the data that were there is given back.
    let replaced = 3 << 20 >> 16;
    assert_eq!(replaced, 48);
    fs::write(&path, &bytes).unwrap();
    let image = Image::open(&path, &Options::default()).unwrap();
    let mut found = vec![0; content.len()];
    image.read_at(3 << 20, &mut found).unwrap();
    assert!(found == content);
    image.write_at((3 << 20) + 100, &[9; 50]).unwrap();
    image.flush().unwrap();
    drop(image);
    let image = Image::open(&path, &Options::default()).unwrap();
    let mut expected = content;
    expected[100..150].fill(9);
    image.read_at(3 << 20, &mut found).unwrap();
    assert!(found == expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// What is in the file after each step is what a process that is killed leaves.
    #[test]
    fn a_process_that_is_killed_leaves_a_sound_image_with_what_was_flushed(
        steps in prop::collection::vec((0..60_u64, 1..3_u64, 0..6_u8), 1..25),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (path, left) = (folder.path().join("image"), folder.path().join("left"));
        let (size, unit) = (60 * 65_536_u64, 65_536_u64);
        create(&path, size, Format::Qcow2, false).unwrap();
        let image = Image::open(&path, &Options::default()).unwrap();
        // Of each unit what a flush has made durable; none where it was written since.
        let mut now = [0_u8; 60];
        let mut durable = [Some(0_u8); 60];
        for (number, (first, units, kind)) in steps.into_iter().enumerate() {
            let units = first..(first + units).min(60);
            let length = (units.end - units.start) * unit;
            let value = match kind {
                0 => {
                    image.flush().unwrap();
                    durable = now.map(Some);
                    None
                }
                1 => {
                    image.discard(first * unit, length).unwrap();
                    Some(0)
                }
                _ => {
                    let value = number as u8 + 1;
                    image.write_at(first * unit, &vec![value; length as usize]).unwrap();
                    Some(value)
                }
            };
            for index in units {
                if let Some(value) = value {
                    now[index as usize] = value;
                    durable[index as usize] = None;
                }
            }
            fs::copy(&path, &left).unwrap();
            let left = Image::open(&left, &Options::default());
            let left = left.map_err(|why| TestCaseError::fail(why.to_string()))?;
            for (index, expected) in durable.iter().enumerate() {
                let mut found = [0; 512];
                left.read_at(index as u64 * unit + 700, &mut found).unwrap();
                prop_assert!(expected.is_none_or(|value| found == [value; 512]), "unit {index} after step {number}");
            }
        }
    }
}

/// Data behind the clusters that the first block of counts has, whose own block was not in the table
/// yet when its process was killed.
#[test]
fn a_block_of_counts_that_is_missing_is_made_and_those_who_only_read_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = sample(&folder);
    let l2 = number(&bytes, number(&bytes, 40)) & !(1 << 63);
    let far = 40_000_u64 << 16;
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&(far | 1 << 63).to_be_bytes(), l2 as u64 + 8 * 8)
        .unwrap();
    file.write_all_at(&[6; 65_536], far).unwrap();
    let read_only = Options {
        read_only: true,
        ..Options::default()
    };
    let uncounted = |options: &Options| {
        let image = Image::open(&path, options).unwrap();
        image.checked().unwrap().uncounted_clusters
    };
    assert_eq!(uncounted(&read_only), 1);
    assert_eq!(uncounted(&read_only), 1);
    let image = Image::open(&path, &Options::default()).unwrap();
    assert_eq!(image.checked().unwrap().uncounted_clusters, 0);
    image.write_at(2 << 20, &[9; 65_536]).unwrap();
    image.flush().unwrap();
    drop(image);
    assert_eq!(uncounted(&read_only), 0);
    let image = Image::open(&path, &read_only).unwrap();
    for (at, value) in [(0, 7), (8 << 16, 6), (1 << 20, 7), (2 << 20, 9), (3 << 20, 7)] {
        let mut found = [0; 5000];
        image.read_at(at, &mut found).unwrap();
        assert!(found == [value; 5000], "{at}");
    }
}

/// A guest that writes the header of a qcow2 image to its raw disk has not made one.
#[test]
fn a_header_that_is_not_counted_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut bytes) = sample(&folder);
    let refcounts = number(&bytes, number(&bytes, 48));
    bytes[refcounts..refcounts + 2].fill(0);
    fs::write(&path, &bytes).unwrap();
    let error = Image::open(&path, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("its header is not counted"), "{error}");
    assert!(fs::read(&path).unwrap() == bytes);
}
