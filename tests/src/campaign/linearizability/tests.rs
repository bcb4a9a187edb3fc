use super::*;
use crate::campaign::history::Answer;
use crate::simulator::rng::Rng;

/// `client` did `operation` from `invoked_ns` to `at_ns`, and was told `value`.
fn did(client: usize, operation: Operation, invoked_ns: u64, at_ns: u64, value: u64) -> Record {
    Record {
        client,
        key: "key".to_owned(),
        operation,
        invoked_ns,
        answer: Some(Answer { at_ns, value }),
    }
}

fn unanswered(client: usize, operation: Operation, invoked_ns: u64) -> Record {
    Record {
        client,
        key: "key".to_owned(),
        operation,
        invoked_ns,
        answer: None,
    }
}

use Operation::{Increment, Read, Swap, Write};

#[test]
fn what_happened_one_after_the_other_is_accepted() {
    let history = [
        did(1, Read, 0, 1, 0),
        did(1, Write(5), 2, 3, 0),
        did(2, Swap(6), 4, 5, 5),
        did(1, Increment, 6, 7, 7),
    ];
    assert_eq!(check(&history), Ok(()));
    assert_eq!(check(&[]), Ok(()));
}

#[test]
fn a_read_beside_a_write_may_see_either() {
    for seen in [0, 5] {
        assert_eq!(
            check(&[did(1, Write(5), 0, 10, 0), did(2, Read, 3, 4, seen)]),
            Ok(()),
            "{seen}"
        );
    }
}

#[test]
fn an_order_that_the_first_choice_misses_is_found() {
    // Taken in the order of invocation, the second write is last; the read says that it was not.
    let history = [
        did(1, Write(1), 0, 10, 0),
        did(2, Write(2), 1, 9, 0),
        did(3, Read, 11, 12, 1),
    ];
    assert_eq!(check(&history), Ok(()));
}

#[test]
fn a_lost_write_is_found() {
    let history = [did(1, Write(5), 0, 1, 0), did(2, Read, 2, 3, 0)];
    let found = check(&history).unwrap_err();
    assert_eq!(
        found,
        Contradiction {
            explained: 1,
            unexplained: history[1].clone(),
            value: 5
        }
    );
}

#[test]
fn a_lost_increment_is_found() {
    let history = [
        did(1, Increment, 0, 1, 1),
        did(2, Increment, 2, 3, 2),
        did(1, Increment, 4, 5, 2),
    ];
    assert_eq!(check(&history).unwrap_err().unexplained, history[2]);
}

#[test]
fn an_increment_done_twice_is_found() {
    assert!(check(&[did(1, Increment, 0, 1, 1), did(1, Read, 2, 3, 2)]).is_err());
}

#[test]
fn a_value_that_comes_back_is_found() {
    let history = [
        did(1, Write(1), 0, 1, 0),
        did(1, Write(2), 2, 3, 0),
        did(2, Read, 4, 5, 2),
        did(2, Read, 6, 7, 1),
    ];
    assert_eq!(check(&history).unwrap_err().unexplained, history[3]);
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    assert!(check(&[did(1, Write(1), 0, 10, 0), did(2, Read, 3, 4, 9)]).is_err());
}

#[test]
fn two_readers_who_disagree_about_an_order_are_found() {
    let history = [
        did(1, Write(1), 0, 20, 0),
        did(2, Write(2), 0, 20, 0),
        did(3, Read, 1, 2, 1),
        did(3, Read, 3, 4, 2),
        did(4, Read, 5, 6, 1),
    ];
    assert!(check(&history).is_err());
}

#[test]
fn what_was_never_answered_may_have_happened_late_or_not_at_all() {
    let write = unanswered(1, Write(5), 0);
    for seen in [[0, 0], [0, 5], [5, 5]] {
        let history = [
            write.clone(),
            did(2, Read, 10, 11, seen[0]),
            did(2, Read, 12, 13, seen[1]),
        ];
        assert_eq!(check(&history), Ok(()), "{seen:?}");
    }
    let back = [write, did(2, Read, 10, 11, 5), did(2, Read, 12, 13, 0)];
    assert!(check(&back).is_err());
    let early = [did(2, Read, 0, 1, 5), unanswered(1, Write(5), 2)];
    assert!(check(&early).is_err(), "seen before it was asked for");
}

/// A history made by doing operations at chosen moments between their times, so that an order exists.
fn made(rng: &mut Rng, operations: usize) -> Vec<Record> {
    let mut drafts: Vec<(u64, u64, u64, Operation)> = Vec::new();
    for number in 0..operations as u64 {
        let at_ns = number * 10;
        let operation = match rng.below(4) {
            0 => Read,
            1 => Write(rng.below(1_000_000)),
            2 => Swap(rng.below(1_000_000)),
            _ => Increment,
        };
        drafts.push((
            at_ns.saturating_sub(rng.below(40)),
            at_ns,
            at_ns + 1 + rng.below(40),
            operation,
        ));
    }
    let mut value = 0;
    let mut history = Vec::new();
    for (number, (invoked_ns, _, answered_ns, operation)) in drafts.into_iter().enumerate() {
        let mut record = unanswered(number, operation, invoked_ns);
        let after = apply(&record, value).unwrap();
        let told = match operation {
            Read | Swap(_) => value,
            Write(_) => 0,
            Increment => after,
        };
        record.answer = Some(Answer {
            at_ns: answered_ns,
            value: told,
        });
        value = after;
        history.push(record);
    }
    history
}

#[test]
fn whatever_was_made_by_an_order_is_accepted_and_a_wrong_answer_in_it_is_found() {
    let seed = std::env::var("LOCKSTEP_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("LOCKSTEP_SEED={seed}");
    let mut rng = Rng::new(seed);
    for _ in 0..200 {
        let mut history = made(&mut rng, 400);
        assert_eq!(check(&history), Ok(()));
        let wrong = rng.below(400) as usize;
        if let Some(answer) = &mut history[wrong].answer {
            answer.value += 10_000_000;
        }
        assert!(check(&history).is_err(), "answer {wrong}");
    }
}
