use super::*;
use lockstep_core::machine::disk::Operation;
use lockstep_shared_disk::image::{Format, Options, create};
use lockstep_shared_disk::{Line, MachineId};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const SIZE_BYTES: u64 = 64 << 20;
const REGION_BYTES: u64 = REGION_BLOCKS * COPY_BLOCK_BYTES;
const JOIN: [u8; 16] = [5; 16];
const STATE: Equal = Equal {
    join: JOIN,
    number: JOINED,
    generation: Generation(2),
};

/// An image of a machine in `folder`.
fn image(folder: &Path) -> Image {
    let path = folder.join("a.img");
    create(&path, SIZE_BYTES, Format::Raw, false).unwrap();
    let identity = Identity {
        name: "web".parse().unwrap(),
        machine: MachineId([9; 16]),
        generation: Generation(1),
        side: Line::shortened("holder"),
        clean: false,
        format: Format::Raw,
        size_bytes: SIZE_BYTES,
    };
    identity.write(&path).unwrap();
    Image::open(&path, &Options::default()).unwrap()
}

fn write(number: u64, offset_bytes: u64) -> Request {
    let operation = Operation::Write {
        offset_bytes,
        bytes: vec![1; 512],
    };
    Request { number, operation }
}

/// Asks for a write of a block in region `nth`, and carries it out but for the bytes.
fn writes(changes: &KeptChanges, number: u64, nth: u64) {
    let offset_bytes = nth * REGION_BYTES;
    changes.ask(&write(number, offset_bytes));
    changes
        .mark(Some(number), &(offset_bytes..offset_bytes + 512))
        .unwrap();
}

fn flush(changes: &KeptChanges, number: u64) {
    changes.ask(&Request {
        number,
        operation: Operation::Flush,
    });
    changes.flushed(number).unwrap();
}

/// Regions that the file has, read again.
fn regions(image: &Image) -> Vec<u64> {
    let file = ChangedBlocks::open(image.path(), SIZE_BYTES).unwrap().unwrap();
    let blocks = file.blocks().into_iter().flatten();
    blocks
        .step_by(REGION_BLOCKS as usize)
        .map(|block| block / REGION_BLOCKS)
        .collect()
}

fn states(image: &Image) -> Vec<u64> {
    let file = ChangedBlocks::open(image.path(), SIZE_BYTES).unwrap().unwrap();
    file.equal().iter().map(|state| state.number).collect()
}

/// A holder that has just been joined.
fn joined(image: &Image) -> KeptChanges {
    let changes = KeptChanges::open(image).unwrap();
    changes.join([]);
    assert_eq!(changes.record_join(JOIN, Generation(2), &[]), Some(STATE));
    changes.joined();
    changes
}

#[test]
fn an_image_without_a_bitmap_gets_one_by_a_join_with_what_was_written_since() {
    let folder = TempDir::new().unwrap();
    let image = image(folder.path());
    let changes = KeptChanges::open(&image).unwrap();
    assert_eq!(changes.known().unwrap_err(), "there is none");
    writes(&changes, 0, 3);
    changes.join([]);
    writes(&changes, 1, 5);
    changes.record_join(JOIN, Generation(2), &[]).unwrap();
    assert_eq!(regions(&image), [5], "region 3 was written before");
    writes(&changes, 2, 7);
    changes.joined();
    assert_eq!(regions(&image), [5, 7]);
    let known = changes.known().unwrap();
    assert_eq!(known.equal, [STATE]);
}

#[test]
fn the_older_state_stays_until_the_newcomer_has_recorded_the_join() {
    let folder = TempDir::new().unwrap();
    let image = image(folder.path());
    drop(joined(&image));
    let changes = KeptChanges::open(&image).unwrap();
    writes(&changes, 0, 1);
    changes.join([]);
    writes(&changes, 1, 2);
    let next = [6; 16];
    changes.record_join(next, Generation(3), &[STATE]).unwrap();
    let file = ChangedBlocks::open(image.path(), SIZE_BYTES).unwrap().unwrap();
    assert!(file.equal().contains(&STATE) && file.equal().len() == 2);
    assert_eq!(regions(&image), [1, 2]);
    changes.joined();
    assert_eq!(regions(&image), [2]);
}

#[test]
fn a_join_that_fails_clears_nothing() {
    let folder = TempDir::new().unwrap();
    let image = image(folder.path());
    let changes = joined(&image);
    writes(&changes, 0, 1);
    changes.join([]);
    writes(&changes, 1, 2);
    changes.alone();
    changes.joined();
    assert_eq!(regions(&image), [1, 2]);
    assert_eq!(changes.record_join(JOIN, Generation(3), &[STATE]), None);
}

#[test]
fn a_flush_clears_older_marks_when_both_sides_have_it() {
    let folder = TempDir::new().unwrap();
    let image = image(folder.path());
    let changes = joined(&image);
    (0..CHANGES_MIN).for_each(|number| writes(&changes, number, number % 3));
    flush(&changes, CHANGES_MIN);
    writes(&changes, CHANGES_MIN + 1, 9);
    assert_eq!(states(&image), [JOINED, CHANGES_MIN + 1]);
    assert_eq!(regions(&image), [0, 1, 2, 9]);
    assert!(changes.awaits(CHANGES_MIN));
    changes.logged(CHANGES_MIN, Sequence(50));
    changes.both_have(Reached::Replayed(Sequence(49)));
    assert_eq!(regions(&image), [0, 1, 2, 9], "the backup does not have it");
    changes.both_have(Reached::Replayed(Sequence(50)));
    assert_eq!(
        (states(&image), regions(&image)),
        (vec![CHANGES_MIN + 1], vec![9])
    );
    // Marks after that are made in the file that is there now.
    writes(&changes, CHANGES_MIN + 2, 11);
    assert_eq!(regions(&image), [9, 11]);
}

#[test]
fn a_side_alone_keeps_all_marks() {
    let folder = TempDir::new().unwrap();
    let image = image(folder.path());
    let changes = joined(&image);
    changes.alone();
    (0..CHANGES_MIN).for_each(|number| writes(&changes, number, number % 3));
    flush(&changes, CHANGES_MIN);
    assert_eq!((states(&image), regions(&image)), (vec![JOINED], vec![0, 1, 2]));
}

#[test]
fn a_bitmap_that_cannot_be_written_is_removed_before_the_block_is_written() {
    let folder = TempDir::new().unwrap();
    let image = image(folder.path());
    let changes = joined(&image);
    changes.forget("a test").unwrap();
    assert!(!ChangedBlocks::path(image.path()).exists());
    changes.mark(None, &(0..1)).unwrap();
    assert_eq!(changes.known().unwrap_err(), "a test");
}

#[test]
fn one_that_is_damaged_or_of_an_image_that_belongs_to_nobody_is_removed() {
    let folder = TempDir::new().unwrap();
    let image = image(folder.path());
    let path = ChangedBlocks::path(image.path());
    drop(joined(&image));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let why = KeptChanges::open(&image).unwrap().known().unwrap_err();
    assert!(why.contains("damaged"), "{why}");
    assert!(!path.exists());
    drop(joined(&image));
    fs::remove_file(Identity::path(image.path())).unwrap();
    KeptChanges::open(&image).unwrap().known().unwrap_err();
    assert!(!path.exists());
}

#[test]
fn a_newcomers_bitmap_begins_without_marks() {
    let folder = TempDir::new().unwrap();
    let image = image(folder.path());
    let changes = KeptChanges::open(&image).unwrap();
    changes.mark(None, &(0..100)).unwrap();
    changes.begin_equal(STATE).unwrap();
    writes(&changes, 12, 2);
    assert_eq!((states(&image), regions(&image)), (vec![JOINED], vec![2]));
}
