//! Requests that a holder hands its machine over, in a directory.

#![allow(clippy::unwrap_used)]

use lockstep_shared_disk::{DirectoryStore, Generation, Line, MachineStore, Seen, Store, Switchover};
use std::sync::Arc;

async fn machine() -> (tempfile::TempDir, Arc<dyn MachineStore>) {
    let directory = tempfile::tempdir().unwrap();
    let store = DirectoryStore::new(directory.path());
    let machine = store.open(&"web".parse().unwrap()).await.unwrap();
    (directory, machine)
}

fn asked(generation: u32, number: u8) -> Switchover {
    Switchover {
        generation: Generation(generation),
        id: [number; 16],
        by: Line::shortened("host example, process 1"),
        at_unix_s: 1_700_000_000,
    }
}

#[tokio::test]
async fn the_first_request_to_a_holder_stays_until_it_is_removed() {
    let (_directory, machine) = machine().await;
    let first = Generation(1);
    assert_eq!(machine.switchover(first).await.unwrap(), None);
    assert_eq!(machine.ask_switchover(&asked(1, 1)).await.unwrap(), asked(1, 1));
    assert_eq!(machine.ask_switchover(&asked(1, 2)).await.unwrap(), asked(1, 1));
    assert_eq!(machine.switchover(first).await.unwrap(), Some(asked(1, 1)));
    assert_eq!(machine.switchover(Generation(2)).await.unwrap(), None);
    machine.remove_switchover(first).await.unwrap();
    machine.remove_switchover(first).await.unwrap();
    assert_eq!(machine.ask_switchover(&asked(1, 2)).await.unwrap(), asked(1, 2));
}

#[tokio::test]
async fn a_new_holder_removes_requests_to_earlier_ones() {
    let (_directory, machine) = machine().await;
    for generation in 1..=3 {
        machine.ask_switchover(&asked(generation, 1)).await.unwrap();
    }
    let seen = Seen::new(Generation(3), [1; 16], 1, "{}").unwrap();
    machine.put_seen(&seen).await.unwrap();
    let mut left = Vec::new();
    for generation in 1..=3 {
        left.extend(machine.switchover(Generation(generation)).await.unwrap());
    }
    assert_eq!(left, [asked(3, 1)]);
}

#[tokio::test]
async fn a_request_that_is_not_ours_is_named() {
    let (directory, machine) = machine().await;
    let path = directory.path().join("web/switchover-0000000001");
    std::fs::write(path, "lockstep-switchover 2\n").unwrap();
    let why = machine.switchover(Generation(1)).await.unwrap_err().to_string();
    assert!(why.contains("switchover-0000000001"), "{why}");
}
