//! Starts: content that is found, and content that is refused.

use super::{SMALL, Shared, open};
use crate::append_only::{OpenError, Policy, Storage};
use crate::tests::request;

const NOW_MS: u64 = 1_700_000_000_000;
/// Beginning of the first generation's half.
const HALF: usize = 8192 + (64 << 10);

fn disk() -> Shared {
    Shared::new(SMALL, 512, 1)
}

/// A disk with three records, each made durable before the next.
fn with_three_records() -> Shared {
    let disk = disk();
    let (mut server, opened) = open(&disk, Policy::Always, NOW_MS).unwrap();
    assert!(opened.is_new);
    for line in ["set a 1", "rpush b 1 2 3", "set c 3 ex 10"] {
        server.line(line);
        assert!(server.commit());
    }
    disk
}

fn refusal(disk: &Shared) -> OpenError {
    open(disk, Policy::Always, NOW_MS).map(|_| ()).unwrap_err()
}

#[test]
fn a_start_says_what_it_has_replayed() {
    let disk = with_three_records();
    let (mut server, opened) = open(&disk, Policy::Always, NOW_MS).unwrap();

    assert_eq!((opened.is_new, opened.records, opened.cut_bytes), (false, 3, 0));
    assert_eq!(opened.last_ms, NOW_MS);
    assert_eq!(server.line("lrange b 0 -1"), "*3|$1|1|$1|2|$1|3");
    assert_eq!(
        server
            .line("info stats")
            .matches("total_commands_processed:2|")
            .count(),
        1
    );
}

#[test]
fn a_deadline_is_a_time_and_not_a_duration() {
    let disk = with_three_records();
    let (mut server, _) = open(&disk, Policy::Always, NOW_MS + 4000).unwrap();
    assert_eq!(server.line("pttl c"), ":6000");

    let (mut server, _) = open(&disk, Policy::Always, NOW_MS + 10_000).unwrap();
    assert_eq!(server.line("get c"), "$-1");
}

#[test]
fn a_torn_end_is_cut_for_ever() {
    let disk = with_three_records();
    let (_, opened) = open(&disk, Policy::Always, NOW_MS).unwrap();
    let end = HALF + opened.bytes as usize;
    {
        let (mut server, _) = open(&disk, Policy::Always, NOW_MS).unwrap();
        let long = vec![b'x'; 2000];
        server.send(&request(&[b"set", b"d", &long]));
        server.line("set e 5");
        assert!(server.commit());
    }
    // A byte of the first of them: as if its sector had not been written. The second one is whole.
    disk.0.borrow_mut().content[end + 700] ^= 1;

    let (mut server, opened) = open(&disk, Policy::Always, NOW_MS).unwrap();
    assert_eq!((opened.records, server.line("exists d e")), (3, ":0".to_owned()));
    assert!(opened.cut_bytes > 2000, "{opened:?}");
    let (_, opened) = open(&disk, Policy::Always, NOW_MS).unwrap();
    assert_eq!((opened.records, opened.cut_bytes), (3, 0));
}

#[test]
fn a_file_that_is_damaged_before_its_end_is_refused() {
    let disk = with_three_records();
    disk.0.borrow_mut().content[HALF + 70] ^= 1;

    assert_eq!(refusal(&disk), OpenError::Damaged(1, 2));
}

#[test]
fn what_a_client_stores_is_not_taken_for_a_record() {
    let disk = with_three_records();
    let (mut server, opened) = open(&disk, Policy::Always, NOW_MS).unwrap();
    let end = HALF + opened.bytes as usize;
    // The whole file so far, as a value, several times: heads and bodies of real records.
    let copy = disk.0.borrow().content[HALF..end].to_vec();
    server.send(&request(&[b"set", b"copy", &copy.repeat(8)]));
    assert!(server.commit());
    disk.0.borrow_mut().content[end] ^= 1;

    let (_, opened) = open(&disk, Policy::Always, NOW_MS).unwrap();
    assert_eq!(opened.records, 3);
}

#[test]
fn a_disk_that_is_not_for_this_is_refused() {
    let foreign = disk();
    foreign.0.borrow_mut().content[8191] = 1;
    assert_eq!(refusal(&foreign), OpenError::Foreign);

    let unknown = with_three_records();
    unknown.0.borrow_mut().content[4096 + 8] = 2;
    assert_eq!(refusal(&unknown), OpenError::Version(2));

    let shrunk = with_three_records();
    let larger = Shared::new(SMALL + 8192, 512, 1);
    open(&larger, Policy::Always, NOW_MS).unwrap();
    let front = larger.0.borrow().content[..8192].to_vec();
    shrunk.0.borrow_mut().content[..8192].copy_from_slice(&front);
    assert_eq!(
        refusal(&shrunk),
        OpenError::Shrunk(SMALL as u64 + 8192, SMALL as u64)
    );

    let read_only = with_three_records();
    read_only.0.borrow_mut().is_writable = false;
    assert_eq!(refusal(&read_only), OpenError::ReadOnly);

    let tiny = Shared::new(64 << 10, 512, 1);
    assert_eq!(refusal(&tiny), OpenError::TooSmall(64 << 10));
}

#[test]
fn a_damaged_superblock_is_refused_and_not_passed_over() {
    let disk = with_three_records();
    let (mut server, _) = open(&disk, Policy::Always, NOW_MS).unwrap();
    server.line("bgrewriteaof");
    // Both are in use now; the first generation's records are old.
    disk.0.borrow_mut().content[30] ^= 1;

    assert_eq!(refusal(&disk), OpenError::Foreign);
}

#[test]
fn a_larger_disk_goes_on_with_the_file_as_it_is() {
    let disk = with_three_records();
    disk.0.borrow_mut().content.resize(SMALL + 65_536, 7);

    let (mut server, opened) = open(&disk, Policy::Always, NOW_MS).unwrap();
    assert_eq!(opened.records, 3);
    server.line("bgrewriteaof");
    assert_eq!(disk.size_bytes(), SMALL as u64 + 65_536);
    let (_, opened) = open(&disk, Policy::Always, NOW_MS).unwrap();
    assert_eq!(opened.records, 4, "one for each key, and a deadline");
}

#[test]
fn a_full_file_is_rewritten_and_then_refuses_what_would_add_to_it() {
    const FULL: &str = "-MISCONF Errors writing to the AOF file: No space left on device";
    let disk = disk();
    let (mut server, _) = open(&disk, Policy::Always, NOW_MS).unwrap();
    let value = "v".repeat(1000);
    for _ in 0..500 {
        assert_eq!(server.line(&format!("set same {value}")), "+OK");
        assert!(server.commit());
    }
    let rewrites = server.database.append_only().unwrap().rewrites;
    assert!(
        (5..20).contains(&rewrites),
        "{rewrites} rewrites of some 55 records"
    );

    let stored = (0..100)
        .take_while(|number| server.line(&format!("set k{number} {value}")) == "+OK")
        .count();
    assert!((50..62).contains(&stored), "{stored} of a half of 64 KiB");
    assert_eq!(server.line(&format!("set more {value}")), FULL);
    assert_eq!(
        server.line(&format!("get k{}", stored - 1)),
        format!("$1000|{value}")
    );
    assert_eq!(
        server.line("del k0 k1"),
        ":2",
        "there is room to remove something"
    );
    assert_eq!(server.line("set more x"), "+OK");
    assert!(server.commit());

    let (mut again, _) = open(&disk, Policy::Always, NOW_MS).unwrap();
    assert_eq!(again.state(), server.state());
    assert_eq!(again.line("exists k0 k2 more"), ":2");
}

#[test]
fn a_disk_that_fails_ends_the_file() {
    let disk = with_three_records();
    let (mut server, _) = open(&disk, Policy::Always, NOW_MS).unwrap();
    disk.0.borrow_mut().left = Some(0);
    server.line("set x 1");

    assert!(!server.commit());
    assert!(server.line("set y 1").starts_with("-MISCONF"));
    assert!(!server.commit());
}

#[test]
fn settings_and_information_tell_of_the_file() {
    let disk = with_three_records();
    let (mut server, _) = open(&disk, Policy::EverySecond, NOW_MS).unwrap();

    assert_eq!(server.line("config get appendonly"), "*2|$10|appendonly|$3|yes");
    assert_eq!(
        server.line("config get appendfsync"),
        "*2|$11|appendfsync|$8|everysec"
    );
    server.line("set a 2");
    let told = server.line("info persistence");
    for expected in [
        "# Persistence|loading:0|aof_enabled:1|",
        "|aof_last_write_status:ok|",
        "|aof_buffer_length:88",
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }

    let mut without = crate::tests::Server::new();
    assert!(
        without
            .line("info persistence")
            .ends_with("aof_enabled:0|aof_rewrite_in_progress:0|aof_rewrite_scheduled:0")
    );
    assert_eq!(
        without.line("bgrewriteaof"),
        "-ERR the machine was started without an append-only file"
    );
}

#[test]
fn the_file_is_flushed_once_a_second_where_that_was_asked_for() {
    let disk = disk();
    let (mut server, _) = open(&disk, Policy::EverySecond, NOW_MS).unwrap();
    server.line("set a 1");
    assert!(server.commit());
    let before = disk.0.borrow().done;
    server.line("set a 2");
    server.clock.pass_ms(999);
    assert!(server.commit());
    assert_eq!(disk.0.borrow().done, before);
    server.clock.pass_ms(1);
    assert!(server.commit());
    assert_eq!(disk.0.borrow().done, before + 2, "a write and a flush");
    assert!(server.commit());
    assert_eq!(disk.0.borrow().done, before + 2);
}

#[test]
fn what_changes_nothing_is_not_written() {
    let disk = with_three_records();
    let (mut server, _) = open(&disk, Policy::Always, NOW_MS).unwrap();
    let before = disk.0.borrow().done;
    for line in [
        "get a",
        "del nothing",
        "set a 1 nx",
        "incr b",
        "persist a",
        "lpop nothing",
        "srem b x",
    ] {
        server.line(line);
    }
    assert!(server.commit());
    assert_eq!(disk.0.borrow().done, before);
}
