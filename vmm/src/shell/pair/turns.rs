//! Several things that may happen, in turn: a flood of one kind keeps no other waiting for longer than a round.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Turns {
    first: usize,
}

impl Turns {
    /// The outcome of the first of `futures` that is ready, asked from the one behind the last winner on. The others are
    /// dropped by the caller: they must lose nothing by it.
    pub async fn next<T, const N: usize>(
        &mut self,
        mut futures: [Pin<&mut (dyn Future<Output = T> + '_)>; N],
    ) -> T {
        poll_fn(|context| {
            let (behind, before) = futures.split_at_mut(self.first % N);
            for (place, future) in before.iter_mut().chain(behind).enumerate() {
                if let Poll::Ready(outcome) = future.as_mut().poll(context) {
                    self.first = (self.first + place + 1) % N;
                    return Poll::Ready(outcome);
                }
            }
            Poll::Pending
        })
        .await
    }
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
            taken.push(turns.next([one, two, three]).await);
        }
        assert_eq!(taken, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
    }

    #[tokio::test]
    async fn one_that_comes_late_is_taken_in_the_next_round_of_a_flood() {
        let mut turns = Turns::default();
        for _ in 0..1_000 {
            let (flood, stop) = (pin!(ready("flood")), pin!(pending()));
            assert_eq!(turns.next([flood, stop]).await, "flood");
        }
        let (flood, stop) = (pin!(ready("flood")), pin!(ready("stop")));
        assert_eq!(turns.next([flood, stop]).await, "stop");
    }

    #[tokio::test]
    async fn one_that_is_not_ready_waits_for_the_others() {
        let mut turns = Turns { first: 2 };
        let later = async {
            tokio::task::yield_now().await;
            "later"
        };
        let (never, later) = (pin!(pending()), pin!(later));
        assert_eq!(turns.next([never, later]).await, "later");
    }
}
