use proptest::prelude::*;

use super::*;

const NOTHING: [u64; 0] = [];

fn released<T>(outputs: impl Iterator<Item = (Sequence, T)>) -> Vec<u64> {
    outputs.map(|(sequence, _)| sequence.0).collect()
}

fn holding(sequences: &[u64]) -> Gate<()> {
    let mut gate = Gate::default();
    for sequence in sequences {
        assert_eq!(gate.hold(Sequence(*sequence), 10, ()), None);
    }
    gate
}

#[test]
fn nothing_leaves_before_its_entry_is_acknowledged() {
    let mut gate = holding(&[3, 5, 9]);
    assert_eq!(released(gate.acknowledge(Sequence(2))), NOTHING);
    assert_eq!(released(gate.acknowledge(Sequence(5))), [3, 5]);
    assert_eq!(released(gate.acknowledge(Sequence(8))), NOTHING);
    assert_eq!((gate.held(), gate.held_bytes()), (1, 10));
    assert_eq!(released(gate.acknowledge(Sequence(9))), [9]);
    assert_eq!((gate.held(), gate.held_bytes()), (0, 0));
}

#[test]
fn an_open_gate_lets_everything_pass() {
    let mut gate = holding(&[1, 2]);
    assert_eq!(released(gate.open()), [1, 2]);
    assert_eq!(gate.hold(Sequence(3), 10, ()), Some(()));
    assert_eq!(gate.held(), 0);
}

#[test]
fn a_shut_gate_lets_nothing_pass() {
    let mut gate = holding(&[1, 2]);
    assert_eq!(gate.discard(), 2);
    assert_eq!(gate.hold(Sequence(3), 10, ()), None);
    assert_eq!(released(gate.acknowledge(Sequence(3))), NOTHING);
    assert_eq!(released(gate.open()), NOTHING);
    assert_eq!(gate.hold(Sequence(4), 10, ()), None);
    assert_eq!((gate.held(), gate.held_bytes()), (0, 0));
}

#[test]
fn what_was_let_out_elsewhere_is_forgotten() {
    let mut gate = holding(&[1, 2, 3]);
    assert_eq!(gate.forget(Sequence(2)), 2);
    assert_eq!(gate.forget(Sequence(4)), 1);
    assert_eq!(gate.hold(Sequence(4), 10, ()), None);
    assert_eq!(gate.hold(Sequence(5), 10, ()), None);
    assert_eq!(released(gate.open()), [5]);
}

#[test]
fn what_is_not_taken_from_the_gate_stays() {
    let mut gate = holding(&[1, 2, 3]);
    assert_eq!(released(gate.acknowledge(Sequence(3)).take(1)), [1]);
    assert_eq!(released(gate.acknowledge(Sequence(3))), [2, 3]);
}

#[test]
fn outputs_of_one_entry_leave_together_in_their_order() {
    let mut gate = Gate::default();
    for (sequence, text) in [(2, "a"), (2, "b"), (3, "c")] {
        assert_eq!(gate.hold(Sequence(sequence), 1, text), None);
    }
    let left: Vec<_> = gate.acknowledge(Sequence(2)).map(|(_, text)| text).collect();
    assert_eq!((left, gate.held()), (vec!["a", "b"], 1));
    gate.forget(Sequence(3));
    assert_eq!(gate.hold(Sequence(3), 1, "d"), None);
    assert_eq!(gate.held(), 0);
}

#[test]
#[should_panic(expected = "after that of")]
fn an_output_out_of_order_is_a_defect() {
    let _ = holding(&[3, 2]);
}

/// One use of the gate.
#[derive(Clone, Debug)]
enum Use {
    Hold { step: u64, bytes: usize },
    Acknowledge(u64),
    Forget(u64),
    Open,
    Discard,
}

fn a_use() -> impl Strategy<Value = Use> {
    prop_oneof![
        12 => (1..4_u64, 0..2000_usize).prop_map(|(step, bytes)| Use::Hold { step, bytes }),
        6 => (0..200_u64).prop_map(Use::Acknowledge),
        2 => (0..200_u64).prop_map(Use::Forget),
        1 => Just(Use::Open),
        1 => Just(Use::Discard),
    ]
}

/// The gate as it is meant, with no care for cost: every output there ever was, and what has become
/// of it.
#[derive(Default)]
struct Model {
    waiting: Vec<(u64, usize)>,
    forgotten: u64,
    open: bool,
    shut: bool,
}

impl Model {
    fn take(&mut self, through: u64) -> Vec<u64> {
        let (out, rest) = self
            .waiting
            .iter()
            .partition(|(sequence, _)| *sequence <= through);
        self.waiting = rest;
        let out: Vec<(u64, usize)> = out;
        out.into_iter().map(|(sequence, _)| sequence).collect()
    }
}

/// Applies one use to both and gives what left each.
fn both(gate: &mut Gate<u64>, model: &mut Model, next: &mut u64, use_: &Use) -> (Vec<u64>, Vec<u64>) {
    match *use_ {
        Use::Hold { step, bytes } => {
            *next += step;
            let out = gate.hold(Sequence(*next), bytes, *next).into_iter().collect();
            if !model.shut && *next > model.forgotten {
                model.waiting.push((*next, bytes));
            }
            (
                out,
                if model.open {
                    model.take(u64::MAX)
                } else {
                    Vec::new()
                },
            )
        }
        Use::Acknowledge(n) => (released(gate.acknowledge(Sequence(n))), model.take(n)),
        Use::Forget(n) => {
            model.forgotten = model.forgotten.max(n);
            assert_eq!(gate.forget(Sequence(n)), model.take(n).len());
            (Vec::new(), Vec::new())
        }
        Use::Open => {
            model.open = !model.shut;
            (released(gate.open()), model.take(u64::MAX))
        }
        Use::Discard => {
            assert_eq!(gate.discard(), model.waiting.len());
            *model = Model {
                shut: true,
                ..Model::default()
            };
            (Vec::new(), Vec::new())
        }
    }
}

proptest! {
    #[test]
    fn a_gate_does_as_its_model(uses in prop::collection::vec(a_use(), 0..200)) {
        let (mut gate, mut model, mut next) = (Gate::default(), Model::default(), 0);
        for use_ in &uses {
            let (left, expected) = both(&mut gate, &mut model, &mut next, use_);
            prop_assert_eq!(left, expected);
            prop_assert_eq!(gate.held(), model.waiting.len());
            prop_assert_eq!(gate.held_bytes(), model.waiting.iter().map(|(_, bytes)| bytes).sum::<usize>());
        }
    }
}

#[test]
fn a_gate_that_was_open_holds_again() {
    let mut gate = holding(&[1]);
    assert_eq!(released(gate.open()), [1]);
    gate.close();
    assert_eq!(gate.hold(Sequence(2), 10, ()), None);
    assert_eq!(released(gate.acknowledge(Sequence(2))), [2]);
    gate.discard();
    gate.close();
    assert_eq!(gate.hold(Sequence(3), 10, ()), None);
    assert_eq!(gate.held(), 0);
}
