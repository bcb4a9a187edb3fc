//! What may begin when, and random requests against a disk that does one after the other.

use super::*;
use proptest::prelude::*;

const BLOCK: u64 = 512;

fn request(number: u64, operation: Operation) -> Request {
    Request { number, operation }
}

fn read(number: u64, block: u64) -> Request {
    let operation = Operation::Read {
        offset_bytes: block * BLOCK,
        length_bytes: BLOCK as u32,
    };
    request(number, operation)
}

fn write(number: u64, block: u64) -> Request {
    let operation = Operation::Write {
        offset_bytes: block * BLOCK,
        bytes: vec![number as u8; BLOCK as usize],
    };
    request(number, operation)
}

fn flush(number: u64) -> Request {
    request(number, Operation::Flush)
}

fn zeroes(number: u64, block: u64, blocks: u64) -> Request {
    let operation = Operation::WriteZeroes {
        offset_bytes: block * BLOCK,
        length_bytes: blocks * BLOCK,
        may_unmap: true,
    };
    request(number, operation)
}

fn own(requests: impl IntoIterator<Item = Request>) -> DiskOrder {
    let mut order = DiskOrder::new(Held::Alone, true);
    requests.into_iter().for_each(|request| order.ask(request));
    order
}

/// Numbers of all that may begin now.
fn begin(order: &mut DiskOrder) -> Vec<u64> {
    std::iter::from_fn(|| order.start())
        .map(|request| request.number)
        .collect()
}

fn done(order: &mut DiskOrder, number: u64) {
    assert!(order.done(number, ReadData::Nothing));
}

#[test]
fn what_touches_the_same_bytes_waits_for_what_came_before() {
    let mut order = own([
        write(0, 3),
        read(1, 3),
        write(2, 4),
        zeroes(3, 2, 2),
        read(4, 9),
        read(5, 9),
    ]);
    assert_eq!(begin(&mut order), [0, 2, 4, 5]);
    done(&mut order, 2);
    assert!(begin(&mut order).is_empty());
    done(&mut order, 0);
    assert_eq!(begin(&mut order), [1]);
    assert!(order.done(1, ReadData::Bytes(vec![0; 512])));
    assert_eq!(begin(&mut order), [3]);
}

#[test]
fn a_flush_waits_for_every_change_before_it_and_nothing_for_a_flush() {
    let mut order = own([write(0, 0), read(1, 5), flush(2), write(3, 1), flush(4)]);
    assert_eq!(begin(&mut order), [0, 1, 3]);
    done(&mut order, 0);
    assert_eq!(begin(&mut order), [2], "no read holds it up");
    done(&mut order, 3);
    assert_eq!(begin(&mut order), [4], "nor another flush");
}

#[test]
fn changes_of_a_shared_disk_leave_when_the_gate_lets_them() {
    let mut order = DiskOrder::new(Held::Shared, true);
    for request in [write(0, 0), read(1, 0), read(2, 1), write(3, 2), flush(4)] {
        order.ask(request);
    }
    assert_eq!(
        begin(&mut order),
        [2],
        "a read does not wait, unless behind a write that does"
    );
    order.release(0);
    assert_eq!(begin(&mut order), [0]);
    done(&mut order, 0);
    assert_eq!(begin(&mut order), [1]);
    order.release(4);
    assert_eq!(begin(&mut order), [3]);
    done(&mut order, 3);
    assert_eq!(begin(&mut order), [4]);
}

#[test]
fn who_does_not_act_touches_no_shared_disk_and_then_does_what_is_left_in_order() {
    let mut order = DiskOrder::new(Held::Shared, false);
    for request in [write(0, 0), write(1, 0), read(2, 7), write(3, 0)] {
        order.ask(request);
    }
    order.release(3);
    assert!(begin(&mut order).is_empty());
    assert_eq!(order.replayed(0), None);
    order.go_live();
    assert_eq!(begin(&mut order), [1, 2]);
    done(&mut order, 1);
    assert_eq!(begin(&mut order), [3]);
}

#[test]
fn who_replays_on_a_disk_of_its_own_does_everything_at_once() {
    let mut order = DiskOrder::new(Held::Alone, false);
    order.ask(write(0, 0));
    order.ask(read(1, 1));
    assert_eq!(begin(&mut order), [0, 1]);
    assert!(!order.is_done(1));
    assert!(order.done(1, ReadData::Bytes(vec![5; 512])));
    assert!(order.is_done(1));
    let own = OwnRead {
        offset_bytes: 512,
        bytes: vec![5; 512],
    };
    assert_eq!(order.replayed(1), Some(own));
    done(&mut order, 0);
    order.go_live();
    let number = order.completed().map(|completion| completion.number);
    assert_eq!(number, Some(0), "what is done and not in the log arrives");
    assert_eq!(order.completed(), None);
    assert!(order.is_idle());
}

#[test]
fn what_is_known_is_not_done_again() {
    let mut order = own([write(4, 0)]);
    assert_eq!(begin(&mut order), [4]);
    for number in [3, 4] {
        order.ask(write(number, 0));
    }
    assert!(begin(&mut order).is_empty());
    done(&mut order, 4);
    assert!(!order.done(4, ReadData::Nothing), "once");
    assert!(!order.done(9, ReadData::Nothing));
    assert!(order.completed().is_some());
    order.ask(write(4, 0));
    assert!(order.is_idle());
}

const BLOCKS: usize = 6;

fn operation() -> impl Strategy<Value = Operation> {
    let range = (0..BLOCKS as u64, 1..3_u64).prop_map(|(block, blocks)| {
        let end = (block + blocks).min(BLOCKS as u64);
        (block * BLOCK, (end - block) * BLOCK)
    });
    (0..8_u8, range, any::<u8>()).prop_map(|(kind, (offset_bytes, length_bytes), byte)| match kind {
        0..=2 => Operation::Write {
            offset_bytes,
            bytes: vec![byte; length_bytes as usize],
        },
        3 | 4 => Operation::Read {
            offset_bytes,
            length_bytes: length_bytes as u32,
        },
        5 => Operation::Flush,
        6 => Operation::Discard {
            offset_bytes,
            length_bytes,
        },
        _ => Operation::WriteZeroes {
            offset_bytes,
            length_bytes,
            may_unmap: false,
        },
    })
}

/// Does it, and gives what it reads.
fn carry_out(disk: &mut [u8], operation: &Operation) -> ReadData {
    let Some(range) = operation.range() else {
        return ReadData::Nothing;
    };
    let bytes = &mut disk[range.start as usize..range.end as usize];
    match operation {
        Operation::Read { .. } => return ReadData::Bytes(bytes.to_vec()),
        Operation::Write { bytes: written, .. } => bytes.copy_from_slice(written),
        _ => bytes.fill(0),
    }
    ReadData::Nothing
}

/// A thing that happens next.
#[derive(Clone, Debug)]
enum Happens {
    Asked(Operation),
    Released,
    /// Something that was begun is done: which of them.
    Done(usize),
    LiveElsewhere,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => operation().prop_map(Happens::Asked),
        2 => Just(Happens::Released),
        5 => any::<usize>().prop_map(Happens::Done),
        1 => Just(Happens::LiveElsewhere),
    ]
}

/// A disk whose requests are done in any order that is allowed.
struct Random {
    order: DiskOrder,
    held: Held,
    disk: Vec<u8>,
    begun: Vec<Request>,
    asked: Vec<Operation>,
    results: Vec<Option<ReadData>>,
}

impl Random {
    fn new(held: Held) -> Self {
        Self {
            order: DiskOrder::new(held, true),
            held,
            disk: vec![0xff; BLOCKS * BLOCK as usize],
            begun: Vec::new(),
            asked: Vec::new(),
            results: Vec::new(),
        }
    }

    fn happens(&mut self, what: Happens) {
        match what {
            Happens::Asked(operation) => {
                let number = self.asked.len() as u64;
                self.asked.push(operation.clone());
                self.results.push(None);
                self.order.ask(Request { number, operation });
            }
            Happens::Released => self.order.release(self.asked.len() as u64),
            Happens::Done(which) if !self.begun.is_empty() => {
                let request = self.begun.remove(which % self.begun.len());
                let read = carry_out(&mut self.disk, &request.operation);
                self.results[request.number as usize] = Some(read.clone());
                assert!(self.order.done(request.number, read));
            }
            Happens::Done(_) => {}
            Happens::LiveElsewhere => self.live_elsewhere(),
        }
        while let Some(request) = self.order.start() {
            if request.operation == Operation::Flush {
                let before = self.asked.iter().zip(&self.results).take(request.number as usize);
                let undone = before.filter(|(operation, result)| operation.changes() && result.is_none());
                assert_eq!(undone.count(), 0, "a flush has begun");
            }
            self.begun.push(request);
        }
    }

    /// The machine is gone; what it had begun is done in part, and the other side, which has
    /// replayed everything and knows of some of the completions, does the rest.
    fn live_elsewhere(&mut self) {
        for request in std::mem::take(&mut self.begun) {
            if request.number % 2 == 0 {
                carry_out(&mut self.disk, &request.operation);
            }
        }
        let mut order = DiskOrder::new(self.held, false);
        for (number, operation) in (0..).zip(&self.asked) {
            let operation = operation.clone();
            order.ask(Request { number, operation });
        }
        for (number, result) in (0..).zip(&self.results) {
            if result.is_some() {
                assert!(self.held == Held::Alone || order.start().is_none());
                order.replayed(number);
            }
        }
        order.go_live();
        self.order = order;
    }

    /// Finishes everything, and compares it with one request after the other.
    fn finish(mut self) {
        while !self.order.is_idle() {
            self.happens(Happens::Released);
            self.happens(Happens::Done(0));
        }
        let mut disk = vec![0xff; BLOCKS * BLOCK as usize];
        for (operation, result) in self.asked.iter().zip(&self.results) {
            let expected = carry_out(&mut disk, operation);
            assert_eq!(result.as_ref(), Some(&expected), "{operation:?}");
        }
        assert_eq!(self.disk, disk);
    }
}

proptest! {
    #[test]
    fn in_any_order_it_is_as_one_after_the_other(
        shared: bool,
        steps in proptest::collection::vec(happens(), 0..60),
    ) {
        let mut random = Random::new(if shared { Held::Shared } else { Held::Alone });
        for step in steps {
            random.happens(step);
        }
        random.finish();
    }
}
