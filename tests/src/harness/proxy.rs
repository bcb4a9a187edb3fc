//! The wire between primary and backup, in a test's hands: it can hold acknowledgements back, and
//! it can be cut, closed and damaged.
//!
//! It listens where the backup connects and connects to the primary, reads every record with the
//! library, writes down what it was and when, and passes on its bytes. Cut, it passes nothing and
//! closes nothing, as a network does that has lost its way; mended, everything held follows in
//! order.

use super::clock::wall_us;
use super::wait_until;
use lockstep_logging_channel::{Entry, Environment, Message, Record, Sequence, codec};
use std::collections::VecDeque;
use std::fmt;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Heartbeats of a flood that are written together: more than a socket holds.
const FLOOD_TOGETHER: usize = 4_000;
/// Shorter than the primary takes for what its socket holds.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);

/// A direction of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// What the backup says.
    Primary,
    /// What the primary says.
    Backup,
}

/// What is known of the log from the records that were passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// The backup may have entries up to this one.
    Entry(Sequence),
    /// The backup has said that it has entries up to this one.
    Acknowledged(Sequence),
    /// The newcomer may take over, and outputs wait for it from this entry on.
    Armed(Sequence),
    /// This way went a sign of life, by which outputs up to this entry have left.
    Heartbeat(Toward, Sequence),
}

/// What went over the wire.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Log entries that the primary has sent, passed on or not.
    pub entries: Vec<Entry>,
    /// What the handshake said that a replay depends on.
    pub environment: Option<Environment>,
    /// What was passed on, and when: microseconds of wall time, from before it was.
    pub passed: Vec<(u64, Passing)>,
    /// Pieces of a machine that were sent to a newcomer, passed on or not.
    pub pieces: u64,
    acknowledgements_held: u64,
}

impl Traffic {
    /// The backup was told that outputs up to this entry have left; `None`: of none.
    #[must_use]
    pub fn told(&self) -> Option<Sequence> {
        let told = self.passed.iter().filter_map(|(_, passing)| match passing {
            Passing::Heartbeat(Toward::Backup, released) => Some(*released),
            _ => None,
        });
        told.max()
    }
}

/// A wire that becomes longer for a while, and stays as long.
#[derive(Clone, Copy, Debug)]
struct Delay {
    begun: Instant,
    grows_for: Duration,
    grown: Duration,
}

impl Delay {
    /// When what comes now is to be passed on.
    fn due(self) -> Instant {
        let now = Instant::now();
        let since = now.duration_since(self.begun);
        if since >= self.grows_for {
            return now + self.grown;
        }
        now + self
            .grown
            .mul_f64(since.as_secs_f64() / self.grows_for.as_secs_f64())
    }
}

/// A record, or the end, that comes later over a wire that has become long.
#[derive(Debug)]
enum Delayed {
    Record(Box<Record>, Vec<u8>),
    End,
}

#[derive(Debug, Default)]
struct Direction {
    out: Option<UnixStream>,
    cut: bool,
    damages_next: bool,
    holds_acknowledgements: bool,
    held: Vec<(Option<Passing>, Vec<u8>)>,
    /// Time by which what comes this way is passed on later.
    delay: Option<Delay>,
    delayed: VecDeque<(Instant, Delayed)>,
    /// The newest heartbeat that came this way, as bytes.
    heartbeat: Vec<u8>,
    closed: bool,
}

impl Direction {
    fn pass(&mut self, traffic: &Mutex<Traffic>, passing: Option<Passing>, bytes: &[u8]) {
        let passing = passing.map(|passing| (wall_us(), passing));
        lock(traffic).passed.extend(passing);
        if let Some(out) = &mut self.out {
            // A side that has gone takes nothing any more; the other hears of it by its own end.
            let _ = out.write_all(bytes);
        }
    }

    fn take(&mut self, toward: Toward, traffic: &Mutex<Traffic>, record: &Record, bytes: &[u8]) {
        let passing = passing(toward, record);
        if let Some(Passing::Heartbeat(..)) = passing {
            bytes.clone_into(&mut self.heartbeat);
        }
        let held_back = self.holds_acknowledgements && matches!(passing, Some(Passing::Acknowledged(_)));
        lock(traffic).acknowledgements_held += u64::from(held_back);
        if held_back || self.cut {
            self.held.push((passing, bytes.to_vec()));
        } else if std::mem::take(&mut self.damages_next) {
            let mut damaged = bytes.to_vec();
            if let Some(last) = damaged.last_mut() {
                *last ^= 1;
            }
            self.pass(traffic, None, &damaged);
        } else {
            self.pass(traffic, passing, bytes);
        }
    }

    /// Passes on what is due.
    fn deliver(&mut self, toward: Toward, traffic: &Mutex<Traffic>) {
        let now = Instant::now();
        while let Some((_, delayed)) = self.delayed.pop_front_if(|(due, _)| *due <= now) {
            match delayed {
                Delayed::Record(record, bytes) => self.take(toward, traffic, &record, &bytes),
                Delayed::End => self.end(),
            }
        }
    }

    fn end(&mut self) {
        self.closed = true;
        self.close_if_over();
    }

    fn release(&mut self, traffic: &Mutex<Traffic>) {
        for (passing, bytes) in std::mem::take(&mut self.held) {
            self.pass(traffic, passing, &bytes);
        }
        self.close_if_over();
    }

    fn close_if_over(&mut self) {
        if self.closed
            && !self.cut
            && let Some(out) = &self.out
        {
            // Fails where the other side has closed first.
            let _ = out.shutdown(Shutdown::Write);
        }
    }
}

fn passing(toward: Toward, record: &Record) -> Option<Passing> {
    match record {
        Record::Entry(entry) => Some(Passing::Entry(entry.sequence)),
        Record::Message(Message::Acknowledge(acknowledge)) => {
            Some(Passing::Acknowledged(acknowledge.received))
        }
        Record::Message(Message::Armed(armed)) => Some(Passing::Armed(armed.from)),
        Record::Message(Message::Heartbeat(heartbeat)) => {
            Some(Passing::Heartbeat(toward, heartbeat.released))
        }
        Record::Message(_) => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each direction has its lock: one that waits for a stopped process does not hold up the other.
#[derive(Default)]
struct Wire {
    to_primary: Mutex<Direction>,
    to_backup: Mutex<Direction>,
    traffic: Mutex<Traffic>,
    /// Called before the primary hears that a newcomer has loaded the machine.
    on_loaded: Option<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("to_primary", &self.to_primary)
            .field("to_backup", &self.to_backup)
            .finish_non_exhaustive()
    }
}

impl Wire {
    fn direction(&self, toward: Toward) -> &Mutex<Direction> {
        match toward {
            Toward::Primary => &self.to_primary,
            Toward::Backup => &self.to_backup,
        }
    }

    fn take(&self, toward: Toward, record: &Record, bytes: &[u8]) {
        match record {
            Record::Entry(entry) => lock(&self.traffic).entries.push(entry.clone()),
            Record::Message(Message::Welcome(welcome)) => {
                lock(&self.traffic).environment = Some(welcome.environment.clone());
            }
            Record::Message(Message::Piece(_)) => lock(&self.traffic).pieces += 1,
            Record::Message(Message::Loaded) => self.on_loaded.iter().for_each(|call| call()),
            Record::Message(_) => {}
        }
        let mut direction = lock(self.direction(toward));
        match direction.delay {
            Some(delay) => {
                let delayed = Delayed::Record(Box::new(record.clone()), bytes.to_vec());
                direction.delayed.push_back((delay.due(), delayed));
            }
            None => direction.take(toward, &self.traffic, record, bytes),
        }
    }

    fn end(&self, toward: Toward) {
        let mut direction = lock(self.direction(toward));
        match direction.delay {
            Some(delay) => direction.delayed.push_back((delay.due(), Delayed::End)),
            None => direction.end(),
        }
    }
}

/// A wire between one primary and one backup.
#[derive(Debug)]
pub struct Proxy {
    wire: Arc<Wire>,
    path: PathBuf,
}

impl Proxy {
    /// A wire that is entered at the Unix socket `path`, and leads to the primary at `primary` as
    /// soon as a backup comes.
    ///
    /// # Panics
    /// The host gives no socket.
    #[must_use]
    pub fn start(path: &Path, primary: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let wire = Arc::new(Wire::default());
        let (shared, primary) = (wire.clone(), primary.to_owned());
        // Ends with the connection, or with the test's process.
        thread::spawn(move || {
            let (backup, _) = listener.accept().expect("a backup");
            let primary = wait_until(|| UnixStream::connect(&primary).ok(), || "a primary".to_owned());
            join(&shared, backup, primary);
        });
        Self {
            wire,
            path: path.to_owned(),
        }
    }

    /// A wire between two that are connected to it already; `path` is where the backup has entered.
    /// `on_loaded` is called before the primary hears that a newcomer has loaded the machine.
    #[must_use]
    pub fn between(
        path: &Path,
        backup: UnixStream,
        primary: UnixStream,
        on_loaded: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let wire = Arc::new(Wire {
            on_loaded: Some(Box::new(on_loaded)),
            ..Wire::default()
        });
        let shared = wire.clone();
        // Ends with the connection.
        thread::spawn(move || join(&shared, backup, primary));
        Self {
            wire,
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
        lock(&self.wire.to_primary).holds_acknowledgements = true;
    }

    /// The acknowledgements that were held follow, and later ones pass.
    pub fn release_acknowledgements(&self) {
        let mut direction = lock(&self.wire.to_primary);
        direction.holds_acknowledgements = false;
        direction.release(&self.wire.traffic);
    }

    /// Acknowledgements held so far.
    #[must_use]
    pub fn acknowledgements_held(&self) -> u64 {
        lock(&self.wire.traffic).acknowledgements_held
    }

    /// From now on nothing passes, and nothing is closed.
    pub fn cut(&self) {
        self.cut_toward(Toward::Primary);
        self.cut_toward(Toward::Backup);
    }

    /// The same in one direction.
    pub fn cut_toward(&self, toward: Toward) {
        lock(self.wire.direction(toward)).cut = true;
    }

    /// From now on, for ever, everything in this direction is passed on so much later. The delay
    /// grows for a while.
    pub fn delay(&self, toward: Toward, grown: Duration, grows_for: Duration) {
        lock(self.wire.direction(toward)).delay = Some(Delay {
            begun: Instant::now(),
            grows_for,
            grown,
        });
        let wire = Arc::downgrade(&self.wire);
        // Ends with the wire.
        thread::spawn(move || {
            while let Some(wire) = wire.upgrade() {
                lock(wire.direction(toward)).deliver(toward, &wire.traffic);
                drop(wire);
                thread::sleep(FLOOD_PAUSE);
            }
        });
    }

    /// What was held passes, and whatever comes.
    pub fn mend(&self) {
        for toward in [Toward::Primary, Toward::Backup] {
            let mut direction = lock(self.wire.direction(toward));
            direction.cut = false;
            direction.release(&self.wire.traffic);
        }
    }

    /// The next record in this direction is damaged.
    pub fn damage(&self, toward: Toward) {
        lock(self.wire.direction(toward)).damages_next = true;
    }

    /// From now on, for ever, the newest heartbeat of the backup is said to the primary again and
    /// again, as fast as it reads.
    pub fn flood_primary(&self) {
        let wire = self.wire.clone();
        // Ends with the connection.
        thread::spawn(move || {
            loop {
                let mut direction = lock(&wire.to_primary);
                let heartbeats = direction.heartbeat.repeat(FLOOD_TOGETHER);
                let gone = direction
                    .out
                    .as_mut()
                    .is_none_or(|out| out.write_all(&heartbeats).is_err());
                drop(direction);
                if gone {
                    return;
                }
                // What the backup says has its turn; the primary's socket is full meanwhile.
                thread::sleep(FLOOD_PAUSE);
            }
        });
    }

    /// Both connections are closed, the primary's first.
    pub fn close(&self) {
        for toward in [Toward::Primary, Toward::Backup] {
            if let Some(out) = &lock(self.wire.direction(toward)).out {
                // Fails where that side has closed first.
                let _ = out.shutdown(Shutdown::Both);
            }
        }
    }

    /// True if the primary has closed its end: it has given this backup up.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        lock(&self.wire.to_backup).closed
    }

    /// Log entries that the primary has sent so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.wire.traffic).entries.clone()
    }

    /// Everything that is known so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        lock(&self.wire.traffic).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
    }
}

fn join(wire: &Arc<Wire>, backup: UnixStream, primary: UnixStream) {
    lock(&wire.to_primary).out = Some(primary.try_clone().expect("a descriptor"));
    lock(&wire.to_backup).out = Some(backup.try_clone().expect("a descriptor"));
    let other = wire.clone();
    thread::spawn(move || pump(&other, backup, Toward::Primary));
    pump(wire, primary, Toward::Backup);
}

fn pump(wire: &Wire, mut from: UnixStream, toward: Toward) {
    let mut unread = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        unread.extend_from_slice(&buffer[..count]);
        let mut read = 0;
        while let Ok((record, length)) = codec::decode(&unread[read..]) {
            wire.take(toward, &record, &unread[read..read + length]);
            read += length;
        }
        unread.drain(..read);
    }
    wire.end(toward);
}
