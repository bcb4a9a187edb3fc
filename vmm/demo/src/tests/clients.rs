//! Clients of a server that is well, and of one that is not.

use super::store::FakeServer;
use crate::client::{Connection, drive, read_back};
use crate::control::Control;
use crate::load::LoadResult;
use crate::workload::{Findings, Workload};

const SEED: u64 = 5;

async fn until_acknowledged(control: &Control, writes: u64) {
    while control.acknowledged() < writes {
        tokio::task::yield_now().await;
    }
    control.stop();
}

/// Fails unless a new connection reads everything that the workload was acknowledged.
async fn expect_nothing_lost(server: &FakeServer, workload: &Workload) {
    let mut connection = Connection::open(server.address).await.unwrap();
    let answers = read_back(&mut connection, workload).await.unwrap();
    assert_eq!(workload.judge(&answers), Findings::default(), "seed {SEED}");
}

#[tokio::test]
async fn a_client_of_a_good_server_finds_nothing_wrong() {
    let server = FakeServer::start(usize::MAX);
    let control = Control::default();
    let connection = Connection::open(server.address).await.unwrap();

    let (record, ()) = tokio::join!(
        drive(connection, Workload::new(SEED, 0), &control),
        until_acknowledged(&control, 300)
    );

    assert_eq!(
        (record.broken.as_deref(), record.wrong_answers),
        (None, 0),
        "seed {SEED}"
    );
    assert!(record.acknowledged_writes >= 300);
    expect_nothing_lost(&server, &record.workload).await;
}

#[tokio::test]
async fn a_broken_connection_is_seen_and_not_made_again() {
    let server = FakeServer::start(200);
    let control = Control::default();
    let connection = Connection::open(server.address).await.unwrap();

    let record = drive(connection, Workload::new(SEED, 0), &control).await;

    assert_eq!(record.broken.as_deref(), Some("the connection was closed"));
    let load = LoadResult::of([&record].into_iter());
    assert_eq!((load.clients, load.broken.len()), (1, 1));
    // Its last request was done, but never acknowledged: that is not a wrong state.
    expect_nothing_lost(&server, &record.workload).await;
}

#[tokio::test]
async fn a_store_that_was_emptied_is_found_out() {
    let server = FakeServer::start(usize::MAX);
    let control = Control::default();
    let connection = Connection::open(server.address).await.unwrap();

    let emptied = async {
        while control.acknowledged() < 100 {
            tokio::task::yield_now().await;
        }
        *server.store.lock().unwrap() = Default::default();
        until_acknowledged(&control, 200).await;
    };
    let (record, ()) = tokio::join!(drive(connection, Workload::new(SEED, 0), &control), emptied);

    assert!(
        record.wrong_answers > 0 && record.complaint.is_some(),
        "seed {SEED}"
    );
}
