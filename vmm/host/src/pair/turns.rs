//! Several futures in turn: a flood of one kind keeps no other waiting for longer than a round.

use lockstep_core::replica::driving::Turns;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// The outcome of the first of `futures` that is ready, in turn. The others are dropped by the
/// caller: they must lose nothing by it.
pub async fn next<T, const N: usize>(
    turns: &mut Turns,
    mut futures: [Pin<&mut (dyn Future<Output = T> + '_)>; N],
) -> T {
    poll_fn(|context| {
        let outcome = turns.next(N, |place| match futures.get_mut(place)?.as_mut().poll(context) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        });
        outcome.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::pin::pin;

    #[tokio::test]
    async fn where_all_are_ready_each_has_its_turn() {
        let mut turns = Turns::default();
        let mut taken = Vec::new();
        for _ in 0..9 {
            let (one, two, three) = (pin!(ready(1)), pin!(ready(2)), pin!(ready(3)));
            taken.push(next(&mut turns, [one, two, three]).await);
        }
        assert_eq!(taken, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
    }

    #[tokio::test]
    async fn one_that_comes_late_is_taken_in_the_next_round_of_a_flood() {
        let mut turns = Turns::default();
        for _ in 0..1_000 {
            let (flood, stop) = (pin!(ready("flood")), pin!(pending()));
            assert_eq!(next(&mut turns, [flood, stop]).await, "flood");
        }
        let (flood, stop) = (pin!(ready("flood")), pin!(ready("stop")));
        assert_eq!(next(&mut turns, [flood, stop]).await, "stop");
    }

    #[tokio::test]
    async fn one_that_is_not_ready_waits_for_the_others() {
        let mut turns = Turns::default();
        let later = async {
            tokio::task::yield_now().await;
            "later"
        };
        let (never, later) = (pin!(pending()), pin!(later));
        assert_eq!(next(&mut turns, [never, later]).await, "later");
    }
}
