//! Several sources, in turn: a flood from one keeps no other waiting for longer than a round.

use crate::replica::mutant::{self, Mutant};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    first: usize,
}

impl Turns {
    /// Takes from the first source that has something, of sources `0..count`, asked from the one
    /// behind the last that was taken from.
    pub fn next<T>(&mut self, count: usize, mut ask: impl FnMut(usize) -> Option<T>) -> Option<T> {
        let places = (0..count).map(|place| (self.first + place) % count);
        let (place, brought) = places
            .filter_map(|place| ask(place).map(|brought| (place, brought)))
            .next()?;
        let next = if mutant::is(Mutant::TakeFromTheSame) {
            place
        } else {
            place + 1
        };
        self.first = next % count;
        Some(brought)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places that are taken from, where these have something.
    fn taken(turns: &mut Turns, ready: &[usize]) -> Option<usize> {
        turns.next(3, |place| ready.contains(&place).then_some(place))
    }

    #[test]
    fn where_all_have_something_each_has_its_turn() {
        let mut turns = Turns::default();
        let all: Vec<_> = (0..6).filter_map(|_| taken(&mut turns, &[0, 1, 2])).collect();
        assert_eq!(all, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn one_that_comes_late_is_taken_in_the_next_round_of_a_flood() {
        let mut turns = Turns::default();
        for _ in 0..1_000 {
            assert_eq!(taken(&mut turns, &[0]), Some(0));
        }
        assert_eq!(taken(&mut turns, &[0, 2]), Some(2));
    }

    #[test]
    fn where_none_has_something_the_turn_stays() {
        let mut turns = Turns { first: 2 };
        assert_eq!(taken(&mut turns, &[]), None);
        assert_eq!(taken(&mut turns, &[0, 2]), Some(2));
    }
}
