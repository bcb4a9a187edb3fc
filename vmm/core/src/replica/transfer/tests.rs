//! A transfer as a whole: what the receiver builds is what the sender had when it was captured, or
//! there is one clear error.

use super::*;
use crate::machine::Machine;
use crate::machine::cpu::fake::FakeCpu;
use crate::machine::devices::{Board, Devices};
use crate::machine::image::Sites;
use crate::machine::memory::{self, MEMORY_BYTES_MIN, Memory};
use crate::machine::page_set::PageSet;
use crate::machine::run::Policy;
use crate::machine::saved::pages::PAGE_BYTES;
use crate::machine::saved::pages::PAGES_PER_PART;
use crate::machine::saved::{Page, SavedMachine};
use proptest::prelude::*;
use std::error::Error;
use vm_memory::{Bytes, GuestAddress};

const PAIR: [u8; 16] = *b"a pair of sides!";
const PAGES: u64 = MEMORY_BYTES_MIN / PAGE_BYTES as u64;
/// More than the room that is made at once.
const SEVERAL_CHUNKS: u64 = 9 << 20;
const POSITION: LogPosition = LogPosition {
    sequence: 77,
    monotonic_ns: 1_000,
    tsc: 999,
    wall_ns: u64::MAX,
};

fn saved(memory: &Memory) -> SavedMachine {
    let board = Board::small([2, 0, 0, 0, 0, 1]).unwrap();
    let policy = Policy {
        digest_interval_exits: 0,
        window_exits: false,
    };
    let mut cpu = FakeCpu::default();
    let devices = Devices::new(&board).unwrap();
    Machine::new(&mut cpu, memory.clone(), devices, Sites::default(), policy)
        .save()
        .unwrap()
}

fn capture(memory: &Memory) -> Capture {
    Capture {
        machine: saved(memory),
        position: POSITION,
    }
}

/// Writes a number all over a page: 0 makes it a page of zeros.
fn write(memory: &Memory, index: u64, number: u8) {
    memory
        .write_slice(&[number; PAGE_BYTES], GuestAddress(index * PAGE_BYTES as u64))
        .unwrap();
}

fn send(sender: &mut Sender, mut round: Round, records: &mut Vec<Vec<u8>>) {
    while let Some(pages) = round.next_pages() {
        records.extend(sender.pages(pages));
    }
}

/// One round over `memory`, and the rest.
fn records(memory: &Memory) -> Vec<Vec<u8>> {
    let (mut sender, first) = Sender::new(PAIR, MEMORY_BYTES_MIN);
    let mut records = vec![first];
    let round = Round::first(memory.clone(), PageSet::first(PAGES));
    send(&mut sender, round, &mut records);
    records.extend(sender.last(capture(memory)));
    records
}

fn small() -> Memory {
    let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
    (0..40).for_each(|page| write(&memory, 3 * page, page as u8 + 1));
    memory
}

fn receive(records: &[Vec<u8>]) -> Result<Received, TransferError> {
    let mut receiver = Receiver::new(PAIR, MEMORY_BYTES_MIN);
    let mut all = None;
    for record in records {
        match receiver.take(record)? {
            Taken::More => {}
            Taken::All(received) => all = Some(*received),
        }
    }
    all.ok_or_else(|| receiver.cut())
}

fn refusal(records: &[Vec<u8>]) -> String {
    let error = receive(records).unwrap_err();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[test]
fn what_is_received_is_what_was_sent() {
    let memory = small();

    let received = receive(&records(&memory)).unwrap();

    assert_eq!(received.machine, saved(&memory));
    assert_eq!(received.position, POSITION);
    assert_eq!(
        memory::digest(&received.memory).unwrap(),
        memory::digest(&memory).unwrap()
    );
}

#[test]
fn zeros_cost_nothing_in_the_first_round() {
    let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
    let records = records(&memory);
    assert_eq!(records.len(), 2, "the first and the machine");
    receive(&records).unwrap();
}

#[test]
fn a_record_fits_a_message_whatever_is_in_it() {
    let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
    let mut number = 1_u64;
    for address in (0..MEMORY_BYTES_MIN).step_by(8) {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        memory
            .write_obj(number ^ number >> 29, GuestAddress(address))
            .unwrap();
    }

    let records = records(&memory);

    let longest = records.iter().map(Vec::len).max().unwrap();
    assert!(longest > RAW_BYTES_MAX, "noise is not compressed: {longest}");
    assert!(longest <= RECORD_BYTES_MAX);
    assert_eq!(records.len() as u64, 2 + PAGES.div_ceil(PAGES_PER_PART as u64));
}

/// An event between two steps of the sender.
#[derive(Clone, Debug)]
enum Happening {
    Written(u64, u8),
    Sent(u8),
    RoundEnds,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..PAGES, 0..4_u8).prop_map(|(page, number)| Happening::Written(page, number)),
        2 => (1..4_u8).prop_map(Happening::Sent),
        1 => Just(Happening::RoundEnds),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The memory is written at random while rounds go over it; the marks of our own writes are the
    /// log.
    #[test]
    fn the_receiver_has_the_memory_as_it_was_at_the_capture(
        before in prop::collection::vec((0..PAGES, 0..4_u8), 0..60),
        happenings in prop::collection::vec(happening(), 0..120),
        copied in prop::collection::vec((0..PAGES, 0..4_u8), 0..20),
        after in prop::collection::vec((0..PAGES, 1..4_u8), 1..20),
    ) {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        before.iter().for_each(|(page, number)| write(&memory, *page, *number));
        drop(memory::take_written(&memory));
        let (mut sender, first) = Sender::new(PAIR, MEMORY_BYTES_MIN);
        let mut records = vec![first];
        let mut round = Round::first(memory.clone(), PageSet::first(PAGES));
        for happening in happenings {
            match happening {
                Happening::Written(page, number) => write(&memory, page, number),
                Happening::Sent(count) => {
                    for _ in 0..count {
                        let pages = round.next_pages();
                        records.extend(pages.and_then(|pages| sender.pages(pages)));
                    }
                }
                Happening::RoundEnds => {
                    send(&mut sender, round, &mut records);
                    round = Round::again(memory.clone(), memory::take_written(&memory));
                }
            }
        }
        send(&mut sender, round, &mut records);
        let mut copies = Copies::of(PAGES);
        copies.make_room(PAGES).unwrap();
        copies.copy(&memory, &mut memory::take_written(&memory), PAGES);
        copied.iter().for_each(|(page, number)| write(&memory, *page, *number));
        copies.copy(&memory, &mut memory::take_written(&memory), PAGES);
        let (digest, captured) = (memory::digest(&memory).unwrap(), capture(&memory));
        after.iter().for_each(|(page, number)| write(&memory, *page, *number));
        copies.into_pages().for_each(|pages| records.extend(sender.pages(pages)));
        records.extend(sender.last(captured));

        let received = receive(&records).unwrap();

        prop_assert_eq!(memory::digest(&received.memory).unwrap(), digest);
    }

    #[test]
    fn a_changed_byte_is_refused(place in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), flipped in 1..=255_u8) {
        let mut records = records(&small());
        let place = place.index(records.len());
        let byte = byte.index(records[place].len());
        records[place][byte] ^= flipped;
        // A block may say the same in other bytes: then it is the same transfer.
        if let Ok(received) = receive(&records) {
            prop_assert_eq!(memory::digest(&received.memory).unwrap(), memory::digest(&small()).unwrap());
            prop_assert_eq!(received.position, POSITION);
        }
    }

    #[test]
    fn records_of_anything_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(receive(std::slice::from_ref(&bytes)).is_err());
        prop_assert!(receive(&[records(&small())[0].clone(), bytes]).is_err());
    }
}

#[test]
fn one_that_is_cut_names_what_is_missing() {
    let records = records(&small());
    assert_eq!(
        refusal(&[]),
        "the transfer was cut short: it ends before its first record"
    );
    for end in 1..records.len() {
        assert_eq!(
            refusal(&records[..end]),
            "the transfer was cut short: it ends before its machine"
        );
    }
}

#[test]
fn one_that_repeats_or_lacks_a_record_names_it() {
    let whole = records(&small());
    let mut repeated = whole.clone();
    repeated.insert(2, whole[1].clone());
    assert_eq!(
        refusal(&repeated),
        "the transfer repeats record 1: record 2 is next"
    );
    let mut lacking = whole.clone();
    lacking.remove(1);
    assert_eq!(
        refusal(&lacking),
        "the transfer lacks record 1: record 2 came instead"
    );
    let mut more = whole.clone();
    more.push(whole[1].clone());
    assert_eq!(refusal(&more), "the transfer goes on behind its end");
}

/// Records with numbers of their own, as a sender in error would number them.
fn numbered(records: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut numbered = records.to_vec();
    for (number, record) in numbered.iter_mut().enumerate() {
        record[..8].copy_from_slice(&(number as u64).to_le_bytes());
    }
    numbered
}

#[test]
fn pages_that_are_left_out_or_come_in_another_order_are_refused() {
    let whole = records(&small());
    let damaged = "the saved state is damaged in its end: the digest does not match";
    let mut lacking = whole.clone();
    lacking.remove(1);
    assert_eq!(refusal(&numbered(&lacking)), damaged);
    let mut swapped = whole.clone();
    swapped.swap(1, 2);
    assert_eq!(refusal(&numbered(&swapped)), damaged);
    let mut twice = whole.clone();
    twice.insert(1, whole[1].clone());
    assert_eq!(refusal(&numbered(&twice)), damaged);
}

#[test]
fn sections_out_of_order_are_refused() {
    let memory = small();
    let (sender, first) = Sender::new(PAIR, MEMORY_BYTES_MIN);
    let page = Page::of(&memory, 0).unwrap();
    let machine = sender.last(capture(&memory)).remove(0);
    let (mut other, _) = Sender::new(PAIR, MEMORY_BYTES_MIN);
    let pages = other.pages(vec![page]).unwrap();
    assert_eq!(
        refusal(&numbered(&[first, machine, pages])),
        "the transfer goes on behind its end"
    );
}

fn begun(start: &[u8]) -> Vec<Vec<u8>> {
    let mut record = 0_u64.to_le_bytes().to_vec();
    record.extend_from_slice(&(start.len() as u32).to_le_bytes());
    record.extend(lz4_flex::block::compress(start));
    vec![record]
}

#[test]
fn what_is_not_this_machine_is_refused_by_name() {
    let start = sender::start(PAIR, MEMORY_BYTES_MIN);
    let changed = |at: usize, byte: u8| {
        let mut start = start.clone();
        start[at] = byte;
        refusal(&begun(&start))
    };
    assert_eq!(
        changed(0, b'X'),
        "this is not a transfer of a machine: it begins with other bytes"
    );
    assert_eq!(
        changed(4, 2),
        "the transfer has version 2; this program reads version 1"
    );
    assert_eq!(
        changed(8, b'A'),
        "the transfer is of another machine: of pair 412070616972206f6620736964657321, not \
         612070616972206f6620736964657321"
    );
    assert_eq!(
        changed(24, 1),
        "the saved state is of a machine with 2097153 bytes of memory; this one has 2097152"
    );
    assert_eq!(
        changed(6, 1),
        "record 0 of the transfer cannot be decoded: it has something else in it"
    );
    assert_eq!(
        refusal(&begun(&start[..20])),
        "record 0 of the transfer cannot be decoded: it is too short"
    );
}

#[test]
fn a_length_that_is_promised_is_not_allocated() {
    let mut record = 0_u64.to_le_bytes().to_vec();
    record.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        refusal(&[record]),
        "record 0 of the transfer cannot be decoded: its length is impossible"
    );
}

#[test]
fn one_that_never_ends_is_refused() {
    let memory = small();
    let (mut sender, first) = Sender::new(PAIR, MEMORY_BYTES_MIN);
    let mut receiver = Receiver::new(PAIR, MEMORY_BYTES_MIN);
    receiver.take(&first).unwrap();
    let pages: Vec<Page> = (0..PAGES_PER_PART as u64)
        .map(|index| Page::of(&memory, index).unwrap())
        .collect();
    let records_max = PAGES * u64::from(ROUNDS_MAX + 1) / PAGES_PER_PART as u64 + 1;
    let refused = (0..records_max).find_map(|_| {
        let record = sender.pages(pages.clone()).unwrap();
        receiver.take(&record).err()
    });
    assert_eq!(
        refused.unwrap().to_string(),
        "the transfer has more than 12800 memory pages"
    );
}

fn indices(copies: Copies) -> Vec<u64> {
    copies.into_pages().flatten().map(|page| page.index).collect()
}

#[test]
fn a_page_has_one_copy_which_is_the_newest() {
    let memory = small();
    let mut copies = Copies::of(PAGES);
    copies.make_room(2).unwrap();
    copies.copy(&memory, &mut PageSet::first(2), PAGES);
    write(&memory, 1, 77);
    copies.copy(&memory, &mut PageSet::first(2), PAGES);
    assert_eq!(copies.len(), 2);
    let pages: Vec<Page> = copies.into_pages().flatten().collect();
    assert_eq!(pages, [0, 1].map(|index| Page::of(&memory, index).unwrap()));
}

#[test]
fn what_is_not_copied_stays_in_the_set() {
    let memory = small();
    let mut copies = Copies::of(PAGES);
    let mut pages = PageSet::first(5);
    copies.copy(&memory, &mut pages, 5);
    assert!(copies.is_empty(), "there is no room");
    copies.make_room(5).unwrap();
    copies.copy(&memory, &mut pages, 3);
    assert_eq!(pages.iter().collect::<Vec<_>>(), [3, 4]);
    pages.insert(PAGES + 7);
    copies.copy(&memory, &mut pages, PAGES);
    assert!(pages.is_empty(), "a page beyond the end is none");
    assert_eq!(indices(copies), [0, 1, 2, 3, 4]);
}

#[test]
fn copies_never_have_more_room_than_the_memory_has_pages() {
    let memory = memory::allocate(SEVERAL_CHUNKS).unwrap();
    let pages = SEVERAL_CHUNKS / PAGE_BYTES as u64;
    let mut copies = Copies::of(pages);
    for _ in 0..3 {
        copies.make_room(pages).unwrap();
        copies.copy(&memory, &mut PageSet::first(pages), pages);
    }
    assert_eq!(copies.len(), pages);
    assert_eq!(indices(copies), (0..pages).collect::<Vec<_>>());
}
