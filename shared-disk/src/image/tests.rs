use super::*;
use proptest::prelude::*;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

mod looking;

const FORMATS: [Format; 2] = [Format::Raw, Format::Qcow2];
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn read_only() -> Options {
    Options {
        read_only: true,
        ..Options::default()
    }
}

fn made(folder: &TempDir, name: &str, size_bytes: u64, format: Format) -> PathBuf {
    let path = folder.path().join(name);
    create(&path, size_bytes, format, false).unwrap();
    path
}

fn content(image: &Image) -> Vec<u8> {
    let mut bytes = vec![1; image.size_bytes() as usize];
    image.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Text of an error and its hint.
fn refused(path: &Path, options: &Options) -> (String, &'static str) {
    let error = Image::open(path, options).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    (text, error.hint().unwrap_or_default())
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Zero(u64, u64, bool),
    Flush,
    Reopen,
}

/// Steps on a disk of `size_bytes`, at places and lengths of any alignment.
fn steps(size_bytes: u64) -> impl Strategy<Value = Vec<Step>> {
    let lengths = prop_oneof![1..70_000_u64, Just(512), Just(4096), Just(65536)];
    let places = (0..size_bytes, lengths, any::<bool>()).prop_map(move |(at, length, aligned)| {
        let at = if aligned { at - at % 4096 } else { at };
        (at, length.min(size_bytes - at))
    });
    let step = (places, any::<u8>(), 0..8_u8).prop_map(|((at, length), byte, kind)| match kind {
        0 => Step::Flush,
        1 => Step::Reopen,
        2 => Step::Zero(at, length, true),
        3 => Step::Zero(at, length, false),
        _ => {
            let bytes = (0..length).map(|index| byte.wrapping_add(index as u8)).collect();
            Step::Write(at, bytes)
        }
    });
    prop::collection::vec(step, 1..20)
}

fn carry_out(image: &mut Option<Image>, path: &Path, options: &Options, model: &mut [u8], step: &Step) {
    let open = image.as_ref().unwrap();
    match step {
        Step::Write(at, bytes) => {
            open.write_at(*at, bytes).unwrap();
            model[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        Step::Zero(at, length, may_unmap) => {
            open.write_zeroes(*at, *length, *may_unmap).unwrap();
            model[*at as usize..][..*length as usize].fill(0);
        }
        Step::Flush => open.flush().unwrap(),
        Step::Reopen => {
            open.flush().unwrap();
            *image = None;
            *image = Some(Image::open(path, options).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn images_of_both_formats_hold_what_was_written(steps in steps(300 * KIB + 512), direct: bool) {
        let folder = folder();
        let size = 300 * KIB + 512;
        let size = if direct { size - 512 } else { size };
        let mut digests = Vec::new();
        for format in FORMATS {
            let path = made(&folder, &format.to_string(), size, format);
            let options = Options { direct, ..Options::default() };
            let mut image = Some(Image::open(&path, &options).unwrap());
            let mut model = vec![0; size as usize];
            for step in &steps {
                let within = match step {
                    Step::Write(at, bytes) => at + bytes.len() as u64 <= size,
                    Step::Zero(at, length, _) => at + length <= size,
                    Step::Flush | Step::Reopen => true,
                };
                if within {
                    carry_out(&mut image, &path, &options, &mut model, step);
                }
            }
            let image = image.unwrap();
            image.flush().unwrap();
            prop_assert!(content(&image) == model, "{format} differs from the model");
            let mut in_ranges = vec![0; size as usize];
            for range in image.data_ranges() {
                let range = range.unwrap();
                let range = range.start as usize..range.end as usize;
                in_ranges[range.clone()].copy_from_slice(&model[range]);
            }
            prop_assert!(in_ranges == model, "data of {format} are outside its ranges");
            for found in image.block_digests(0..u64::MAX) {
                let (block, digest) = found.unwrap();
                let bytes = &model[(block * COPY_BLOCK_BYTES) as usize..];
                let bytes = &bytes[..bytes.len().min(COPY_BLOCK_BYTES as usize)];
                prop_assert_eq!(digest, *blake3::hash(bytes).as_bytes());
            }
            digests.push(image.digest().unwrap());
        }
        prop_assert_eq!(digests[0], digests[1]);
    }
}

/// Whatever the file system has, the image says what it does.
#[test]
fn o_direct_is_on_exactly_where_an_image_says_so() {
    let folder = folder();
    let written = |format, direct| Options {
        format: Some(format),
        direct,
        ..Options::default()
    };
    let cases = [
        (Format::Raw, written(Format::Raw, true)),
        (Format::Raw, written(Format::Raw, false)),
        (Format::Qcow2, written(Format::Qcow2, true)),
        (Format::Raw, read_only()),
    ];
    for (number, (format, options)) in cases.into_iter().enumerate() {
        let path = made(&folder, &number.to_string(), MIB, format);
        let image = Image::open(&path, &options).unwrap();
        let flags = nix::fcntl::fcntl(image.file(), nix::fcntl::FcntlArg::F_GETFL).unwrap();
        let is_direct = matches!(image.access(), Access::Direct { .. });
        assert_eq!(flags & nix::libc::O_DIRECT != 0, is_direct);
        let align_bytes = image.raw().map(|raw| raw.align_bytes);
        assert_eq!(align_bytes.is_some_and(|align| align > 1), is_direct);
        let may_be = options.direct && !options.read_only && format == Format::Raw;
        assert!(may_be || !is_direct, "{}", image.access());
    }
}

#[test]
fn a_second_user_is_refused_and_the_first_is_named() {
    let folder = folder();
    for format in FORMATS {
        let path = made(&folder, &format.to_string(), MIB, format);
        let link = folder.path().join(format!("link-{format}"));
        fs::hard_link(&path, &link).unwrap();
        let first = Image::open(&path, &Options::default()).unwrap();
        for options in [Options::default(), read_only()] {
            let (text, hint) = refused(&path, &options);
            assert!(
                text.contains("in use by this process: it was given twice"),
                "{text}"
            );
            assert!(hint.contains("one user"), "{hint}");
            assert!(matches!(
                Image::open(&link, &options),
                Err(ImageError::InUse { .. })
            ));
        }
        drop(first);
        let readers = [&path, &link].map(|path| Image::open(path, &read_only()).unwrap());
        let (text, _) = refused(&path, &Options::default());
        assert!(text.contains("in use"), "{text}");
        drop(readers);
        Image::open(&path, &Options::default()).unwrap();
    }
}

#[test]
fn a_disk_that_is_only_read_is_not_written() {
    let folder = folder();
    for format in FORMATS {
        let path = made(&folder, &format.to_string(), MIB, format);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        let (text, hint) = refused(&path, &Options::default());
        assert!(text.contains("is read-only"), "{text}");
        assert!(hint.contains("IMAGE,read-only"), "{hint}");
        let image = Image::open(&path, &read_only()).unwrap();
        assert!(image.read_only());
        for outcome in [
            image.write_at(0, &[1]),
            image.discard(0, 512),
            image.write_zeroes(0, 512, false),
        ] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        }
        image.flush().unwrap();
        assert!(content(&image).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn nothing_is_done_beyond_the_end() {
    let folder = folder();
    for format in FORMATS {
        let path = made(&folder, &format.to_string(), MIB, format);
        let image = Image::open(&path, &Options::default()).unwrap();
        for (offset, length) in [(MIB - 511, 512), (MIB, 1), (u64::MAX, 2), (0, MIB + 1)] {
            let mut bytes = vec![0; length.min(2 * MIB) as usize];
            for outcome in [
                image.read_at(offset, &mut bytes),
                image.write_at(offset, &bytes),
                image.discard(offset, length),
            ] {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidInput);
            }
        }
        image.read_at(MIB, &mut []).unwrap();
    }
}

#[test]
fn sizes_that_no_disk_has_are_refused() {
    let folder = folder();
    let path = folder.path().join("image");
    let blocks = |block_bytes| Options {
        block_bytes,
        ..Options::default()
    };
    for (size, block_bytes, why) in [
        (0, 512, "it is empty"),
        (513, 512, "not a multiple of its blocks of 512"),
        (4096 + 512, 4096, "not a multiple of its blocks of 4096"),
        (512, 1024, "512 or 4,096"),
    ] {
        fs::write(&path, vec![0; size]).unwrap();
        let (text, hint) = refused(&path, &blocks(block_bytes));
        assert!(text.contains(why), "{text}");
        assert!(hint.contains("truncate"), "{hint}");
    }
    fs::write(&path, vec![0; 4096 + 512]).unwrap();
    assert_eq!(Image::open(&path, &blocks(512)).unwrap().size_bytes(), 4608);
    let other = folder.path().join("other");
    for format in FORMATS {
        for size in [0, 511, SIZE_BYTES_MAX + 512] {
            let error = create(&other, size, format, false).unwrap_err();
            assert!(matches!(error, ImageError::Size { .. }), "{error}");
            assert!(!other.exists());
        }
    }
}

#[test]
fn files_that_are_no_images_are_refused_by_name() {
    let folder = folder();
    let path = folder.path().join("image");
    for (first, what) in [
        (&b"KDMV"[..], "a VMDK image"),
        (b"vhdxfile", "a VHDX image"),
        (b"\x1f\x8b\x08", "compressed by gzip"),
        (b"\x7fELF", "an ELF file"),
    ] {
        let mut bytes = vec![0; 4096];
        bytes[..first.len()].copy_from_slice(first);
        fs::write(&path, &bytes).unwrap();
        let (text, hint) = refused(&path, &Options::default());
        assert!(text.contains(what), "{text}");
        assert!(hint.contains("qemu-img convert"), "{hint}");
        // Who knows better is believed.
        let options = Options {
            format: Some(Format::Raw),
            ..Options::default()
        };
        Image::open(&path, &options).unwrap();
        let options = Options {
            format: Some(Format::Qcow2),
            ..options
        };
        let (text, _) = refused(&path, &options);
        assert!(text.contains("is not qcow2"), "{text}");
    }
    let (text, hint) = refused(folder.path(), &Options::default());
    assert!(text.contains("cannot open image"), "{text}");
    assert!(hint.contains("regular file"), "{hint}");
    let (_, hint) = refused(&folder.path().join("none"), &Options::default());
    assert!(hint.contains("lockstep disk create"), "{hint}");
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    refused(&fifo, &Options::default());
}

#[test]
fn what_is_recorded_beside_an_image_counts_more_than_its_first_bytes() {
    let folder = folder();
    let path = made(&folder, "disk", MIB, Format::Raw);
    let image = Image::open(&path, &Options::default()).unwrap();
    // A guest writes the header of a qcow2 image to its raw disk.
    let other = made(&folder, "other", MIB, Format::Qcow2);
    image.write_at(0, &fs::read(&other).unwrap()[..4096]).unwrap();
    let identity = Identity {
        name: "web".parse().unwrap(),
        machine: crate::MachineId([7; 16]),
        generation: crate::Generation(1),
        side: crate::Line::shortened("left"),
        clean: true,
        format: image.format(),
        size_bytes: image.size_bytes(),
    };
    identity.write(&path).unwrap();
    drop(image);
    let image = Image::open(&path, &Options::default()).unwrap();
    assert_eq!(image.format(), Format::Raw);
    drop(image);
    fs::remove_file(Identity::path(&path)).unwrap();
    assert!(Image::open(&path, &Options::default()).is_err());
}

#[test]
fn an_overlay_leaves_its_base_as_it_is() {
    let folder = folder();
    for format in FORMATS {
        let path = made(&folder, &format.to_string(), MIB, format);
        let image = Image::open(&path, &Options::default()).unwrap();
        image.write_at(100_000, &[7; 5000]).unwrap();
        image.flush().unwrap();
        drop(image);
        let before = fs::read(&path).unwrap();
        let base = Arc::new(Image::open(&path, &read_only()).unwrap());
        let mut expected = content(&base);
        let over = folder.path().join(format!("over-{format}"));
        let change = |image: &Image, expected: &mut [u8]| {
            assert!(content(image) == *expected);
            image.write_at(101_000, &[8; 100]).unwrap();
            image.discard(103_000, 500).unwrap();
            image.discard(0, 65536).unwrap();
            image.flush().unwrap();
            expected[101_000..101_100].fill(8);
            expected[103_000..103_500].fill(0);
            assert!(content(image) == *expected);
        };
        let throwaway =
            Image::throwaway_overlay(folder.path(), Arc::clone(&base), &Options::default()).unwrap();
        change(&throwaway, &mut expected.clone());
        let kept = Image::create_overlay(&over, Arc::clone(&base), &Options::default()).unwrap();
        change(&kept, &mut expected);
        assert!(matches!(
            Image::create_overlay(&over, Arc::clone(&base), &Options::default()),
            Err(ImageError::Exists { .. })
        ));
        drop(kept);
        let again = Image::overlay(&over, Arc::clone(&base), &Options::default()).unwrap();
        assert!(content(&again) == expected);
        assert!(
            fs::read(&path).unwrap() == before,
            "the {format} base was changed"
        );
        // The base is held as long as an overlay of it is.
        drop((base, throwaway));
        refused(&path, &Options::default());
        drop(again);
        Image::open(&path, &Options::default()).unwrap();
        let (text, _) = refused(&over, &Options::default());
        assert!(text.contains("it is an overlay of"), "{text}");
    }
}

#[test]
fn an_overlay_has_the_size_of_its_base() {
    let folder = folder();
    let [small, large] = [MIB, 2 * MIB].map(|size| {
        let path = made(&folder, &size.to_string(), size, Format::Raw);
        Arc::new(Image::open(&path, &read_only()).unwrap())
    });
    let over = folder.path().join("over");
    drop(Image::create_overlay(&over, small, &Options::default()).unwrap());
    let error = Image::overlay(&over, Arc::clone(&large), &Options::default()).unwrap_err();
    assert!(matches!(error, ImageError::Size { .. }), "{error}");
    let plain = made(&folder, "plain", 2 * MIB, Format::Qcow2);
    let error = Image::overlay(&plain, large, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("not an overlay"), "{error}");
}

#[test]
fn an_image_is_made_whole_and_once() {
    let folder = folder();
    for format in FORMATS {
        let path = made(&folder, &format.to_string(), MIB, format);
        let error = create(&path, MIB, format, false).unwrap_err();
        assert!(matches!(error, ImageError::Exists { .. }), "{error}");
        let dangling = folder.path().join(format!("dangling-{format}"));
        symlink(folder.path().join("nowhere"), &dangling).unwrap();
        create(&dangling, MIB, format, false).unwrap_err();
        let full = folder.path().join(format!("full-{format}"));
        create(&full, 4 * MIB, format, true).unwrap();
        let taken = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&full).unwrap()) * 512;
        assert!(taken >= 4 * MIB, "{taken}");
        let image = Image::open(&full, &Options::default()).unwrap();
        assert!(content(&image).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_sparse_terabyte_costs_what_is_in_it() {
    let folder = folder();
    let digests = FORMATS.map(|format| {
        let path = made(&folder, &format.to_string(), 1 << 40, format);
        let image = Image::open(&path, &Options::default()).unwrap();
        image.write_at((1 << 39) + 5, b"in the middle").unwrap();
        image.flush().unwrap();
        let ranges: Vec<_> = image.data_ranges().map(Result::unwrap).collect();
        assert!(ranges.len() == 1 && ranges[0].contains(&(1 << 39)), "{ranges:?}");
        let middle = (1 << 39) / COPY_BLOCK_BYTES;
        let found: Vec<_> = image.block_digests(middle - 1..middle + 2).collect();
        found.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    });
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0][0].1, digests[0][2].1);
    assert_ne!(digests[0][0].1, digests[0][1].1);
}

#[test]
fn a_sync_that_failed_is_not_followed_by_one_that_succeeds() {
    let folder = folder();
    let path = made(&folder, "disk", MIB, Format::Raw);
    let image = Image::open(&path, &Options::default()).unwrap();
    image.flush().unwrap();
    // One that waits for a sync that fails is a later one.
    let mut syncing = image.unsynced.lock().unwrap();
    let flushed = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| image.flush());
        *syncing = true;
        drop(syncing);
        waiting.join().unwrap()
    });
    for error in [flushed, image.flush()].map(Result::unwrap_err) {
        assert!(error.to_string().contains("earlier sync"), "{error}");
    }
}
