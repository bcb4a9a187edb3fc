//! Tests of the promises of every store, over every implementation of the seam.

#![allow(clippy::unwrap_used, clippy::panic)]

use lockstep_shared_disk::fake::{FakeStore, claim, party};
use lockstep_shared_disk::{
    Backup, DirectoryStore, Ended, Generation, Line, MachineId, MachineName, MachineStore, Seen, Store,
    Verdict,
};
use std::sync::Arc;
use tempfile::TempDir;

/// A store, and what has to live as long.
type Subject = (Arc<dyn Store>, Option<TempDir>);

fn every_store() -> Vec<Subject> {
    let directory = TempDir::new().unwrap();
    let store = Arc::new(DirectoryStore::new(directory.path()));
    vec![(store, Some(directory)), (Arc::new(FakeStore::default()), None)]
}

fn name(text: &str) -> MachineName {
    text.parse().unwrap()
}

/// A machine in each store.
async fn every_machine() -> Vec<(Arc<dyn MachineStore>, Option<TempDir>)> {
    let mut machines = Vec::new();
    for (store, kept) in every_store() {
        machines.push((store.open(&name("web")).await.unwrap(), kept));
    }
    machines
}

fn lost_to(generation: Generation, number: u8) -> Verdict {
    Verdict::Lost {
        winner: claim(generation, number),
    }
}

#[tokio::test]
async fn the_first_claimant_wins_for_ever() {
    for (store, _kept) in every_store() {
        let generation = Generation(2);
        for _ in 0..2 {
            let machine = store.open(&name("web")).await.unwrap();
            machine.prepare(&claim(generation, 2)).await.unwrap();
            let first = machine.claim(&claim(generation, 1)).await.unwrap();
            let second = machine.claim(&claim(generation, 2)).await.unwrap();
            let again = machine.claim(&claim(generation, 1)).await.unwrap();
            assert_eq!(
                [first, second, again],
                [Verdict::Won, lost_to(generation, 1), Verdict::Won]
            );
        }
    }
}

#[tokio::test]
async fn generations_and_machines_are_claimed_apart() {
    for (store, _kept) in every_store() {
        let machine = store.open(&name("web")).await.unwrap();
        let other = store.open(&name("mail")).await.unwrap();
        let claimed = [
            machine.claim(&claim(Generation(1), 1)).await.unwrap(),
            machine.claim(&claim(Generation(2), 2)).await.unwrap(),
            other.claim(&claim(Generation(1), 3)).await.unwrap(),
        ];
        assert_eq!(claimed, [Verdict::Won, Verdict::Won, Verdict::Won]);
    }
}

#[tokio::test]
async fn a_claim_of_another_machine_by_the_same_party_is_lost() {
    for (machine, _kept) in every_machine().await {
        let first = claim(Generation(1), 1);
        let mut other = first.clone();
        other.machine = MachineId([8; 16]);
        assert_eq!(machine.claim(&first).await.unwrap(), Verdict::Won);
        assert_eq!(machine.claim(&other).await.unwrap(), lost_to(Generation(1), 1));
    }
}

#[tokio::test]
async fn of_questions_asked_beside_each_other_one_wins() {
    for (machine, _kept) in every_machine().await {
        let asked: Vec<_> = (0..16)
            .map(|number| machine.claim(&claim(Generation(2), number)))
            .collect();
        let mut won = 0;
        for answer in asked {
            won += usize::from(answer.await.unwrap() == Verdict::Won);
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn claims_are_remembered_in_order() {
    for (machine, _kept) in every_machine().await {
        assert_eq!(machine.newest().await.unwrap(), None);
        let claims: Vec<_> = (1..=12).map(|number| claim(Generation(number), 1)).collect();
        for claim in &claims {
            assert_eq!(machine.claim(claim).await.unwrap(), Verdict::Won);
        }
        assert_eq!(machine.newest().await.unwrap().as_ref(), claims.last());
        assert_eq!(machine.history().await.unwrap(), claims);
    }
}

#[tokio::test]
async fn the_last_sign_of_life_is_seen() {
    for (machine, _kept) in every_machine().await {
        let seen = |generation, counter| Seen::new(Generation(generation), [1; 16], counter, "{}").unwrap();
        assert_eq!(machine.seen(Generation(1)).await.unwrap(), None);
        for counter in [1, 2] {
            machine.put_seen(&seen(1, counter)).await.unwrap();
        }
        assert_eq!(machine.seen(Generation(1)).await.unwrap(), Some(seen(1, 2)));
        machine.put_seen(&seen(2, 1)).await.unwrap();
        assert_eq!(machine.seen(Generation(2)).await.unwrap(), Some(seen(2, 1)));
    }
}

#[tokio::test]
async fn newcomers_are_recorded_with_their_generation_until_they_are_forgotten() {
    for (machine, _kept) in every_machine().await {
        let backup = |generation, number| Backup {
            generation: Generation(generation),
            party: party(number),
        };
        for (generation, number) in [(1, 2), (2, 2), (2, 1), (2, 1)] {
            machine.put_backup(&backup(generation, number)).await.unwrap();
        }
        let found = machine.backups(Generation(2)).await.unwrap();
        assert_eq!(found, [backup(2, 1), backup(2, 2)]);
        for _ in 0..2 {
            machine.remove_backup(Generation(2), [1; 16]).await.unwrap();
        }
        assert_eq!(machine.backups(Generation(2)).await.unwrap(), [backup(2, 2)]);
        assert_eq!(machine.backups(Generation(3)).await.unwrap(), []);
    }
}

#[tokio::test]
async fn the_first_record_of_an_end_stays() {
    for (machine, _kept) in every_machine().await {
        let ended = |how| Ended {
            generation: Generation(1),
            machine: MachineId([9; 16]),
            how: Line::shortened(how),
            at_unix_s: 1,
        };
        assert_eq!(machine.ended(Generation(1)).await.unwrap(), None);
        machine.put_ended(&ended("powered off")).await.unwrap();
        machine.put_ended(&ended("stopped")).await.unwrap();
        assert_eq!(
            machine.ended(Generation(1)).await.unwrap(),
            Some(ended("powered off"))
        );
        assert_eq!(machine.ended(Generation(2)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn looking_makes_nothing_and_opening_does() {
    for (store, _kept) in every_store() {
        assert!(store.find(&name("web")).await.unwrap().is_none());
        assert_eq!(store.names().await.unwrap(), []);
        for text in ["web", "mail", "web"] {
            let _ = store.open(&name(text)).await.unwrap();
        }
        assert!(store.find(&name("web")).await.unwrap().is_some());
        assert_eq!(store.names().await.unwrap(), [name("mail"), name("web")]);
    }
}

#[tokio::test]
async fn what_is_expected_is_not_made_and_is_found_once_somebody_has_opened_it() {
    for (store, _kept) in every_store() {
        let expected = store.expect(&name("web"));
        assert_eq!(expected.newest().await.unwrap(), None);
        assert_eq!(expected.backups(Generation(1)).await.unwrap(), []);
        expected.forget_prepared([1; 16]).await.unwrap();
        assert_eq!(store.names().await.unwrap(), []);
        let machine = store.open(&name("web")).await.unwrap();
        let first = claim(Generation(1), 1);
        assert_eq!(machine.claim(&first).await.unwrap(), Verdict::Won);
        assert_eq!(expected.newest().await.unwrap(), Some(first));
        assert_eq!(
            expected.claim(&claim(Generation(2), 2)).await.unwrap(),
            Verdict::Won
        );
    }
}

#[tokio::test]
async fn what_is_prepared_beside_the_end_of_its_party_is_forgotten_and_can_be_claimed() {
    for (machine, _kept) in every_machine().await {
        let (own, generation) = (claim(Generation(1), 1), Generation(1));
        let asked: Vec<_> = (0..8)
            .flat_map(|_| [machine.prepare(&own), machine.forget_prepared(own.party.id)])
            .collect();
        for answer in asked {
            answer.await.unwrap();
        }
        if let Some(folder) = machine.folder() {
            let names = std::fs::read_dir(folder).unwrap();
            let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["machine"]);
        }
        assert_eq!(machine.claim(&own).await.unwrap(), Verdict::Won);
        assert_eq!(machine.newest().await.unwrap().unwrap().generation, generation);
    }
}

#[tokio::test]
async fn a_store_keeps_its_first_identity() {
    for (store, _kept) in every_store() {
        assert_eq!(store.identity([1; 16]).await.unwrap(), [1; 16]);
        assert_eq!(store.identity([2; 16]).await.unwrap(), [1; 16]);
    }
}
