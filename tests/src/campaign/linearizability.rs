//! Whether the operations on one key can have happened one after the other, each between its invocation and its answer, and given the
//! answers they gave.
//!
//! The search of Wing and Gong (1993) with the memory of Lowe (2017): operations are taken in any order that their times allow, and a set
//! of operations with the value it leads to is looked at once. One that was never answered may have taken effect at any time after
//! its invocation, or not at all. Limit: the time grows with the number of operations that overlap, which here is that of the clients.

use super::history::{Operation, Record};
use std::collections::HashSet;

/// Why there is no such order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Operations in the longest order found.
    pub explained: usize,
    /// The operation that no order explains after these.
    pub unexplained: Record,
    /// The value that the key had there.
    pub value: u64,
}

/// The value after `operation`, if its answer can have come where the key held `value`.
fn apply(record: &Record, value: u64) -> Option<u64> {
    let (after, told) = match record.operation {
        Operation::Read => (value, value),
        Operation::Write(written) => (written, 0),
        Operation::Swap(written) => (written, value),
        Operation::Increment => (value + 1, value + 1),
    };
    record
        .answer
        .is_none_or(|answer| answer.value == told)
        .then_some(after)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Invoked(usize),
    Answered(usize),
}

/// Invocations and answers in the order of their times, as a list from which operations can be taken out and put back.
struct Timeline {
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of each operation: where its invocation and, if it has one, its answer stand.
    places: Vec<(usize, Option<usize>)>,
    /// Answers still in the list.
    unanswered: usize,
}

/// The place before the first event; events stand from 1 on.
const HEAD: usize = 0;

impl Timeline {
    fn new(records: &[Record]) -> Self {
        let mut timed: Vec<(u64, bool, Event)> = Vec::new();
        for (number, record) in records.iter().enumerate() {
            timed.push((record.invoked_ns, false, Event::Invoked(number)));
            timed.extend(
                record
                    .answer
                    .map(|answer| (answer.at_ns, true, Event::Answered(number))),
            );
        }
        // At the same time invocations come first: that allows more orders, not fewer.
        timed.sort_by_key(|(at_ns, answers, _)| (*at_ns, *answers));
        let mut places = vec![(HEAD, None); records.len()];
        for (place, (_, _, event)) in timed.iter().enumerate() {
            match event {
                Event::Invoked(number) => places[*number].0 = place + 1,
                Event::Answered(number) => places[*number].1 = Some(place + 1),
            }
        }
        let count = timed.len();
        Self {
            events: timed.into_iter().map(|(_, _, event)| event).collect(),
            next: (1..=count).chain([HEAD, HEAD]).take(count + 1).collect(),
            previous: std::iter::once(count).chain(0..count).collect(),
            unanswered: records.iter().filter(|record| record.answer.is_some()).count(),
            places,
        }
    }

    fn event(&self, place: usize) -> Option<Event> {
        (place != HEAD).then(|| self.events[place - 1])
    }

    fn unlink(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn link(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = place;
        self.previous[next] = place;
    }

    fn take_out(&mut self, operation: usize) {
        let (invoked, answered) = self.places[operation];
        self.unlink(invoked);
        if let Some(answered) = answered {
            self.unlink(answered);
            self.unanswered -= 1;
        }
    }

    /// Undoes the last [`Timeline::take_out`].
    fn put_back(&mut self, operation: usize) {
        let (invoked, answered) = self.places[operation];
        if let Some(answered) = answered {
            self.link(answered);
            self.unanswered += 1;
        }
        self.link(invoked);
    }
}

/// A set of operations.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Vec<u64>);

impl Taken {
    fn flip(&mut self, operation: usize) {
        self.0[operation / 64] ^= 1 << (operation % 64);
    }
}

/// Looks for an order of `records`, all of one key, which holds 0 at first.
///
/// # Errors
/// [`Contradiction`]: there is none.
pub fn check(records: &[Record]) -> Result<(), Contradiction> {
    let mut timeline = Timeline::new(records);
    let mut taken = Taken(vec![0; records.len().div_ceil(64)]);
    let mut seen = HashSet::from([(taken.clone(), 0)]);
    let mut order: Vec<(usize, u64)> = Vec::new();
    let mut value = 0;
    let mut place = timeline.next[HEAD];
    let mut best: Option<Contradiction> = None;
    while timeline.unanswered > 0 {
        if let Some(Event::Invoked(operation)) = timeline.event(place) {
            if let Some(after) = apply(&records[operation], value) {
                taken.flip(operation);
                if seen.insert((taken.clone(), after)) {
                    order.push((operation, value));
                    value = after;
                    timeline.take_out(operation);
                    place = timeline.next[HEAD];
                    continue;
                }
                taken.flip(operation);
            }
            place = timeline.next[place];
            continue;
        }
        // An answer that came before anything else could be taken, or the end: the last choice was wrong.
        if let Some(Event::Answered(operation)) = timeline.event(place)
            && best.as_ref().is_none_or(|best| order.len() >= best.explained)
        {
            best = Some(Contradiction {
                explained: order.len(),
                unexplained: records[operation].clone(),
                value,
            });
        }
        let Some((operation, before)) = order.pop() else {
            return best.map_or(Ok(()), Err);
        };
        value = before;
        taken.flip(operation);
        timeline.put_back(operation);
        place = timeline.next[timeline.places[operation].0];
    }
    Ok(())
}

#[cfg(test)]
mod tests;
