//! What a disk refuses: of drivers that make mistakes, of completions, and of saved states.

use super::*;
use crate::machine::devices::saved::Impossible;

#[test]
fn what_is_out_of_range_unaligned_or_too_long_fails_at_once() {
    let mut driver = Driver::new();
    let last = SHAPE.sectors - 1;
    for (sector, bytes) in [
        (last, 1024),
        (SHAPE.sectors, 512),
        (u64::MAX, 512),
        (1 << 55, 512),
        (0, 0),
        (0, 511),
        (0, REQUEST_BYTES_MAX + 512),
    ] {
        assert_eq!(
            driver.at_once(READ, sector, (bytes, WRITABLE)),
            IOERR,
            "{sector} {bytes}"
        );
        assert_eq!(
            driver.at_once(WRITE, sector, (bytes, 0)),
            IOERR,
            "{sector} {bytes}"
        );
    }
    driver.read(last, 512);
    driver.write(0, REQUEST_BYTES_MAX);
    assert_eq!(driver.notify().len(), 2);
    let mut large = Driver::of(DiskShape {
        block_bytes: 4096,
        ..SHAPE
    });
    for (sector, bytes) in [(1, 4096), (0, 512), (8, 4608)] {
        assert_eq!(
            large.at_once(WRITE, sector, (bytes, 0)),
            IOERR,
            "{sector} {bytes}"
        );
    }
}

#[test]
fn a_read_only_disk_is_not_written() {
    let mut driver = Driver::of(DiskShape {
        read_only: true,
        ..SHAPE
    });
    assert_eq!(driver.at_once(WRITE, 0, (512, 0)), IOERR);
    assert_eq!(driver.at_once(DISCARD, 0, (16, 0)), UNSUPP);
    assert_eq!(driver.at_once(ZEROES, 0, (16, 0)), UNSUPP);
    driver.read(0, 512);
    driver.ask(FLUSH, 0, (0, 0));
    assert_eq!(driver.notify().len(), 2);
}

#[test]
fn malformed_chains_are_given_back() {
    let mut driver = Driver::new();
    assert_eq!(driver.at_once(99, 0, (512, 0)), UNSUPP);
    let header = driver.header(READ, 0);
    // No place for a status; a header that is cut; memory that is not there; too many pieces.
    let cut = [(header, 15, 0), (STATUS, 1, WRITABLE)];
    let beyond = [(header, 16, 0), (1 << 40, 512, WRITABLE), (STATUS, 1, WRITABLE)];
    let many: Vec<_> = (0..33).map(|index| (DATA + 512 * index, 16, WRITABLE)).collect();
    let many = [vec![(header, 16, 0)], many].concat();
    for (chain, status) in [
        (vec![(header, 16, 0)], NONE),
        (vec![(STATUS, 0, WRITABLE)], NONE),
        (cut.to_vec(), IOERR),
        (beyond.to_vec(), NONE),
    ] {
        driver.put(STATUS, &[NONE]);
        driver.chain(&chain);
        assert_eq!(driver.notify(), []);
        assert_eq!(driver.used(), driver.offered);
        assert_eq!(driver.get(STATUS, 1), [status], "{chain:?}");
    }
    let mut driver = Driver::new();
    driver.header(READ, 0);
    driver.chain(&many);
    assert_eq!(driver.notify(), []);
    assert_eq!(driver.get(DATA + 512 * 32 + 15, 1), [IOERR]);
}

#[test]
fn a_ring_that_claims_too_much_stops_the_device_until_it_is_reset() {
    let mut driver = Driver::new();
    driver.write(0, 512);
    driver.notify();
    driver
        .memory
        .write_obj(999_u16, GuestAddress(AVAILABLE + 2))
        .unwrap();
    assert_eq!(driver.notify(), []);
    assert_eq!(driver.disk.read(0x70, 4), 15 | 64);
    assert_eq!(driver.complete(0, ReadData::Nothing), Ok(vec![]));
    assert_eq!(
        driver.used(),
        0,
        "nothing is given back to a driver that broke its queue"
    );
    assert!(driver.numbers().is_empty());
}

#[test]
fn a_completion_of_nothing_that_is_outstanding_is_refused() {
    let mut driver = Driver::new();
    driver.read(0, 512);
    driver.write(0, 512);
    driver.notify();
    let before = driver.disk.saved();
    for (number, read) in [
        (2, ReadData::Nothing),
        (0, ReadData::Nothing),
        (0, ReadData::Bytes(vec![0; 511])),
        (0, ReadData::Digest(Digest::default())),
        (1, ReadData::Bytes(vec![0; 512])),
    ] {
        assert_eq!(driver.complete(number, read), Err(NotOutstanding), "{number}");
    }
    assert_eq!(driver.disk.saved(), before);
    driver.complete(1, ReadData::Nothing).unwrap();
    assert_eq!(driver.complete(1, ReadData::Nothing), Err(NotOutstanding), "once");
}

/// A change of a saved disk.
type Change<'a> = &'a dyn Fn(&mut SavedBlock);

#[test]
fn values_that_no_disk_has_are_refused() {
    let saved = || {
        let mut driver = Driver::new();
        driver.read(0, 512);
        driver.write(8, 512);
        driver.notify();
        driver.disk.device.saved()
    };
    let refused = |change: &dyn Fn(&mut SavedBlock)| {
        let mut changed = saved();
        change(&mut changed);
        Block::restore(changed, SHAPE)
            .err()
            .map(|Impossible { field, .. }| field)
    };
    assert_eq!(refused(&|_| {}), None);
    let cases: [(&str, Change<'_>); 9] = [
        ("its shape", &|saved| saved.shape.sectors += 8),
        ("next request", &|saved| saved.next = u64::MAX),
        ("not done", &|saved| saved.next = 1),
        ("not done", &|saved| saved.outstanding.swap(0, 1)),
        ("not done", &|saved| {
            let more = saved.outstanding[0].clone();
            saved.outstanding.resize(65, more);
        }),
        ("asked for", &|saved| {
            saved.outstanding[1].request.operation = write_of(8, vec![0; 512]);
        }),
        ("asked for", &|saved| {
            saved.outstanding[0].chain.as_mut().unwrap().head = 256;
        }),
        ("asked for", &|saved| {
            saved.outstanding[0].chain.as_mut().unwrap().room[0].bytes = 1;
        }),
        ("asked for", &|saved| {
            saved.outstanding[1].chain.as_mut().unwrap().room.clear();
        }),
    ];
    for (index, (field, change)) in cases.iter().enumerate() {
        let found = refused(change).unwrap_or_else(|| panic!("case {index}"));
        assert!(found.contains(field), "case {index}: {found}");
    }
    let mut many = saved();
    let write = many.outstanding[1].clone();
    many.next = 64;
    many.outstanding = (0..6)
        .map(|number| {
            let mut one = write.clone();
            one.request.number = number;
            one.request.operation = write_of(0, vec![0; REQUEST_BYTES_MAX as usize]);
            one
        })
        .collect();
    let refused = Block::restore(many, SHAPE).err().unwrap();
    assert!(refused.field.contains("to write"), "{refused:?}");
}
