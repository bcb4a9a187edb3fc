//! Clients under way: each appends numbers to a list of its own over one persistent connection, until it is told to stop.
//!
//! A list shows everything that can go wrong with a write: lost, repeated, invented, or out of order.

use super::redis::{Client, Reply};
use super::wait_until;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// Writers under way.
pub struct Load {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<u64>>,
}

fn list(writer: usize) -> String {
    format!("writer-{writer}")
}

fn write(address: SocketAddr, writer: usize, stopping: &AtomicBool, acknowledged: &AtomicU64) -> u64 {
    let mut client = Client::connect(address);
    let mut written = 0;
    while !stopping.load(Ordering::Relaxed) {
        let next = written + 1;
        // The answer is the length of the list: another one is a write that was lost or repeated.
        assert_eq!(
            client.call(&["RPUSH", &list(writer), &next.to_string()]),
            Reply::Integer(next as i64)
        );
        written = next;
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    written
}

impl Load {
    /// Starts `writers` of them, and waits until every one has written.
    #[must_use]
    pub fn start(address: SocketAddr, writers: usize) -> Self {
        let (stopping, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers = (0..writers)
            .map(|writer| {
                let (stopping, acknowledged) = (stopping.clone(), acknowledged.clone());
                thread::spawn(move || write(address, writer, &stopping, &acknowledged))
            })
            .collect();
        let load = Self {
            address,
            stopping,
            acknowledged,
            writers,
        };
        load.wait_for_more(20);
        load
    }

    /// Writes that were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` writes a writer were acknowledged than are now.
    ///
    /// # Panics
    /// They are not.
    pub fn wait_for_more(&self, more: u64) {
        let enough = self.acknowledged() + more * self.writers.len() as u64;
        let broken = || self.writers.iter().any(JoinHandle::is_finished);
        wait_until(
            || {
                assert!(!broken(), "a client's connection broke");
                (self.acknowledged() >= enough).then_some(())
            },
            || format!("{enough} writes, only {}", self.acknowledged()),
        );
    }

    /// Stops the writers, and reads everything back over a new connection: every list is what its writer was told, and there
    /// is nothing else.
    ///
    /// # Panics
    /// A connection broke, or something is lost, repeated, invented or out of order.
    pub fn stop_and_check(self) {
        self.stopping.store(true, Ordering::Relaxed);
        let written: Vec<u64> = self
            .writers
            .into_iter()
            .map(|writer| writer.join().expect("no connection breaks"))
            .collect();
        let mut client = Client::connect(self.address);
        for (writer, written) in written.iter().enumerate() {
            let expected: Vec<Reply> = (1..=*written)
                .map(|number| Reply::bulk(&number.to_string()))
                .collect();
            let found = client.call(&["LRANGE", &list(writer), "0", "-1"]);
            assert!(
                found == Reply::Array(expected),
                "the list of writer {writer} is not 1 to {written}: {found:?}"
            );
        }
        assert_eq!(client.call(&["DBSIZE"]), Reply::Integer(written.len() as i64));
    }
}
