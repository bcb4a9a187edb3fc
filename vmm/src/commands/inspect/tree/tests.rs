//! Small file systems, made by mke2fs, whole and damaged: each gets an answer, and none stops the
//! reading.

use super::*;
use lockstep_shared_disk::image::Options;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const BOUND: Duration = Duration::from_secs(300);
/// Damaged images of each kind.
const IMAGES: u64 = 400;

/// Size of an image.
const SIZE_KIB: &str = "512";

/// An image with folders, a file of several extents, links, and a file that is called a module.
fn image(folder: &Path, features: &str) -> PathBuf {
    let tree = folder.join("tree");
    std::fs::create_dir_all(tree.join("lib/modules")).unwrap();
    std::fs::write(tree.join("lib/modules/text.ko"), "it is not a module").unwrap();
    std::fs::write(tree.join("lib/modules/large.ko"), vec![0x5a; 70_000]).unwrap();
    for number in 0..40 {
        std::fs::write(tree.join(format!("a-long-name-of-a-file-{number}")), [7; 3000]).unwrap();
    }
    std::os::unix::fs::symlink("lib", tree.join("link")).unwrap();
    let image = folder.join("image");
    let mut make = Command::new("/sbin/mke2fs");
    make.args(["-q", "-t", "ext4", "-b", "1024", "-N", "64", "-O", features, "-d"]);
    let made = make.arg(&tree).arg(&image).arg(SIZE_KIB).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    image
}

fn looked_at(path: &Path) -> Result<Tree, String> {
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    read_within(BOUND, Image::open(path, &options).unwrap())
}

/// The next of numbers that look random (Steele and others, SplitMix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[test]
fn every_file_is_counted_and_what_is_called_a_module_is_looked_at() {
    for features in [
        "metadata_csum",
        "^metadata_csum,^64bit",
        "^extent,^64bit,^metadata_csum,^has_journal",
    ] {
        let folder = TempDir::new().unwrap();
        let tree = looked_at(&image(folder.path(), features)).unwrap();
        assert_eq!((tree.modules, tree.refused), (2, 2), "{tree:?}");
        // The folders lib, lib/modules and lost+found, and the link.
        assert_eq!(tree.entries, 2 + 40 + 4, "{tree:?}");
        let named: Vec<String> = tree.named.iter().map(ToString::to_string).collect();
        assert!(
            named
                .iter()
                .any(|name| name.starts_with("/lib/modules/text.ko (cannot be read")),
            "{named:?}"
        );
    }
}

#[test]
fn a_superblock_that_asks_for_too_much_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = image(folder.path(), "^metadata_csum");
    let whole = std::fs::read(&path).unwrap();
    for (at, bytes, named) in [
        (0x18, &[21, 0, 0, 0][..], "size of blocks"),
        (0x4, &[0xff; 4], "it is cut off"),
        (0x150, &[1, 0, 0, 0], "it is cut off"),
        (0x20, &[0; 4], "groups of 0"),
        (0x58, &[1, 0], "inodes of 1 bytes"),
        (0x58, &[0, 8], "inodes of 2048 bytes"),
        (0xfe, &[0xff, 0xff], "descriptors of 65535 bytes"),
    ] {
        let mut damaged = whole.clone();
        damaged[1024 + at..1024 + at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, damaged).unwrap();
        let why = looked_at(&path).unwrap_err();
        assert!(why.contains(named), "{named}: {why}");
    }
}

#[test]
fn an_inode_without_room_for_its_checksum_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = image(folder.path(), "metadata_csum");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&128_u16.to_le_bytes(), 1024 + 0x58).unwrap();
    let why = looked_at(&path).unwrap_err();
    assert!(why.contains("inodes of 128 bytes"), "{why}");
}

#[test]
fn damaged_images_get_an_answer() {
    let mut answers = [0; 2];
    for features in ["^metadata_csum", "^extent,^64bit,^metadata_csum,^has_journal"] {
        let folder = TempDir::new().unwrap();
        let path = image(folder.path(), features);
        let whole = std::fs::read(&path).unwrap();
        // Blocks with data are the fewest.
        let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
        for seed in 0..IMAGES {
            let mut state = seed;
            let mut damaged = whole.clone();
            for _ in 0..1 + next(&mut state) % 4 {
                let near = used[next(&mut state) as usize % used.len()];
                let at = (near + next(&mut state) as usize % 4).min(damaged.len() - 1);
                damaged[at] = next(&mut state) as u8;
            }
            let cut = next(&mut state).is_multiple_of(8);
            if cut {
                damaged.truncate(
                    (next(&mut state) as usize % damaged.len())
                        .next_multiple_of(512)
                        .max(4096),
                );
            }
            std::fs::write(&path, damaged).unwrap();
            let found = looked_at(&path);
            answers[usize::from(found.is_err())] += 1;
            let why = found.err().unwrap_or_default();
            let stopped = why.contains("stopped the reading") || why.contains("was not read within");
            assert!(!stopped, "seed {seed} of {features}: {why}");
        }
    }
    // Both kinds of answers are among them.
    assert!(answers.iter().all(|count| *count > 0), "{answers:?}");
}
