//! The transfer of a machine, as a newcomer takes it from a sender that sends anything. There is a
//! machine only where all of one whole transfer came, and then it is the one that was sent; all
//! else is one error with a text, and never a panic.
//!
//! Each step is a byte: 0 the next record as it should be, 1 the next with one byte of its content
//! changed (place, mask), 2 a record of these bytes (how many), 3 the same as they are, without
//! number and compression, 4 a section of this kind and these bytes with a fitting digest.

use super::input::Input;
use lockstep_core::machine::devices::{Board, Devices};
use lockstep_core::machine::memory::{self, MEMORY_BYTES_MIN, Memory};
use lockstep_core::machine::page_set::PageSet;
use lockstep_core::machine::saved::format::LogPosition;
use lockstep_core::machine::saved::pages::PAGE_BYTES;
use lockstep_core::machine::saved::{SavedMachine, SavedPosition};
use lockstep_core::replica::transfer::{Capture, Receiver, Round, Sender, Taken};
use lockstep_logging_channel::Digest;
use vm_memory::{Bytes, GuestAddress};

pub(super) const PAIR: [u8; 16] = [1; 16];
pub(super) const POSITION: LogPosition = LogPosition {
    sequence: 9,
    monotonic_ns: 8,
    tsc: 7,
    wall_ns: 6,
};
/// Exits of the machine.
pub(super) const EXITS: u64 = 3;
/// Bytes before a record's content.
const HEADER_BYTES: usize = 12;

thread_local! {
    static WHOLE: (Vec<Vec<u8>>, Digest) = whole();
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    WHOLE.with(|(records, digest)| meet(&mut Input::new(bytes), records, *digest));
}

fn meet(input: &mut Input<'_>, records: &[Vec<u8>], digest: Digest) {
    let mut receiver = Receiver::new(PAIR, MEMORY_BYTES_MIN);
    assert!(!receiver.cut().to_string().is_empty());
    let mut number = 0;
    while !input.is_empty() {
        match receiver.take(&record(input, number, records)) {
            Ok(Taken::More) => number += 1,
            Ok(Taken::All(received)) => {
                assert_eq!(memory::digest(&received.memory).unwrap(), digest);
                assert_eq!(received.position, POSITION);
                assert!(receiver.take(&records[0]).is_err());
                return;
            }
            Err(why) => {
                assert!(!why.to_string().is_empty());
                return;
            }
        }
    }
}

fn record(input: &mut Input<'_>, number: usize, records: &[Vec<u8>]) -> Vec<u8> {
    let next = records.get(number).unwrap_or(&records[0]);
    match input.byte() % 5 {
        0 => next.clone(),
        1 => {
            let mut content = content(next);
            let place = usize::from(input.word()) % content.len();
            content[place] ^= input.byte();
            numbered(number, &content)
        }
        2 => {
            let count = input.word();
            numbered(number, input.take(count.into()))
        }
        3 => {
            let count = input.word();
            input.take(count.into()).to_vec()
        }
        _ => {
            let (kind, count) = (input.byte(), input.word());
            let body = input.take(count.into());
            let mut covered = vec![kind, 0, 0, 0];
            covered.extend((body.len() as u32).to_le_bytes());
            let digest = Digest::of(&[covered.as_slice(), body].concat());
            numbered(number, &[covered.as_slice(), &digest.0, body].concat())
        }
    }
}

fn content(record: &[u8]) -> Vec<u8> {
    let length = u32::from_le_bytes(record[8..HEADER_BYTES].try_into().expect("four bytes"));
    let content = lz4_flex::block::decompress(&record[HEADER_BYTES..], length as usize);
    content.expect("a record is compressed")
}

fn numbered(number: usize, content: &[u8]) -> Vec<u8> {
    let mut record = (number as u64).to_le_bytes().to_vec();
    record.extend((content.len() as u32).to_le_bytes());
    record.extend(lz4_flex::block::compress(content));
    record
}

/// The records of a small machine, and the digest of its memory.
pub(super) fn whole() -> (Vec<Vec<u8>>, Digest) {
    let memory = memory::allocate(MEMORY_BYTES_MIN).expect("memory");
    let pages = MEMORY_BYTES_MIN / PAGE_BYTES as u64;
    for page in (0..pages).step_by(8) {
        let place = GuestAddress(page * PAGE_BYTES as u64 + page);
        memory.write_obj(page + 1, place).expect("a place in memory");
    }
    let (mut sender, first) = Sender::new(PAIR, MEMORY_BYTES_MIN);
    let mut records = vec![first];
    let mut round = Round::first(memory.clone(), PageSet::first(pages));
    while let Some(pages) = round.next_pages() {
        records.extend(sender.pages(pages));
    }
    let machine = machine();
    records.extend(sender.last(Capture {
        machine,
        position: POSITION,
    }));
    let digest = digest(&memory);
    (records, digest)
}

fn digest(memory: &Memory) -> Digest {
    memory::digest(memory).expect("memory can be read")
}

pub(super) fn machine() -> SavedMachine {
    let board = Board::small([2, 0, 0, 0, 0, 1]).expect("a board");
    SavedMachine {
        memory_bytes: MEMORY_BYTES_MIN,
        position: SavedPosition {
            exits: EXITS,
            ..SavedPosition::default()
        },
        devices: Devices::new(&board)
            .expect("devices")
            .saved()
            .expect("devices have a saved form"),
        ..SavedMachine::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_of_it_is_taken() {
        let count = WHOLE.with(|(records, _)| records.len());
        assert_eq!(count, 5, "the seed `whole` has a step for each record");
        run(&vec![0; count]);
    }
}
