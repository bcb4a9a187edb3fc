use super::bits::{PAGE_BITS, PAGE_BYTES};
use super::*;
use proptest::prelude::*;
use std::sync::Barrier;

/// Blocks of the model's disk: two pages of bits, and a part of a third.
const BLOCKS: u64 = 2 * PAGE_BITS + 100;

/// A step of whoever marks and writes.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody wants to write a block.
    Ask(u64),
    /// Pages are taken to be written, where none are.
    Start,
    /// The next of them is written to the cache of the host.
    Write,
    /// The sync works: everything in the cache is durable.
    Sync,
    /// The sync fails: the cache keeps some, forgets the rest, and calls nothing dirty.
    Fail(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // Few blocks, so that they meet: in one byte, in one page, at the borders of pages.
    let page = PAGE_BITS;
    let near = [
        0,
        1,
        7,
        8,
        page - 1,
        page,
        page + 1,
        2 * page - 1,
        2 * page,
        BLOCKS - 1,
    ];
    let block = prop_oneof![prop::sample::select(near.to_vec()), 0..BLOCKS];
    prop_oneof![
        4 => block.prop_map(Step::Ask),
        3 => Just(Step::Start),
        4 => Just(Step::Write),
        2 => Just(Step::Sync),
        1 => any::<u64>().prop_map(Step::Fail),
    ]
}

/// A file whose bytes become durable by a sync, or by chance.
struct Host {
    durable: Vec<u8>,
    cache: Vec<(usize, Vec<u8>)>,
}

impl Host {
    /// What is found after a loss of power: of each byte in the cache the old or the new value.
    fn after_crash(&self, chance: u64) -> Bits {
        let mut chance = chance;
        let mut bytes = self.durable.clone();
        for (page, content) in &self.cache {
            for (index, byte) in content.iter().enumerate() {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if chance >> 63 == 1 {
                    bytes[page * PAGE_BYTES + index] = *byte;
                }
            }
        }
        Bits::from_bytes(bytes, BLOCKS).unwrap()
    }

    fn sync(&mut self) {
        for (page, content) in self.cache.drain(..) {
            self.durable[page * PAGE_BYTES..][..content.len()].copy_from_slice(&content);
        }
    }
}

/// The model: what was asked for, and what was therefore written to the disk.
struct Model {
    batch: Batch,
    host: Host,
    taken: Vec<Page>,
    asked: Vec<u64>,
    written: Vec<u64>,
}

impl Model {
    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Ask(block) => {
                self.batch.want(*block..block + 1);
                self.asked.push(*block);
            }
            Step::Start => self.taken.extend(self.batch.start().into_iter().flatten()),
            Step::Write => {
                let next = (!self.taken.is_empty()).then(|| self.taken.remove(0));
                self.host.cache.extend(next);
            }
            // Who writes the pages syncs when all are written, and not before.
            Step::Sync if self.taken.is_empty() => {
                self.host.sync();
                self.batch.done(true);
            }
            Step::Sync => {}
            Step::Fail(chance) => {
                let kept = self.host.after_crash(*chance);
                self.host.durable = (0..3).flat_map(|page| kept.page(page).to_vec()).collect();
                self.host.cache.clear();
                self.taken.clear();
                self.batch.done(false);
            }
        }
        let (batch, written) = (&self.batch, &mut self.written);
        self.asked.retain(|block| {
            let may = batch.is_durable(*block..block + 1);
            if may {
                written.push(*block);
            }
            !may
        });
    }
}

proptest! {
    /// After every step the power may go: a block that was written has its bit.
    #[test]
    fn a_block_that_was_written_is_marked_wherever_the_power_goes(
        steps in prop::collection::vec(step(), 1..60),
        chance: u64,
    ) {
        let mut model = Model {
            batch: Batch::new(Bits::new(BLOCKS)),
            host: Host { durable: vec![0; Bits::length_bytes(BLOCKS)], cache: Vec::new() },
            taken: Vec::new(),
            asked: Vec::new(),
            written: Vec::new(),
        };
        for (number, step) in steps.iter().enumerate() {
            model.carry_out(step);
            for chance in [chance, chance.wrapping_add(number as u64)] {
                let found = model.host.after_crash(chance);
                for block in &model.written {
                    prop_assert!(found.has(*block..block + 1), "block {block} after step {number}");
                }
            }
        }
        // And whoever waits gets what he asked for.
        for step in [Step::Fail(chance), Step::Start, Step::Write, Step::Write, Step::Write, Step::Sync] {
            model.carry_out(&step);
        }
        prop_assert!(model.asked.is_empty(), "{:?} wait for ever", model.asked);
    }

    #[test]
    fn ranges_are_the_blocks_that_are_set(blocks in prop::collection::btree_set(0..BLOCKS, 0..40), run in 0..BLOCKS) {
        let mut bits = Bits::new(BLOCKS);
        let run = run..(run + 20).min(BLOCKS);
        let mut expected: std::collections::BTreeSet<u64> = blocks.clone();
        expected.extend(run.clone());
        for block in blocks {
            bits.set(block..block + 1);
        }
        bits.set(run);
        let found: Vec<u64> = bits.ranges().into_iter().flatten().collect();
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        let ranges = bits.ranges();
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
    }
}

const EQUAL: Equal = Equal {
    join: [7; 16],
    number: 0,
    generation: Generation(4),
};

/// An image, and its size.
fn image(folder: &tempfile::TempDir, size: u64) -> PathBuf {
    let image = folder.path().join("disk");
    File::create(&image).unwrap().set_len(size).unwrap();
    image
}

fn begin(image: &Path, size: u64) -> ChangedBlocks {
    ChangedBlocks::begin(image, size, &[EQUAL], &[]).unwrap()
}

fn mark(changed: &ChangedBlocks, block: u64) {
    changed.mark(block..block + 1).unwrap();
}

#[test]
fn marks_are_found_again_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let size = 10 * COPY_BLOCK_BYTES + 512;
    let image = image(&folder, size);
    assert!(ChangedBlocks::open(&image, size).unwrap().is_none());
    let changed = begin(&image, size);
    assert_eq!(changed.blocks(), []);
    changed.mark(0..2).unwrap();
    changed.mark(10..u64::MAX).unwrap();
    changed.mark(5..5).unwrap();
    assert_eq!(changed.blocks(), [0..2, 10..11]);
    drop(changed);
    let again = ChangedBlocks::open(&image, size).unwrap().unwrap();
    assert_eq!(again.blocks(), [0..2, 10..11]);
    assert_eq!(again.equal(), [EQUAL]);
    mark(&again, 3);
    drop(again);
    let again = ChangedBlocks::open(&image, size).unwrap().unwrap();
    assert_eq!(again.blocks(), [0..2, 3..4, 10..11]);
    ChangedBlocks::remove(&image).unwrap();
    ChangedBlocks::remove(&image).unwrap();
    assert!(ChangedBlocks::open(&image, size).unwrap().is_none());
}

#[test]
fn one_that_begins_with_marks_has_them_and_its_states() {
    let folder = tempfile::tempdir().unwrap();
    let size = 3 * PAGE_BITS * COPY_BLOCK_BYTES;
    let image = image(&folder, size);
    let later = Equal { number: 99, ..EQUAL };
    let marks = [3..5, PAGE_BITS - 1..PAGE_BITS + 1];
    let equal = [EQUAL, later];
    drop(ChangedBlocks::begin(&image, size, &equal, &marks).unwrap());
    let found = ChangedBlocks::open(&image, size).unwrap().unwrap();
    assert_eq!(found.blocks(), marks);
    assert_eq!(found.equal(), equal);
}

#[test]
fn a_file_that_is_not_of_this_disk_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let size = 10 * COPY_BLOCK_BYTES;
    let image = image(&folder, size);
    drop(begin(&image, size));
    let path = ChangedBlocks::path(&image);
    let bytes = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], size: u64| {
        fs::write(&path, bytes).unwrap();
        ChangedBlocks::open(&image, size).unwrap_err().to_string()
    };
    assert!(refused(&bytes, size + 512).contains("a disk of another size"));
    assert!(refused(&bytes[..bytes.len() - 1], size).contains("not as long"));
    assert!(refused(&bytes[..20], size).contains("checksum"));
    assert!(refused(b"", size).contains("does not begin"));
    let mut other = bytes.clone();
    other[25] ^= 1;
    assert!(refused(&other, size).contains("checksum"));
    let other = [b"lockstep-changed 2".as_slice(), &bytes[18..]].concat();
    assert!(refused(&other, size).contains("a later Lockstep"));
    fs::write(&path, &bytes).unwrap();
    ChangedBlocks::open(&image, size).unwrap();
}

#[test]
fn every_damaged_byte_of_the_marks_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let size = 5000 * COPY_BLOCK_BYTES;
    let image = image(&folder, size);
    mark(&begin(&image, size), 4999);
    let path = ChangedBlocks::path(&image);
    let bytes = fs::read(&path).unwrap();
    for at in (HEADER_BYTES..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        let why = ChangedBlocks::open(&image, size).unwrap_err().to_string();
        assert!(why.contains("its marks are damaged"), "{at}: {why}");
    }
    // A part that was lost is not taken for one without marks.
    let mut damaged = bytes.clone();
    damaged[HEADER_BYTES + 512..HEADER_BYTES + 1024].fill(0);
    fs::write(&path, &damaged).unwrap();
    ChangedBlocks::open(&image, size).unwrap_err();
}

#[test]
fn one_of_an_image_that_was_replaced_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let size = 10 * COPY_BLOCK_BYTES;
    let path = image(&folder, size);
    drop(begin(&path, size));
    fs::rename(&path, folder.path().join("old")).unwrap();
    image(&folder, size);
    let why = ChangedBlocks::open(&path, size).unwrap_err().to_string();
    assert!(why.contains("it is of another file"), "{why}");
}

#[test]
fn threads_that_mark_together_all_find_their_marks_durable() {
    let folder = tempfile::tempdir().unwrap();
    let size = 1 << 34;
    let image = image(&folder, size);
    let changed = begin(&image, size);
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (changed, image, barrier) = (&changed, &image, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..10 {
                    let block = (round * 8 + thread) * 1000;
                    mark(changed, block);
                    let found = ChangedBlocks::open(image, size).unwrap().unwrap();
                    assert!(found.blocks().contains(&(block..block + 1)));
                }
            });
        }
    });
    assert_eq!(changed.blocks().len(), 80);
}
