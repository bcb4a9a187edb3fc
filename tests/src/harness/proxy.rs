//! The wire between primary and backup, in a test's hands: it can hold acknowledgements back, and it can be cut.
//!
//! It listens where the backup connects and connects to the primary, reads every record with the library, and passes on its
//! bytes. Cut, it passes nothing and closes nothing, as a network does that has lost its way; mended, everything
//! held follows in order.

use super::wait_until;
use lockstep_logging_channel::codec;
use lockstep_logging_channel::{Entry, Message, Record};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// One direction of the wire.
#[derive(Debug, Default)]
struct Direction {
    out: Option<UnixStream>,
    held: Vec<u8>,
    closed: bool,
}

impl Direction {
    fn pass(&mut self, bytes: &[u8]) {
        if let Some(out) = &mut self.out {
            // A side that has gone takes nothing any more; the other hears of it by its own end.
            let _ = out.write_all(bytes);
        }
    }

    fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.pass(&held);
        self.close_if_over();
    }

    fn close_if_over(&mut self) {
        if self.closed
            && let Some(out) = &self.out
        {
            // Fails where the other side has closed first.
            let _ = out.shutdown(Shutdown::Write);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    to_primary: Direction,
    to_backup: Direction,
    cut: bool,
    holds_acknowledgements: bool,
    acknowledgements_held: u64,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Toward {
    Primary,
    Backup,
}

impl State {
    fn direction(&mut self, toward: Toward) -> &mut Direction {
        match toward {
            Toward::Primary => &mut self.to_primary,
            Toward::Backup => &mut self.to_backup,
        }
    }

    fn take(&mut self, toward: Toward, record: Record, bytes: &[u8]) {
        let is_acknowledgement = matches!(record, Record::Message(Message::Acknowledge(_)));
        if let Record::Entry(entry) = record {
            self.entries.push(entry);
        }
        let held_back = self.holds_acknowledgements && is_acknowledgement;
        self.acknowledgements_held += u64::from(held_back);
        let cut = self.cut;
        let direction = self.direction(toward);
        if held_back || cut {
            direction.held.extend_from_slice(bytes);
        } else {
            direction.pass(bytes);
        }
    }

    fn end(&mut self, toward: Toward) {
        let cut = self.cut;
        let direction = self.direction(toward);
        direction.closed = true;
        if !cut {
            direction.close_if_over();
        }
    }
}

/// A wire between one primary and one backup.
#[derive(Debug)]
pub struct Proxy {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Proxy {
    /// A wire that is entered at the Unix socket `path`, and leads to the primary at `primary` as soon as a backup comes.
    ///
    /// # Panics
    /// The host gives no socket.
    #[must_use]
    pub fn start(path: &Path, primary: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, primary) = (state.clone(), primary.to_owned());
        // Ends with the connection, or with the test's process.
        thread::spawn(move || {
            let (backup, _) = listener.accept().expect("a backup");
            let primary = wait_until(|| UnixStream::connect(&primary).ok(), || "a primary".to_owned());
            join(&shared, backup, primary);
        });
        Self {
            state,
            path: path.to_owned(),
        }
    }

    /// Where the backup connects.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// From now on no acknowledgement reaches the primary; everything else passes.
    pub fn hold_acknowledgements(&self) {
        self.lock().holds_acknowledgements = true;
    }

    /// The acknowledgements that were held follow, and later ones pass.
    pub fn release_acknowledgements(&self) {
        let mut state = self.lock();
        state.holds_acknowledgements = false;
        state.to_primary.release();
    }

    /// Acknowledgements held so far.
    #[must_use]
    pub fn acknowledgements_held(&self) -> u64 {
        self.lock().acknowledgements_held
    }

    /// From now on nothing passes, and nothing is closed.
    pub fn cut(&self) {
        self.lock().cut = true;
    }

    /// What was held passes, and whatever comes.
    pub fn mend(&self) {
        let mut state = self.lock();
        state.cut = false;
        state.to_primary.release();
        state.to_backup.release();
    }

    /// Log entries that the primary has sent so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let state = self.lock();
        for out in [&state.to_primary.out, &state.to_backup.out]
            .into_iter()
            .flatten()
        {
            // Fails where that side has closed first.
            let _ = out.shutdown(Shutdown::Both);
        }
    }
}

fn join(state: &Arc<Mutex<State>>, backup: UnixStream, primary: UnixStream) {
    {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.to_primary.out = Some(primary.try_clone().expect("a descriptor"));
        state.to_backup.out = Some(backup.try_clone().expect("a descriptor"));
    }
    let other = state.clone();
    thread::spawn(move || pump(&other, backup, Toward::Primary));
    pump(state, primary, Toward::Backup);
}

fn pump(state: &Mutex<State>, mut from: UnixStream, toward: Toward) {
    let mut unread = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        unread.extend_from_slice(&buffer[..count]);
        let mut read = 0;
        while let Ok((record, length)) = codec::decode(&unread[read..]) {
            let bytes = &unread[read..read + length];
            state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(toward, record, bytes);
            read += length;
        }
        unread.drain(..read);
    }
    state.lock().unwrap_or_else(PoisonError::into_inner).end(toward);
}
