//! Sides that do not come to a claim, or end, leave nothing behind.

use super::*;
use std::os::unix::net::UnixListener;

#[test]
fn a_side_that_ends_takes_what_it_has_prepared_with_it() {
    let (_directory, store) = store();
    assert_eq!(claim(&store, Generation(1), 1).unwrap(), Verdict::Won);
    for (generation, number) in [(2, 1), (2, 2), (3, 1)] {
        prepare(&store, Generation(generation), number).unwrap();
    }
    store.forget_prepared(fake::party(1).id).unwrap();
    let other = format!(".generation-0000000002.prepared-{}", "02".repeat(16));
    assert_eq!(files(&store), [&other, "generation-0000000001", "machine"]);
    // It was of the party's own: its claim is made all the same.
    assert_eq!(claim(&store, GENERATION, 1).unwrap(), Verdict::Won);
}

#[test]
fn what_is_prepared_for_a_generation_that_is_decided_goes_too() {
    let (_directory, store) = store();
    assert_eq!(claim(&store, GENERATION, 1).unwrap(), Verdict::Won);
    prepare(&store, GENERATION, 2).unwrap();
    prepare(&store, Generation(3), 2).unwrap();
    store.forget_prepared(fake::party(1).id).unwrap();
    let later = format!(".generation-0000000003.prepared-{}", "02".repeat(16));
    assert_eq!(files(&store), [&later, "generation-0000000002", "machine"]);
}

#[test]
fn files_of_others_are_not_taken_for_prepared_ones() {
    let (_directory, store) = store();
    assert_eq!(claim(&store, GENERATION, 1).unwrap(), Verdict::Won);
    let others = [
        ".generation-0000000001.4711-0",
        ".machine.prepared-x",
        ".seen-0000000001.4711-1",
        "prepared-1",
    ];
    others
        .iter()
        .for_each(|name| fs::write(store.path().join(name), "").unwrap());
    store.forget_prepared(fake::party(1).id).unwrap();
    assert_eq!(
        files(&store),
        [&others[..], &["generation-0000000002", "machine"]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_name_that_something_else_has_is_refused_with_what_it_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let _socket = UnixListener::bind(path.join("switch")).unwrap();
    fs::write(path.join("notes"), "").unwrap();
    for (taken, what) in [("switch", "a socket"), ("notes", "a file")] {
        let refusals = [
            Folder::open(path, &name(taken)).map(Some),
            Folder::find(path, &name(taken)),
        ];
        for refused in refusals {
            let error = refused.unwrap_err();
            assert!(!error.may_pass());
            let text = error.to_string();
            assert!(
                text.ends_with(&format!(
                    "/{taken} is {what}, which is not a machine: the name is taken"
                )),
                "{text}"
            );
        }
    }
    assert_eq!(Folder::names(path).unwrap(), []);
}
