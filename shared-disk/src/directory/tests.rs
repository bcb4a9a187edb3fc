use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tempfile::TempDir;

use super::*;
use crate::fake;
use crate::publish::{Step, classify};
use crate::record::encode;

mod leaving;

const GENERATION: Generation = Generation(2);

/// More steps than a claim has.
const STEPS: usize = 12;

fn store() -> (TempDir, Folder) {
    let directory = TempDir::new().unwrap();
    let store = Folder::open(directory.path(), &name("web")).unwrap();
    (directory, store)
}

fn name(text: &str) -> MachineName {
    text.parse().unwrap()
}

fn claim_by(generation: Generation, number: u8) -> Claim {
    fake::claim(generation, number)
}

fn claim(store: &Folder, generation: Generation, number: u8) -> Result<Verdict, StoreError> {
    store.claim(&claim_by(generation, number), &mut |_| Ok(()))
}

fn prepare(store: &Folder, generation: Generation, number: u8) -> Result<(), StoreError> {
    store.prepare(&claim_by(generation, number), &mut |_| Ok(()))
}

fn lost_to(number: u8) -> Verdict {
    Verdict::Lost {
        winner: claim_by(GENERATION, number),
    }
}

fn files(store: &Folder) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(store.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Claims and is stopped, as by SIGKILL, after step `at`; gives the steps made.
fn claim_and_stop(store: &Folder, number: u8, at: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut probe = |step| {
        steps.push(step);
        if steps.len() > at {
            std::panic::resume_unwind(Box::new("stopped"));
        }
        Ok(())
    };
    let _ = catch_unwind(AssertUnwindSafe(|| {
        store.claim(&claim_by(GENERATION, number), &mut probe)
    }));
    steps
}

/// Claims, and step `at` says that it failed after having done its work.
fn claim_and_fail(store: &Folder, number: u8, at: usize) -> (Vec<Step>, Result<Verdict, StoreError>) {
    let mut steps = Vec::new();
    let mut probe = |step| {
        steps.push(step);
        if steps.len() == at + 1 {
            Err(std::io::Error::other("injected"))
        } else {
            Ok(())
        }
    };
    let result = store.claim(&claim_by(GENERATION, number), &mut probe);
    (steps, result)
}

#[test]
fn the_first_claimant_wins_for_ever() {
    let (directory, store) = store();
    assert_eq!(claim(&store, GENERATION, 1).unwrap(), Verdict::Won);
    assert_eq!(claim(&store, GENERATION, 2).unwrap(), lost_to(1));
    assert_eq!(claim(&store, GENERATION, 1).unwrap(), Verdict::Won);

    let reopened = Folder::open(directory.path(), &name("web")).unwrap();
    assert_eq!(claim(&reopened, GENERATION, 2).unwrap(), lost_to(1));
    assert_eq!(claim(&reopened, GENERATION, 1).unwrap(), Verdict::Won);
    assert_eq!(files(&store), ["generation-0000000002", "machine"]);
}

#[test]
fn generations_and_pairs_are_claimed_apart() {
    let (directory, store) = store();
    let other = Folder::open(directory.path(), &name("mail")).unwrap();
    assert_eq!(claim(&store, Generation(1), 1).unwrap(), Verdict::Won);
    assert_eq!(claim(&store, Generation(u32::MAX), 2).unwrap(), Verdict::Won);
    assert_eq!(claim(&other, Generation(1), 3).unwrap(), Verdict::Won);
}

#[test]
fn a_claim_stopped_after_any_step_has_one_winner() {
    for at in 0..STEPS {
        for order in [[1, 2], [2, 1]] {
            let (_directory, store) = store();
            let steps = claim_and_stop(&store, 1, at);
            let had_won = steps.contains(&Step::Linked);
            let winner = if had_won { 1 } else { order[0] };

            for number in [order[0], order[1], order[0]] {
                let expected = if number == winner {
                    Verdict::Won
                } else {
                    lost_to(winner)
                };
                let found = claim(&store, GENERATION, number).unwrap();
                assert_eq!(found, expected, "stopped after {steps:?}, then {order:?}");
            }
            assert_eq!(
                files(&store),
                ["generation-0000000002", "machine"],
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
        let (steps, result) = claim_and_fail(&store, 1, at);
        failures += usize::from(result.is_err());
        let winner = if steps.contains(&Step::Linked) { 1 } else { 2 };
        let expected = if winner == 2 { Verdict::Won } else { lost_to(1) };
        assert_eq!(
            claim(&store, GENERATION, 2).unwrap(),
            expected,
            "failed in {steps:?}"
        );
        assert_eq!(
            files(&store),
            ["generation-0000000002", "machine"],
            "failed in {steps:?}"
        );
    }
    // Created, both writes, both syncs and the read; a failing link whose name is there has worked,
    // and what cannot be removed does not matter.
    assert_eq!(failures, 6);
}

#[test]
fn a_failed_claim_leaves_no_temporary_file() {
    let (_directory, store) = store();
    let (steps, result) = claim_and_fail(&store, 1, 3);
    assert_eq!(steps.last(), Some(&Step::FileSynced));
    assert!(matches!(
        result,
        Err(StoreError::Unreachable { doing: "write", .. })
    ));
    assert_eq!(files(&store), ["machine"]);
}

#[test]
fn a_claim_finds_the_winner_when_its_temporary_file_is_swept_away() {
    let (_directory, store) = store();
    let rival = store.clone();
    let mut probe = |step| {
        if step == Step::FileSynced {
            assert_eq!(claim(&rival, GENERATION, 2).unwrap(), Verdict::Won);
        }
        Ok(())
    };
    let verdict = store.claim(&claim_by(GENERATION, 1), &mut probe).unwrap();
    assert_eq!(verdict, lost_to(2));
}

#[test]
fn a_prepared_claim_waits_for_the_disk_once() {
    let (_directory, store) = store();
    prepare(&store, GENERATION, 1).unwrap();
    let (steps, result) = claim_and_fail(&store, 1, STEPS);
    assert_eq!(result.unwrap(), Verdict::Won);
    assert_eq!(
        steps,
        [Step::Linked, Step::DirectorySynced, Step::Read, Step::Removed]
    );
    assert_eq!(files(&store), ["generation-0000000002", "machine"]);
}

#[test]
fn preparing_claims_nothing() {
    let (_directory, store) = store();
    prepare(&store, GENERATION, 1).unwrap();
    prepare(&store, GENERATION, 2).unwrap();
    assert_eq!(claim(&store, GENERATION, 2).unwrap(), Verdict::Won);
    assert_eq!(claim(&store, GENERATION, 1).unwrap(), lost_to(2));
    assert_eq!(files(&store), ["generation-0000000002", "machine"]);
}

#[test]
fn what_was_prepared_for_one_generation_is_not_used_for_another() {
    let (_directory, store) = store();
    prepare(&store, Generation(3), 1).unwrap();
    assert_eq!(claim(&store, GENERATION, 1).unwrap(), Verdict::Won);
    assert_eq!(claim(&store, Generation(3), 2).unwrap(), Verdict::Won);
}

/// Prepares, where step `at` of it fails or is the last.
fn prepare_and_break(store: &Folder, at: usize, stop: bool) -> Vec<Step> {
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
        store.prepare(&claim_by(GENERATION, 1), &mut probe)
    }));
    steps
}

#[test]
fn a_claim_wins_whatever_step_broke_its_preparation() {
    for at in 0..STEPS {
        for stop in [true, false] {
            let (_directory, store) = store();
            let steps = prepare_and_break(&store, at, stop);
            assert_eq!(claim(&store, GENERATION, 1).unwrap(), Verdict::Won, "{steps:?}");
            assert_eq!(claim(&store, GENERATION, 2).unwrap(), lost_to(1));
            assert_eq!(
                files(&store),
                ["generation-0000000002", "machine"],
                "broken after {steps:?}"
            );
        }
    }
}

#[test]
fn a_prepared_claim_stopped_after_any_step_has_one_winner() {
    for at in 0..STEPS {
        let (_directory, store) = store();
        prepare(&store, GENERATION, 1).unwrap();
        let steps = claim_and_stop(&store, 1, at);
        assert!(steps.contains(&Step::Linked), "{steps:?}");
        assert_eq!(claim(&store, GENERATION, 2).unwrap(), lost_to(1));
        assert_eq!(claim(&store, GENERATION, 1).unwrap(), Verdict::Won);
    }
}

#[test]
fn a_prepared_claim_finds_the_winner_that_swept_it_away() {
    let (_directory, store) = store();
    prepare(&store, GENERATION, 1).unwrap();
    assert_eq!(claim(&store, GENERATION, 2).unwrap(), Verdict::Won);
    assert_eq!(files(&store), ["generation-0000000002", "machine"]);
    assert_eq!(claim(&store, GENERATION, 1).unwrap(), lost_to(2));
}

#[test]
fn a_missing_directory_is_refused_at_the_start_and_may_come_back_later() {
    let (directory, store) = store();
    let path = directory.path();
    let away = path.with_extension("away");
    fs::rename(path, &away).unwrap();
    assert!(matches!(
        Folder::open(path, &name("web")),
        Err(StoreError::Unusable { .. })
    ));
    assert!(matches!(
        claim(&store, GENERATION, 1),
        Err(StoreError::Unreachable { .. })
    ));

    // An empty mount point is not the storage.
    fs::create_dir(path).unwrap();
    assert!(matches!(
        claim(&store, GENERATION, 1),
        Err(StoreError::Unreachable { .. })
    ));

    fs::remove_dir(path).unwrap();
    fs::rename(&away, path).unwrap();
    assert_eq!(claim(&store, GENERATION, 1).unwrap(), Verdict::Won);
}

#[test]
fn what_is_no_directory_is_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "").unwrap();
    let error = Folder::open(&path, &name("web")).unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }));
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(error.to_string().contains("give a directory"), "{error}");
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
    let whole = encode(&claim_by(GENERATION, 1));
    let other_generation = whole.replace("generation 2", "generation 3");
    let long = whole.clone() + &" ".repeat(5000);
    for text in [
        "",
        "\n\n\n",
        &whole[..60],
        &other_generation,
        &long,
        &(whole.clone() + "x"),
    ] {
        let (_directory, store) = store();
        fs::write(store.path().join("generation-0000000002"), text).unwrap();
        let found = claim(&store, GENERATION, 1);
        assert!(
            matches!(found, Err(StoreError::Damaged { .. })),
            "{text:?}: {found:?}"
        );
    }
}

/// Whoever wrote it may know something that this software does not: nothing is begun or changed.
#[test]
fn a_record_of_another_version_is_refused_by_the_lockstep_that_wrote_it() {
    for (line, writer) in [
        ("claim 3", "a later Lockstep"),
        ("claim 1", "an earlier Lockstep"),
    ] {
        let (_directory, store) = store();
        let text = encode(&claim_by(GENERATION, 1)).replace("claim 2", line);
        let path = store.path().join("generation-0000000002");
        fs::write(&path, &text).unwrap();
        let claimed = claim(&store, GENERATION, 1).map(|_| ());
        for found in [claimed, store.newest().map(|_| ())] {
            let error = found.unwrap_err();
            assert!(matches!(error, StoreError::Version { .. }), "{error:?}");
            let said = error.to_string();
            assert!(
                said.contains(writer) && said.contains(&path.display().to_string()),
                "{said}"
            );
        }
        assert_eq!(fs::read_to_string(path).unwrap(), text);
    }
}

#[test]
fn a_directory_keeps_its_first_identity() {
    let (directory, _store) = store();
    assert_eq!(Folder::identity(directory.path(), [1; 16]).unwrap(), [1; 16]);
    assert_eq!(Folder::identity(directory.path(), [2; 16]).unwrap(), [1; 16]);
    fs::write(directory.path().join("identity"), "something else").unwrap();
    let found = Folder::identity(directory.path(), [1; 16]);
    assert!(matches!(found, Err(StoreError::Damaged { .. })), "{found:?}");
}

#[test]
fn a_folder_of_another_machine_is_refused() {
    let (directory, store) = store();
    fs::rename(store.path(), directory.path().join("mail")).unwrap();
    for found in [
        Folder::open(directory.path(), &name("mail")).map(Some),
        Folder::find(directory.path(), &name("mail")),
    ] {
        let error = found.unwrap_err().to_string();
        assert!(error.contains("it names another machine"), "{error}");
    }
}

#[test]
fn a_claim_that_was_removed_from_between_is_named() {
    let (_directory, store) = store();
    for generation in 1..=3 {
        assert_eq!(claim(&store, Generation(generation), 1).unwrap(), Verdict::Won);
    }
    fs::remove_file(store.path().join("generation-0000000002")).unwrap();
    for error in [store.newest().unwrap_err(), store.history().unwrap_err()] {
        let error = error.to_string();
        assert!(
            error.contains("generation-0000000002") && error.contains("is missing"),
            "{error}"
        );
    }
}

#[test]
fn a_damaged_record_is_named() {
    let (_directory, store) = store();
    for file in ["generation-0000000001", "seen-0000000001", "ended-0000000001"] {
        fs::write(store.path().join(file), "something else\n").unwrap();
    }
    fs::write(store.path().join("backup-0000000001-x"), "\n").unwrap();
    let first = Generation(1);
    let errors = [
        (store.newest().unwrap_err(), "generation-0000000001"),
        (store.seen(first).unwrap_err(), "seen-0000000001"),
        (store.ended(first).unwrap_err(), "ended-0000000001"),
        (store.backups(first).unwrap_err(), "backup-0000000001-x"),
    ];
    for (error, file) in errors {
        assert!(
            matches!(error, StoreError::Damaged { .. }) && error.to_string().contains(file),
            "{error}"
        );
    }
}

#[test]
fn a_sign_of_life_that_the_power_took_is_none() {
    let (_directory, store) = store();
    fs::write(store.path().join("seen-0000000001"), "").unwrap();
    assert_eq!(store.seen(Generation(1)).unwrap(), None);
}

#[test]
fn a_new_holder_sweeps_the_signs_of_life_of_earlier_ones() {
    let (_directory, store) = store();
    let seen = |generation| Seen::new(Generation(generation), [1; 16], 1, "{}").unwrap();
    for generation in [1, 2, 3] {
        fs::write(store.path().join(format!(".seen-000000000{generation}.17-0")), "").unwrap();
        store.put_seen(&seen(generation)).unwrap();
    }
    assert_eq!(
        files(&store),
        [".seen-0000000003.17-0", "machine", "seen-0000000003"]
    );
}

#[test]
fn what_is_not_ours_in_a_directory_is_no_machine() {
    let (directory, _store) = store();
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    fs::create_dir(directory.path().join("empty")).unwrap();
    fs::write(directory.path().join("notes"), "").unwrap();
    assert_eq!(Folder::names(directory.path()).unwrap(), [name("web")]);
}

#[test]
fn more_backups_than_are_looked_through_are_refused() {
    let (_directory, store) = store();
    let backup = |number: u16| {
        let mut backup = Backup {
            generation: Generation(1),
            party: fake::party(1),
        };
        backup.party.id[..2].copy_from_slice(&number.to_be_bytes());
        let name = format!("backup-0000000001-{}", crate::name::Hex(&backup.party.id));
        fs::write(store.path().join(name), encode(&backup)).unwrap();
    };
    (0..256).for_each(backup);
    assert_eq!(store.backups(Generation(1)).unwrap().len(), 256);
    backup(256);
    let error = store.backups(Generation(1)).unwrap_err().to_string();
    assert!(error.contains("more than 256"), "{error}");
}
