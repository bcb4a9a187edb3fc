//! The load on a disk with a volatile cache, which loses power.

mod cache;

use crate::random::{mixed, step};
use crate::{Load, Note, Options, Wrong};
use cache::{Cache, Fault};
use lockstep_guest_runtime::requests::{Request, SERIAL_BYTES, Shape};

fn options(requests: u64) -> Options {
    Options {
        seed: 1,
        requests,
        in_flight: 24,
        area_bytes: 96 << 10,
        report: 0,
        overlap: true,
        measure: None,
    }
}

fn shape(block_bytes: u32) -> Shape {
    Shape {
        sectors: (128 << 10) / 512,
        block_bytes,
        read_only: false,
        discard_sectors_max: 65_536,
        zeroed_sectors_max: 65_536,
        serial: [0; SERIAL_BYTES],
    }
}

/// Runs a load on `cache` until it is over, or for `requests_max` requests.
fn run(options: Options, shape: Shape, cache: &mut Cache, requests_max: u64) -> Result<Vec<Note>, Wrong> {
    let mut load = Load::new(options, options.seed, shape)?;
    let mut notes = Vec::new();
    let mut made = 0;
    while !load.is_over() && made < requests_max {
        while let Some(request) = load.next_request() {
            cache.submit(request);
            made += 1;
        }
        if let Some(done) = cache.complete() {
            load.completed(&done)?;
        }
        notes.extend(core::iter::from_fn(|| load.note()));
    }
    Ok(notes)
}

#[test]
fn a_load_ends_and_says_the_same_each_time() {
    let read_and_content = |block_bytes, draw| {
        let mut cache = Cache::new(&shape(block_bytes), draw);
        let notes = run(options(3000), shape(block_bytes), &mut cache, u64::MAX).unwrap();
        *notes.last().unwrap()
    };

    let first = read_and_content(512, 1);
    assert!(matches!(first, Note::Over { requests: 3000, .. }), "{first:?}");
    // Requests end in another order, and the digests do not depend on it.
    assert_eq!(read_and_content(512, 2), first);
    assert_ne!(read_and_content(4096, 1), first);
}

#[test]
fn what_was_flushed_survives_any_crash() {
    for seed in 0..60 {
        let mut cache = Cache::new(&shape(512), seed);
        let mut draw = mixed(seed, 7);
        let mut begun = 0;
        for boot in 0..4 {
            draw = step(draw);
            let notes = run(options(u64::MAX), shape(512), &mut cache, 1 + draw % 1500)
                .unwrap_or_else(|wrong| panic!("seed {seed}, boot {boot}: {wrong}"));
            let begins = notes.iter().find_map(|note| match note {
                Note::Begins { header, .. } => Some(header.flushed),
                _ => None,
            });
            if let Some(flushed) = begins {
                assert!(flushed >= begun, "seed {seed}");
                begun = flushed;
            }
            cache.lose_power();
        }
    }
}

/// Seeds, of 40, with which a load on a faulty disk ends with an error.
fn found(fault: Fault) -> usize {
    let is_found = |seed: &u64| {
        let mut cache = Cache::new(&shape(512), *seed);
        cache.fault = Some(fault);
        (0..4).any(|_| {
            let outcome = run(options(400), shape(512), &mut cache, 1200);
            cache.lose_power();
            outcome.is_err()
        })
    };
    (0..40).filter(is_found).count()
}

#[test]
fn a_disk_that_breaks_its_promises_is_found_out() {
    for fault in [
        Fault::NoFlush,
        Fault::FlushTooEarly,
        Fault::LostWrite,
        Fault::WrongPlace,
        Fault::FlippedBit,
        Fault::NoDiscard,
        Fault::Reordered,
    ] {
        assert!(found(fault) > 20, "{fault:?}: {} of 40", found(fault));
    }
}

#[test]
fn what_is_not_ones_own_is_refused() {
    let mut cache = Cache::new(&shape(512), 1);
    run(options(100), shape(512), &mut cache, u64::MAX).unwrap();

    let other_seed = Options {
        seed: 2,
        ..options(100)
    };
    let other_area = Options {
        area_bytes: 64 << 10,
        ..options(100)
    };
    for other in [other_seed, other_area] {
        let refused = run(other, shape(512), &mut cache, u64::MAX);
        assert!(matches!(refused, Err(Wrong::Other(_))), "{refused:?}");
    }
    cache.content[0] ^= 1;
    assert_eq!(run(options(100), shape(512), &mut cache, 99), Err(Wrong::Foreign));
    let tiny = Shape {
        sectors: 8,
        ..shape(512)
    };
    assert_eq!(run(options(1), tiny, &mut cache, 99), Err(Wrong::TooSmall));
}

#[test]
fn a_disk_that_cannot_be_written_is_read() {
    let mut cache = Cache::new(&shape(512), 1);
    let written = run(options(300), shape(512), &mut cache, u64::MAX).unwrap();
    let read_only = Shape {
        read_only: true,
        discard_sectors_max: 0,
        zeroed_sectors_max: 0,
        ..shape(512)
    };
    cache.read_only = true;
    let before = cache.content.clone();
    let read = run(options(300), read_only, &mut cache, u64::MAX).unwrap();

    let content = |notes: &[Note]| match notes.last() {
        Some(Note::Over { content, .. }) => *content,
        other => panic!("{other:?}"),
    };
    assert_eq!(content(&read), content(&written));
    assert_eq!(cache.content, before);

    cache.read_only = false;
    let accepted = run(options(300), read_only, &mut cache, u64::MAX);
    assert!(matches!(accepted, Err(Wrong::Accepted(_))), "{accepted:?}");
}

#[test]
fn requests_that_overlap_are_kept_apart_where_asked() {
    let apart = Options {
        overlap: false,
        ..options(2000)
    };
    let mut load = Load::new(apart, 1, shape(512)).unwrap();
    let mut cache = Cache::new(&shape(512), 5);
    let range = |request: &Request| cache::range(&request.operation, request.buffer.len());
    while !load.is_over() {
        while let Some(request) = load.next_request() {
            let is_read = |request: &Request| cache::is_read(&request.operation);
            for other in cache.in_flight() {
                let (one, two) = (range(&request), range(other));
                let apart = one.end <= two.start || two.end <= one.start;
                assert!(apart || is_read(&request) && is_read(other), "{request:?}");
            }
            cache.submit(request);
        }
        if let Some(done) = cache.complete() {
            load.completed(&done).unwrap();
        }
    }
}
