//! A recording that is replayed: whole, from a snapshot, or in pieces between snapshots at the same
//! time.
//!
//! ```text
//!   log:       entry 1 .......... snapshot .......... snapshot .......... end
//!   pieces:    |-------- 1 --------|--------- 2 --------|-------- 3 --------|
//!   compared:                     1 with 2             2 with 3
//! ```
//!
//! What is reported is what the pieces one after the other would have reported: the first error of
//! the first piece that has one, or the first boundary at which a machine differs from the snapshot.

use super::feed::{FileFeed, open_log, same_environment, skip_to};
use super::folder::{Folder, Snapshot};
use super::journal::FileJournal;
use crate::error::RunError;
use crate::live::control::{Control, control};
use crate::live::{Order, World};
use crate::machine::Plan;
use crate::machine::piece::{Beginning, Checked, Ends, Finish, Position, start_piece};
use crate::machine::thread::{MachineThread, Origin};
use crate::outside::Signals;
use lockstep_core::machine::door::{Door, DoorError};
use lockstep_core::machine::{Ended, MachineError};
use lockstep_core::replica::snapshot::{Boundary, Place, Recording, difference};
use lockstep_core::replica::transfer::Received;
use lockstep_core::replica::{Replayer, Standby};
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::{Body, End, EndReason, Entry, LogReader, Sequence};
use lockstep_process::writing::standard;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Between two lines of progress on a terminal.
const LINES_ON_TERMINAL: Duration = Duration::from_secs(1);
/// The same elsewhere: a log file wants few.
const LINES_ELSEWHERE: Duration = Duration::from_secs(10);
/// Memory of a piece beside its guest's: page tables, the log's buffers, a section of its snapshot.
const PIECE_BYTES: u64 = 32 << 20;

/// Entry from which a replay is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The newest snapshot at or before this entry.
    Entry(u64),
    /// The newest snapshot.
    Last,
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "last" => Ok(Self::Last),
            number => number
                .parse()
                .map(Self::Entry)
                .map_err(|_| "write the number of an entry, or `last` for the newest snapshot".to_owned()),
        }
    }
}

/// A recording, and the plan of its machine.
pub struct Recorded {
    plan: Plan,
    log: PathBuf,
    recording: Recording,
    folder: Folder,
}

/// A part of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Piece {
    snapshot: Option<Snapshot>,
    until: Option<Place>,
}

impl Piece {
    /// Number of its first entry.
    fn entry(&self) -> u64 {
        self.snapshot
            .as_ref()
            .map_or(1, |snapshot| snapshot.header.place.entry)
    }

    fn ends(&self) -> Ends {
        let position = |place: Place| -> Position { (place.exits, place.instructions) };
        Ends {
            from: self
                .snapshot
                .as_ref()
                .map(|snapshot| position(snapshot.header.place)),
            until: self.until.map(position),
        }
    }
}

impl Recorded {
    /// The recording `log`, to be replayed with `plan`.
    ///
    /// # Errors
    /// [`RunError::Log`], and [`RunError::Mismatch`] where it is of another machine.
    pub fn open(plan: Plan, log: &Path) -> Result<Self, RunError> {
        let (_, environment) = open_log(log)?;
        same_environment(&environment, &plan.environment(environment.pair))?;
        Ok(Self {
            recording: Recording::of(&environment, plan.memory_bytes()),
            folder: Folder::of(log),
            log: log.to_owned(),
            plan,
        })
    }

    /// The newest snapshot for a replay that is wanted `from` there.
    ///
    /// # Errors
    /// [`RunError::NoSnapshot`], [`RunError::NoEntry`], [`RunError::Snapshot`].
    pub fn snapshot(&self, from: From) -> Result<Snapshot, RunError> {
        let mut all = self.folder.list()?;
        let entry = match from {
            From::Entry(entry) => entry,
            From::Last => u64::MAX,
        };
        let later = all.iter().position(|named| named.entry > entry);
        all.truncate(later.unwrap_or(all.len()));
        let Some(newest) = all.pop() else {
            let wanted = match from {
                From::Entry(entry) => format!(" at or before entry {entry}"),
                From::Last => String::new(),
            };
            return Err(RunError::NoSnapshot {
                log: self.log.clone(),
                wanted,
            });
        };
        let snapshot = newest.open(&self.recording)?;
        // A later snapshot proves that the log goes so far.
        if matches!(from, From::Entry(_)) && later.is_none() {
            self.check_entry(&snapshot, entry)?;
        }
        Ok(snapshot)
    }

    /// Refuses an `entry` behind the end of the log. Where the log is damaged, the replay says so.
    fn check_entry(&self, snapshot: &Snapshot, entry: u64) -> Result<(), RunError> {
        let (mut log, _) = open_log(&self.log)?;
        skip_to(&mut log, &snapshot.header.place)?;
        let is_sound = log
            .by_ref()
            .take_while(|read| !matches!(read, Ok(there) if there.sequence.0 >= entry))
            .all(|read| read.is_ok());
        let entries = log.entries();
        if is_sound && entries <= entry {
            return Err(RunError::NoEntry {
                log: self.log.clone(),
                entry,
                entries,
            });
        }
        Ok(())
    }

    /// Replays to the end, from the beginning or from `snapshot`; what the guest prints is shown.
    ///
    /// # Errors
    /// [`RunError`]; a divergence is one.
    pub async fn replay(&self, snapshot: Option<Snapshot>, signals: &mut Signals) -> Result<Ended, RunError> {
        let piece = Piece {
            snapshot,
            until: None,
        };
        // Its state at the beginning is compared with nothing.
        let (mut machine, control) = self.start(&piece, Ends::default(), true)?;
        loop {
            tokio::select! {
                checked = machine.outcome() => {
                    machine.join();
                    return match checked?.finish? {
                        Finish::Ended(ended) => Ok(ended),
                        Finish::Reached(_) => Err(no_end()),
                    };
                }
                () = signals.received() => control.give(Order::Stop),
            }
        }
    }

    fn start(
        &self,
        piece: &Piece,
        ends: Ends,
        show_console: bool,
    ) -> Result<(MachineThread<Checked>, Control), RunError> {
        let (control, ordered) = control();
        let (mut feed, _) = FileFeed::open(&self.log, ordered.clone(), show_console)?;
        let counts = self.plan.clock() != ClockKind::None;
        let memory_bytes = self.plan.memory_bytes();
        let (snapshot, recording, log) = (piece.snapshot.clone(), self.recording, self.log.clone());
        let make = Box::new(move || {
            let Some(snapshot) = snapshot else {
                let replayer = Replayer::new(feed, counts).of_memory(memory_bytes);
                return Ok(Beginning::Runs(Origin::Boot, door(replayer)));
            };
            feed.skip_to(&snapshot.header.place)?;
            let received = snapshot.read(&recording)?;
            if let Some(ended) = stopped_at(&log, &snapshot, &received)? {
                return Ok(Beginning::Over(ended));
            }
            let position = received.position;
            let last = Sequence(position.sequence);
            let replayer =
                Replayer::from_capture(feed, counts, last, position.into()).of_memory(memory_bytes);
            Ok(Beginning::Runs(
                Origin::Captured(Box::new(received)),
                door(replayer),
            ))
        });
        let machine = start_piece(self.plan.clone(), ends, ordered, make)?;
        Ok((machine, control))
    }

    /// The pieces between the snapshots: one, where there is none.
    fn pieces(&self) -> Result<Vec<Piece>, RunError> {
        let mut pieces = vec![Piece::default()];
        for named in self.folder.list()? {
            let snapshot = named.open(&self.recording)?;
            if let Some(before) = pieces.last_mut() {
                before.until = Some(snapshot.header.place);
            }
            pieces.push(Piece {
                snapshot: Some(snapshot),
                until: None,
            });
        }
        Ok(pieces)
    }

    /// Replays all pieces, as many at a time as there are processors and memory for. A signal ends
    /// it.
    ///
    /// # Errors
    /// [`RunError`]; the first divergence is one.
    pub async fn check(&self, signals: &mut Signals) -> Result<AllChecked, RunError> {
        let pieces = self.pieces()?;
        let at_a_time = at_a_time(self.plan.memory_bytes()).min(pieces.len());
        let mut checking = Checking {
            recorded: self,
            running: JoinSet::new(),
            controls: BTreeMap::new(),
            done: BTreeMap::new(),
            next: 0,
            end: pieces.len(),
            progress: Progress::begin(pieces.len()),
        };
        loop {
            while checking.running.len() < at_a_time && checking.next < checking.end {
                checking.start_next(&pieces);
            }
            tokio::select! {
                finished = checking.running.join_next() => match finished {
                    None => break,
                    Some(Ok((index, outcome))) => checking.take(index, outcome),
                    Some(Err(why)) => return Err(RunError::other("a piece was not replayed")(why.into())),
                },
                () = signals.received() => checking.stop_from(0),
            }
        }
        let ended = conclusion(&pieces, checking.done)?;
        Ok(AllChecked {
            ended,
            pieces: pieces.len(),
            at_a_time,
        })
    }
}

/// Outcome of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllChecked {
    /// End of the recording.
    pub ended: Ended,
    /// Pieces that were replayed.
    pub pieces: usize,
    /// How many at the same time.
    pub at_a_time: usize,
}

type Outcome = Result<Checked, RunError>;

/// Pieces that are being replayed.
struct Checking<'a> {
    recorded: &'a Recorded,
    running: JoinSet<(usize, Outcome)>,
    controls: BTreeMap<usize, Control>,
    done: BTreeMap<usize, Outcome>,
    next: usize,
    /// The piece before which all have to be replayed: the first that has failed, or their number.
    end: usize,
    progress: Progress,
}

impl Checking<'_> {
    fn start_next(&mut self, pieces: &[Piece]) {
        let index = self.next;
        self.next += 1;
        let Some(piece) = pieces.get(index) else {
            return;
        };
        match self.recorded.start(piece, piece.ends(), false) {
            Ok((mut machine, control)) => {
                self.controls.insert(index, control);
                self.running.spawn(async move {
                    let outcome = machine.outcome().await;
                    machine.join();
                    (index, outcome)
                });
            }
            Err(why) => self.take(index, Err(why)),
        }
    }

    fn take(&mut self, index: usize, outcome: Outcome) {
        self.controls.remove(&index);
        if !matches!(&outcome, Ok(Checked { finish: Ok(_), .. })) {
            // Those before may have an earlier error; what those behind find is of no interest.
            self.stop_from(index + 1);
        } else {
            self.progress.one_more();
        }
        self.done.insert(index, outcome);
    }

    fn stop_from(&mut self, index: usize) {
        self.end = self.end.min(index);
        self.controls
            .range(index..)
            .for_each(|(_, control)| control.give(Order::Stop));
    }
}

/// The end of the recording, or the first thing that is wrong.
fn conclusion(pieces: &[Piece], mut done: BTreeMap<usize, Outcome>) -> Result<Ended, RunError> {
    let mut before: Option<Finish> = None;
    for (index, piece) in pieces.iter().enumerate() {
        // Not started: the verification was stopped.
        let checked = done.remove(&index).unwrap_or_else(|| Err(stopped()))?;
        let Checked { began, finish } = checked;
        if let Some(before) = &before {
            let reached = match before {
                Finish::Reached(state) => Some(state),
                Finish::Ended(_) => None,
            };
            check_boundary(piece, began.as_ref(), reached, &finish)?;
        }
        before = Some(finish?);
    }
    match before {
        Some(Finish::Ended(ended)) => Ok(ended),
        _ => Err(no_end()),
    }
}

/// Compares the beginning of `piece` with the end of the one before.
fn check_boundary(
    piece: &Piece,
    began: Option<&Boundary>,
    reached: Option<&Boundary>,
    finish: &Result<Finish, MachineError>,
) -> Result<(), RunError> {
    // A piece that failed on the way to its boundary says more itself.
    if began.is_none() && finish.is_err() {
        return Ok(());
    }
    match difference(piece.entry(), began, reached) {
        None => Ok(()),
        Some(divergence) => Err(MachineError::Door(DoorError::Diverged(Box::new(divergence))).into()),
    }
}

/// The end of a recording that was stopped from outside where a kick found the guest, and before
/// that captured there: the next execution point is behind its end.
fn stopped_at(log: &Path, snapshot: &Snapshot, received: &Received) -> Result<Option<Ended>, RunError> {
    let position = received.machine.position;
    if !position.between {
        return Ok(None);
    }
    let (mut log, _) = open_log(log)?;
    skip_to(&mut log, &snapshot.header.place)?;
    let Some(Ok(Entry {
        point,
        body: Body::End(End { reason, .. }),
        ..
    })) = log.next()
    else {
        return Ok(None);
    };
    let is_here = point.position() == (position.exits, position.instructions);
    Ok((is_here && reason == EndReason::Stopped).then_some(Ended { reason, point }))
}

fn door(replayer: Replayer<FileFeed>) -> Box<dyn Door> {
    Box::new(Standby::<_, World, FileJournal>::new(replayer, None))
}

fn stopped() -> RunError {
    MachineError::Door(DoorError::Stopped).into()
}

fn no_end() -> RunError {
    RunError::Defect {
        what: "a replay was over before its end".to_owned(),
    }
}

/// Pieces to be replayed at the same time: one for each processor, and no more than there is memory
/// for.
fn at_a_time(memory_bytes: u64) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let available = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available_bytes(&text));
    let fit = available.map_or(1, |bytes| bytes / (memory_bytes + PIECE_BYTES));
    processors.min(usize::try_from(fit).unwrap_or(usize::MAX)).max(1)
}

/// Memory that can be had without swapping, of the text of `/proc/meminfo`.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// Number of entries of a log.
///
/// # Errors
/// [`RunError::Log`].
pub fn count_entries(log: &Path) -> Result<u64, RunError> {
    let mut log = LogReader::open(log)?;
    log.by_ref().try_for_each(|entry| entry.map(drop))?;
    Ok(log.entries())
}

/// Progress over pieces, for people.
struct Progress {
    done: usize,
    all: usize,
    line_at: Instant,
    lines: Duration,
}

impl Progress {
    fn begin(all: usize) -> Self {
        let lines = if standard::error_is_terminal() {
            LINES_ON_TERMINAL
        } else {
            LINES_ELSEWHERE
        };
        Self {
            done: 0,
            all,
            line_at: Instant::now() + lines,
            lines,
        }
    }

    fn one_more(&mut self) {
        self.done += 1;
        if self.done < self.all && Instant::now() >= self.line_at {
            self.line_at = Instant::now() + self.lines;
            tracing::info!(replayed = self.done, of = self.all, "pieces");
        }
    }
}
