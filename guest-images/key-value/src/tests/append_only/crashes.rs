//! Power goes at any write or flush; what was acknowledged is there afterwards.

use super::{SMALL, State, at, change, open};
use crate::append_only::Policy;
use crate::tests::Numbers;
use crate::tests::append_only::disk::Shared;

const START_MS: u64 = 1_700_000_000_000;
/// Crashes of one test.
const CRASHES: usize = 2000;
/// After so many the disk is a new one.
const CRASHES_OF_DISK: usize = 12;

/// Findings of a run over crashes.
#[derive(Default, Debug)]
struct Seen {
    replayed: u64,
    cut: u64,
    rewrites: u64,
    lost: usize,
}

/// One disk, and its crashes. Gives how often something acknowledged was gone, or something was
/// there that never was.
fn crash(seed: u64, policy: Policy, has_no_flush: bool, seen: &mut Seen) {
    let mut numbers = Numbers::new(seed);
    let block_bytes = numbers.pick(&[512, 4096]);
    let disk = Shared::new(SMALL, block_bytes, numbers.next());
    disk.0.borrow_mut().has_no_flush = has_no_flush;
    let mut now_ms = START_MS;
    // The states that may be found: the first one is durable.
    let mut allowed: Vec<State> = vec![State::new()];
    for _ in 0..CRASHES_OF_DISK {
        let most = numbers.pick(&[2, 9, 60, 200]);
        disk.0.borrow_mut().left = Some(numbers.below(most) as u64);
        if let Ok((mut server, opened)) = open(&disk, policy, now_ms) {
            seen.replayed += opened.records;
            seen.cut += u64::from(opened.cut_bytes > 0);
            now_ms = server.now_ms();
            let found = at(&server.state(), now_ms);
            if !allowed.iter().any(|state| at(state, now_ms) == found) {
                seen.lost += 1;
            }
            allowed = vec![found];
            loop {
                for _ in 0..1 + numbers.below(8) {
                    let request = if numbers.below(200) == 0 {
                        b"bgrewriteaof\r\n".to_vec()
                    } else {
                        change(&mut numbers, now_ms)
                    };
                    server.send(&request);
                    allowed.push(server.state());
                }
                let before = server.database.append_only().unwrap().due_ms();
                if !server.commit() {
                    break;
                }
                let is_due = before.is_none_or(|due_ms| due_ms <= server.now_ms());
                if is_due {
                    allowed.drain(..allowed.len() - 1);
                }
                server.clock.pass_ms(numbers.below(40) as u64);
                now_ms = server.now_ms();
            }
            seen.rewrites += server.database.append_only().unwrap().rewrites;
        } else {
            // Only where the power went while it opened: a disk with power always opens.
            let left = disk.0.borrow().left;
            assert!(has_no_flush || left == Some(0), "seed {seed}");
            seen.lost += usize::from(left != Some(0));
        }
        disk.lose_power();
        now_ms += numbers.below(100) as u64;
    }
}

fn crashes(policy: Policy, has_no_flush: bool, count: usize) -> Seen {
    let mut seeds = Numbers::from_environment();
    let mut seen = Seen::default();
    for _ in 0..count / CRASHES_OF_DISK {
        let seed = seeds.next();
        let before = seen.lost;
        crash(seed, policy, has_no_flush, &mut seen);
        assert!(has_no_flush || seen.lost == before, "seed {seed}: {seen:?}");
    }
    seen
}

#[test]
fn what_was_acknowledged_survives_any_crash() {
    // Half of a record was left by one crash, and the other half written before the next.
    let mut torn = Seen::default();
    crash(1_969_148_606_644_699_137, Policy::Always, false, &mut torn);
    assert_eq!(torn.lost, 0, "{torn:?}");

    let seen = crashes(Policy::Always, false, CRASHES);

    // The test has been where it should.
    assert!(
        seen.replayed > 10_000 && seen.cut > 100 && seen.rewrites > 100,
        "{seen:?}"
    );
}

#[test]
fn what_was_flushed_once_a_second_survives_any_crash() {
    let seen = crashes(Policy::EverySecond, false, CRASHES / 4);

    assert!(seen.replayed > 1000, "{seen:?}");
}

#[test]
fn a_disk_that_does_not_flush_is_found_out_by_this_test() {
    let seen = crashes(Policy::Always, true, CRASHES / 10);

    assert!(seen.lost > 10, "{seen:?}");
}

#[test]
fn a_file_that_is_opened_again_makes_the_same_keys() {
    opens_again(Numbers::from_environment());
    // All keys have expired once.
    opens_again(Numbers::new(9_809_073_717_491_671_065));
}

fn opens_again(mut numbers: Numbers) {
    let disk = Shared::new(4 << 20, 512, numbers.next());
    let mut now_ms = START_MS;
    for _ in 0..30 {
        let (mut server, _) = open(&disk, Policy::EverySecond, now_ms).unwrap();
        for _ in 0..300 {
            server.send(&change(&mut numbers, server.now_ms()));
            server.clock.pass_ms(numbers.below(4) as u64);
            if numbers.below(200) == 0 {
                assert_eq!(
                    server.line("bgrewriteaof"),
                    "+Background append only file rewriting started"
                );
            }
        }
        server.clock.pass_ms(1000);
        assert!(server.commit());
        now_ms = server.now_ms();
        let expected = at(&server.state(), now_ms);

        let (again, opened) = open(&disk, Policy::EverySecond, now_ms).unwrap();
        assert_eq!(at(&again.state(), now_ms), expected);
        assert_eq!(opened.cut_bytes, 0);
        // Keys that are replayed are counted; sometimes all have expired.
        assert!(again.database.used_bytes() > 0 || expected.is_empty());
    }
}
