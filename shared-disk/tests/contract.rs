//! What every store promises, over every implementation of the seam.

#![allow(clippy::unwrap_used, clippy::panic)]

use lockstep_shared_disk::fake::FakeStore;
use lockstep_shared_disk::{Claimant, DirectoryStore, Generation, PairName, Store, Verdict};
use std::sync::Arc;
use tempfile::TempDir;

const PAIR: PairName = PairName([7; 16]);

/// A store, and what has to live as long.
type Subject = (Arc<dyn Store>, Option<TempDir>);

fn every_store() -> Vec<Subject> {
    let directory = TempDir::new().unwrap();
    let store = Arc::new(DirectoryStore::new(directory.path()));
    vec![(store, Some(directory)), (Arc::new(FakeStore::default()), None)]
}

fn claimant(number: u8) -> Claimant {
    Claimant::new([number; 16], &format!("claimant {number}"))
}

fn lost_to(number: u8) -> Verdict {
    Verdict::Lost {
        winner: claimant(number),
    }
}

#[tokio::test]
async fn the_first_claimant_wins_for_ever() {
    for (store, _kept) in every_store() {
        let generation = Generation(2);
        for _ in 0..2 {
            let claims = store.open(PAIR).await.unwrap();
            claims.prepare(generation, &claimant(2)).await.unwrap();
            assert_eq!(
                claims.claim(generation, &claimant(1)).await.unwrap(),
                Verdict::Won
            );
            assert_eq!(claims.claim(generation, &claimant(2)).await.unwrap(), lost_to(1));
            assert_eq!(
                claims.claim(generation, &claimant(1)).await.unwrap(),
                Verdict::Won
            );
        }
    }
}

#[tokio::test]
async fn generations_and_pairs_are_claimed_apart() {
    for (store, _kept) in every_store() {
        let claims = store.open(PAIR).await.unwrap();
        let other = store.open(PairName([8; 16])).await.unwrap();
        let claimed = [
            claims.claim(Generation(1), &claimant(1)).await.unwrap(),
            claims.claim(Generation(u32::MAX), &claimant(2)).await.unwrap(),
            other.claim(Generation(1), &claimant(3)).await.unwrap(),
        ];
        assert_eq!(claimed, [Verdict::Won, Verdict::Won, Verdict::Won]);
    }
}

#[tokio::test]
async fn of_questions_asked_beside_each_other_one_wins() {
    for (store, _kept) in every_store() {
        let claims = store.open(PAIR).await.unwrap();
        let asked: Vec<_> = (0..16)
            .map(|number| claims.claim(Generation(2), &claimant(number)))
            .collect();
        let mut won = 0;
        for answer in asked {
            won += usize::from(answer.await.unwrap() == Verdict::Won);
        }
        assert_eq!(won, 1, "{}", store.place());
    }
}

#[tokio::test]
async fn after_the_removal_nobody_wins() {
    for (store, _kept) in every_store() {
        let claims = store.open(PAIR).await.unwrap();
        assert_eq!(
            claims.claim(Generation(2), &claimant(1)).await.unwrap(),
            Verdict::Won
        );
        claims.remove().await.unwrap();
        for number in [1, 2] {
            assert!(
                claims
                    .claim(Generation(2), &claimant(number))
                    .await
                    .unwrap_err()
                    .may_pass()
            );
        }
        assert!(claims.remove().await.is_err());
    }
}

#[tokio::test]
async fn a_store_keeps_its_first_identity() {
    for (store, _kept) in every_store() {
        assert_eq!(store.identity([1; 16]).await.unwrap(), [1; 16]);
        assert_eq!(store.identity([2; 16]).await.unwrap(), [1; 16]);
    }
}
