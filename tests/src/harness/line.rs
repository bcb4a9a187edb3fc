//! A channel that is far: what goes in at one end comes out at the other so much later.
//!
//! It listens where the backup connects, and connects to the primary. Bytes pass as they are, in order.

use super::wait_until;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Pieces under way; more wait outside, as before a full queue.
const PIECES_MAX: usize = 4_096;
/// Bytes of one.
const PIECE_BYTES: usize = 16 << 10;

/// A line between one primary and one backup.
#[derive(Debug)]
pub struct Line {
    delay_us: Arc<AtomicU64>,
    path: PathBuf,
}

impl Line {
    /// A line that is entered at the Unix socket `path`, and leads to the primary at `primary` as soon as a backup comes.
    ///
    /// # Panics
    /// The host gives no socket.
    #[must_use]
    pub fn start(path: &Path, primary: &Path, delay: Duration) -> Self {
        let listener = UnixListener::bind(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let line = Self {
            delay_us: Arc::default(),
            path: path.to_owned(),
        };
        line.delay(delay);
        let (delay_us, primary) = (line.delay_us.clone(), primary.to_owned());
        // Ends with the connection, or with the test's process.
        thread::spawn(move || {
            let (backup, _) = listener.accept().expect("a backup");
            let primary = wait_until(|| UnixStream::connect(&primary).ok(), || "a primary".to_owned());
            for (from, to) in [(&backup, &primary), (&primary, &backup)] {
                let (from, to) = (
                    from.try_clone().expect("a socket"),
                    to.try_clone().expect("a socket"),
                );
                let (sender, receiver) = sync_channel(PIECES_MAX);
                let delay_us = delay_us.clone();
                thread::spawn(move || take(from, &sender, &delay_us));
                thread::spawn(move || give(to, &receiver));
            }
        });
        line
    }

    /// From now on each way takes so long.
    pub fn delay(&self, delay: Duration) {
        let delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.delay_us.store(delay_us, Ordering::Relaxed);
    }

    /// Where the backup connects.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }
}

fn take(mut from: UnixStream, line: &SyncSender<(Instant, Vec<u8>)>, delay_us: &AtomicU64) {
    let mut piece = [0; PIECE_BYTES];
    loop {
        let count = from.read(&mut piece).unwrap_or(0);
        let due = Instant::now() + Duration::from_micros(delay_us.load(Ordering::Relaxed));
        let bytes = piece.get(..count).unwrap_or_default().to_vec();
        // An empty piece is the end.
        if line.send((due, bytes)).is_err() || count == 0 {
            return;
        }
    }
}

fn give(mut to: UnixStream, line: &Receiver<(Instant, Vec<u8>)>) {
    for (due, bytes) in line {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            break;
        }
    }
    // Fails where the other side has closed first.
    let _ = to.shutdown(Shutdown::Write);
}
