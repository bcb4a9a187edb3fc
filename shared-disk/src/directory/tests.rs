use std::panic::{AssertUnwindSafe, catch_unwind};

use tempfile::TempDir;

use std::fs;
use std::io::ErrorKind;

use super::claims::encode;
use super::*;
use crate::publish::{Step, classify};

const PAIR: PairName = PairName([7; 16]);
const GENERATION: Generation = Generation(2);

/// More steps than a claim has.
const STEPS: usize = 12;

fn store() -> (TempDir, DirectoryClaims) {
    let directory = TempDir::new().unwrap();
    let store = DirectoryClaims::open(directory.path(), PAIR).unwrap();
    (directory, store)
}

fn claimant(number: u8) -> Claimant {
    Claimant::new([number; 16], &format!("claimant {number}"))
}

fn lost_to(number: u8) -> Verdict {
    Verdict::Lost {
        winner: claimant(number),
    }
}

fn files(store: &DirectoryClaims) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(store.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Claims and is stopped, as by SIGKILL, after step `at`; gives the steps made.
fn claim_and_stop(store: &DirectoryClaims, claimant: &Claimant, at: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut probe = |step| {
        steps.push(step);
        if steps.len() > at {
            std::panic::resume_unwind(Box::new("stopped"));
        }
        Ok(())
    };
    let _ = catch_unwind(AssertUnwindSafe(|| {
        store.claim_probed(GENERATION, claimant, &mut probe)
    }));
    steps
}

/// Claims, and step `at` says that it failed after having done its work.
fn claim_and_fail(
    store: &DirectoryClaims,
    claimant: &Claimant,
    at: usize,
) -> (Vec<Step>, Result<Verdict, StoreError>) {
    let mut steps = Vec::new();
    let mut probe = |step| {
        steps.push(step);
        if steps.len() == at + 1 {
            Err(std::io::Error::other("injected"))
        } else {
            Ok(())
        }
    };
    let result = store.claim_probed(GENERATION, claimant, &mut probe);
    (steps, result)
}

#[test]
fn the_first_claimant_wins_for_ever() {
    let (directory, store) = store();
    assert_eq!(store.claim(GENERATION, &claimant(1)).unwrap(), Verdict::Won);
    assert_eq!(store.claim(GENERATION, &claimant(2)).unwrap(), lost_to(1));
    assert_eq!(store.claim(GENERATION, &claimant(1)).unwrap(), Verdict::Won);

    let reopened = DirectoryClaims::open(directory.path(), PAIR).unwrap();
    assert_eq!(reopened.claim(GENERATION, &claimant(2)).unwrap(), lost_to(1));
    assert_eq!(reopened.claim(GENERATION, &claimant(1)).unwrap(), Verdict::Won);
    assert_eq!(files(&store), ["generation-0000000002", "pair"]);
}

#[test]
fn generations_and_pairs_are_claimed_apart() {
    let (directory, store) = store();
    let other = DirectoryClaims::open(directory.path(), PairName([8; 16])).unwrap();
    assert_eq!(store.claim(Generation(1), &claimant(1)).unwrap(), Verdict::Won);
    assert_eq!(
        store.claim(Generation(u32::MAX), &claimant(2)).unwrap(),
        Verdict::Won
    );
    assert_eq!(other.claim(Generation(1), &claimant(3)).unwrap(), Verdict::Won);
}

#[test]
fn a_loser_reads_the_label_of_the_winner() {
    let (_directory, store) = store();
    let winner = Claimant::new([1; 16], "backup\non host\u{e9} b");
    store.claim(GENERATION, &winner).unwrap();
    match store.claim(GENERATION, &claimant(2)).unwrap() {
        Verdict::Lost { winner } => assert_eq!(winner.label(), "backupon host b"),
        Verdict::Won => panic!("two winners"),
    }
}

#[test]
fn a_claim_stopped_after_any_step_has_one_winner() {
    for at in 0..STEPS {
        for order in [[1, 2], [2, 1]] {
            let (_directory, store) = store();
            let steps = claim_and_stop(&store, &claimant(1), at);
            let had_won = steps.contains(&Step::Linked);
            let winner = if had_won { 1 } else { order[0] };

            for number in [order[0], order[1], order[0]] {
                let expected = if number == winner {
                    Verdict::Won
                } else {
                    lost_to(winner)
                };
                let found = store.claim(GENERATION, &claimant(number)).unwrap();
                assert_eq!(found, expected, "stopped after {steps:?}, then {order:?}");
            }
            assert_eq!(
                files(&store),
                ["generation-0000000002", "pair"],
                "stopped after {steps:?}"
            );
        }
    }
}

#[test]
fn a_claim_that_fails_after_any_step_has_one_winner() {
    let mut failures = 0;
    for at in 0..STEPS {
        let (_directory, store) = store();
        let (steps, result) = claim_and_fail(&store, &claimant(1), at);
        failures += usize::from(result.is_err());
        let winner = if steps.contains(&Step::Linked) { 1 } else { 2 };
        let expected = if winner == 2 { Verdict::Won } else { lost_to(1) };
        assert_eq!(
            store.claim(GENERATION, &claimant(2)).unwrap(),
            expected,
            "failed in {steps:?}"
        );
        assert_eq!(
            files(&store),
            ["generation-0000000002", "pair"],
            "failed in {steps:?}"
        );
    }
    // Created, both writes, both syncs and the read; a failing link whose name is there has worked, and
    // what cannot be removed does not matter.
    assert_eq!(failures, 6);
}

#[test]
fn a_failed_claim_leaves_no_temporary_file() {
    let (_directory, store) = store();
    let (steps, result) = claim_and_fail(&store, &claimant(1), 3);
    assert_eq!(steps.last(), Some(&Step::FileSynced));
    assert!(matches!(
        result,
        Err(StoreError::Unreachable { doing: "write", .. })
    ));
    assert_eq!(files(&store), ["pair"]);
}

#[test]
fn a_claim_finds_the_winner_when_its_temporary_file_is_swept_away() {
    let (_directory, store) = store();
    let rival = store.clone();
    let mut probe = |step| {
        if step == Step::FileSynced {
            assert_eq!(rival.claim(GENERATION, &claimant(2)).unwrap(), Verdict::Won);
        }
        Ok(())
    };
    let verdict = store.claim_probed(GENERATION, &claimant(1), &mut probe).unwrap();
    assert_eq!(verdict, lost_to(2));
}

#[test]
fn a_prepared_claim_waits_for_the_disk_once() {
    let (_directory, store) = store();
    store.prepare(GENERATION, &claimant(1)).unwrap();
    let (steps, result) = claim_and_fail(&store, &claimant(1), STEPS);
    assert_eq!(result.unwrap(), Verdict::Won);
    assert_eq!(
        steps,
        [Step::Linked, Step::DirectorySynced, Step::Read, Step::Removed]
    );
    assert_eq!(files(&store), ["generation-0000000002", "pair"]);
}

#[test]
fn preparing_claims_nothing() {
    let (_directory, store) = store();
    store.prepare(GENERATION, &claimant(1)).unwrap();
    store.prepare(GENERATION, &claimant(2)).unwrap();
    assert_eq!(store.claim(GENERATION, &claimant(2)).unwrap(), Verdict::Won);
    assert_eq!(store.claim(GENERATION, &claimant(1)).unwrap(), lost_to(2));
    assert_eq!(files(&store), ["generation-0000000002", "pair"]);
}

#[test]
fn what_was_prepared_for_one_generation_is_not_used_for_another() {
    let (_directory, store) = store();
    store.prepare(Generation(3), &claimant(1)).unwrap();
    assert_eq!(store.claim(GENERATION, &claimant(1)).unwrap(), Verdict::Won);
    assert_eq!(store.claim(Generation(3), &claimant(2)).unwrap(), Verdict::Won);
}

/// Prepares, where step `at` of it fails or is the last.
fn prepare_and_break(store: &DirectoryClaims, at: usize, stop: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut probe = |step| {
        steps.push(step);
        match steps.len() > at {
            true if stop => std::panic::resume_unwind(Box::new("stopped")),
            true => Err(std::io::Error::other("injected")),
            false => Ok(()),
        }
    };
    let _ = catch_unwind(AssertUnwindSafe(|| {
        store.prepare_probed(GENERATION, &claimant(1), &mut probe)
    }));
    steps
}

#[test]
fn a_claim_wins_whatever_step_broke_its_preparation() {
    for at in 0..STEPS {
        for stop in [true, false] {
            let (_directory, store) = store();
            let steps = prepare_and_break(&store, at, stop);
            assert_eq!(
                store.claim(GENERATION, &claimant(1)).unwrap(),
                Verdict::Won,
                "{steps:?}"
            );
            assert_eq!(store.claim(GENERATION, &claimant(2)).unwrap(), lost_to(1));
            assert_eq!(
                files(&store),
                ["generation-0000000002", "pair"],
                "broken after {steps:?}"
            );
        }
    }
}

#[test]
fn a_prepared_claim_stopped_after_any_step_has_one_winner() {
    for at in 0..STEPS {
        let (_directory, store) = store();
        store.prepare(GENERATION, &claimant(1)).unwrap();
        let steps = claim_and_stop(&store, &claimant(1), at);
        assert!(steps.contains(&Step::Linked), "{steps:?}");
        assert_eq!(store.claim(GENERATION, &claimant(2)).unwrap(), lost_to(1));
        assert_eq!(store.claim(GENERATION, &claimant(1)).unwrap(), Verdict::Won);
    }
}

#[test]
fn a_prepared_claim_finds_the_winner_that_swept_it_away() {
    let (_directory, store) = store();
    store.prepare(GENERATION, &claimant(1)).unwrap();
    assert_eq!(store.claim(GENERATION, &claimant(2)).unwrap(), Verdict::Won);
    assert_eq!(files(&store), ["generation-0000000002", "pair"]);
    assert_eq!(store.claim(GENERATION, &claimant(1)).unwrap(), lost_to(2));
}

#[test]
fn a_missing_directory_is_refused_at_the_start_and_may_come_back_later() {
    let (directory, store) = store();
    let path = directory.path();
    let away = path.with_extension("away");
    fs::rename(path, &away).unwrap();
    assert!(matches!(
        DirectoryClaims::open(path, PAIR),
        Err(StoreError::Unusable { .. })
    ));
    assert!(matches!(
        store.claim(GENERATION, &claimant(1)),
        Err(StoreError::Unreachable { .. })
    ));

    // An empty mount point is not the storage.
    fs::create_dir(path).unwrap();
    assert!(matches!(
        store.claim(GENERATION, &claimant(1)),
        Err(StoreError::Unreachable { .. })
    ));

    fs::remove_dir(path).unwrap();
    fs::rename(&away, path).unwrap();
    assert_eq!(store.claim(GENERATION, &claimant(1)).unwrap(), Verdict::Won);
}

#[test]
fn what_is_no_directory_is_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "").unwrap();
    let error = DirectoryClaims::open(&path, PAIR).unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }));
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(error.to_string().contains("give a directory"), "{error}");
}

#[test]
fn after_the_removal_nobody_wins() {
    let (directory, store) = store();
    assert_eq!(store.claim(GENERATION, &claimant(1)).unwrap(), Verdict::Won);
    store.prepare(Generation(3), &claimant(2)).unwrap();
    store.remove().unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    for number in [1, 2] {
        for generation in [GENERATION, Generation(3)] {
            let found = store.claim(generation, &claimant(number));
            let error = found.unwrap_err();
            assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
            assert!(error.to_string().contains("is not there"), "{error}");
        }
    }
    assert!(store.remove().is_err());
}

#[test]
fn a_full_storage_is_called_full() {
    let full = classify(Path::new("/shared"), "write", ErrorKind::StorageFull.into()).to_string();
    assert_eq!(
        full,
        "shared storage /shared is full: free some space on it (write)"
    );
}

#[test]
fn errors_are_sorted_into_what_may_pass_and_what_may_not() {
    let sorted = |kind: ErrorKind| classify(Path::new("/shared"), "link", kind.into());
    for kind in [
        ErrorKind::PermissionDenied,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::NotADirectory,
    ] {
        assert!(matches!(sorted(kind), StoreError::Unusable { .. }), "{kind:?}");
    }
    for kind in [
        ErrorKind::StorageFull,
        ErrorKind::StaleNetworkFileHandle,
        ErrorKind::TimedOut,
    ] {
        assert!(matches!(sorted(kind), StoreError::Unreachable { .. }), "{kind:?}");
    }
}

#[test]
fn a_claim_that_is_not_ours_gives_no_verdict() {
    let whole = encode(GENERATION, &claimant(1));
    let other_version = whole.replace("claim 1", "claim 2");
    let other_generation = whole.replace("generation 2", "generation 3");
    let long = whole.clone() + &" ".repeat(5000);
    for text in [
        "",
        "\n\n\n",
        &whole[..60],
        &other_version,
        &other_generation,
        &long,
        &(whole.clone() + "x"),
    ] {
        let (_directory, store) = store();
        fs::write(store.path().join("generation-0000000002"), text).unwrap();
        let found = store.claim(GENERATION, &claimant(1));
        assert!(
            matches!(found, Err(StoreError::Damaged { .. })),
            "{text:?}: {found:?}"
        );
    }
}

#[test]
fn a_directory_keeps_its_first_identity() {
    let (directory, _store) = store();
    assert_eq!(
        DirectoryClaims::identity(directory.path(), [1; 16]).unwrap(),
        [1; 16]
    );
    assert_eq!(
        DirectoryClaims::identity(directory.path(), [2; 16]).unwrap(),
        [1; 16]
    );
    fs::write(directory.path().join("identity"), "something else").unwrap();
    let found = DirectoryClaims::identity(directory.path(), [1; 16]);
    assert!(matches!(found, Err(StoreError::Damaged { .. })), "{found:?}");
}
