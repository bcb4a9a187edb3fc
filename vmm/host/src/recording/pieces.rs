//! A recording that is replayed: whole, from a snapshot, or one of its pieces between snapshots.

use super::feed::{FileFeed, open_log, same_environment, skip_to};
use super::folder::{Folder, Snapshot};
use super::journal::FileJournal;
use super::restoring::Restoring;
use crate::disk::{Contents, DiskThreads};
use crate::error::RunError;
use crate::live::control::{Control, control};
use crate::live::{Order, World};
use crate::machine::Plan;
use crate::machine::disks::PieceDisks;
use crate::machine::piece::{Beginning, Checked, Ends, Finish, Position, start_piece};
use crate::machine::thread::{MachineThread, Origin};
use crate::outside::Signals;
use lockstep_core::machine::Ended;
use lockstep_core::machine::door::Door;
use lockstep_core::replica::snapshot::{Place, Recording};
use lockstep_core::replica::transfer::Received;
use lockstep_core::replica::{Replayer, Standby};
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::{Body, End, EndReason, Entry, LogReader, Sequence};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
pub struct Piece {
    /// Its first snapshot; none for the beginning.
    pub snapshot: Option<Snapshot>,
    /// Place of the next snapshot; none for the end.
    pub until: Option<Place>,
}

impl Piece {
    /// Number of its first entry.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.snapshot
            .as_ref()
            .map_or(1, |snapshot| snapshot.header.place.entry)
    }

    /// Place at which it is compared.
    #[must_use]
    pub fn ends(&self) -> Ends {
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

    /// Starts the replay of `piece`.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn start(
        &self,
        piece: &Piece,
        ends: Ends,
        show_console: bool,
    ) -> Result<(MachineThread<Checked>, Control), RunError> {
        let (control, ordered) = control();
        let images = self.plan.images();
        let drives = images.throwaway(self.plan.board())?;
        let contents = Contents::of(&drives, &images.shapes());
        let (threads, disks) = DiskThreads::start(drives, || ())?;
        let watch = threads.watch();
        let (feed, _) = FileFeed::open(&self.log, ordered.clone(), show_console)?;
        let mut feed = feed.with_disks(disks.clone());
        let counts = self.plan.clock() != ClockKind::None;
        let memory_bytes = self.plan.memory_bytes();
        let (snapshot, recording, log) = (piece.snapshot.clone(), self.recording, self.log.clone());
        let (folder, obeyed) = (self.folder.clone(), ordered.clone());
        let make = Box::new(move || {
            let Some(snapshot) = snapshot else {
                let replayer = Replayer::new(feed, counts).of_memory(memory_bytes);
                let disks = PieceDisks::new(disks, contents, watch, BTreeSet::new());
                return Ok(Beginning::Runs(Origin::Boot, door(replayer), disks));
            };
            let place = snapshot.header.place;
            feed.skip_to(&place)?;
            let received = snapshot.read(&recording)?;
            if let Some(ended) = stopped_at(&log, &snapshot, &received)? {
                return Ok(Beginning::Over(ended));
            }
            let mut written = BTreeSet::new();
            if !contents.is_empty() {
                let (folder, recording, contents) = (&folder, &recording, &contents);
                let restoring = Restoring {
                    folder,
                    recording,
                    contents,
                };
                written = restoring.restore(place.entry, || obeyed.obey())?;
            }
            let disks = PieceDisks::new(disks, contents, watch, written);
            let position = received.position;
            let last = Sequence(position.sequence);
            let replayer =
                Replayer::from_capture(feed, counts, last, position.into()).of_memory(memory_bytes);
            Ok(Beginning::Runs(
                Origin::Captured(Box::new(received)),
                door(replayer),
                disks,
            ))
        });
        let machine = start_piece(self.plan.clone(), ends, ordered, make)?;
        Ok((machine, control))
    }

    /// Bytes of its guest's memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.plan.memory_bytes()
    }

    /// The pieces between the snapshots: one, where there is none.
    ///
    /// # Errors
    /// [`RunError::Snapshot`].
    pub fn pieces(&self) -> Result<Vec<Piece>, RunError> {
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

/// Number of entries of a log.
///
/// # Errors
/// [`RunError::Log`].
pub fn count_entries(log: &Path) -> Result<u64, RunError> {
    let mut log = LogReader::open(log)?;
    log.by_ref().try_for_each(|entry| entry.map(drop))?;
    Ok(log.entries())
}

/// Error where a replay has no end.
#[must_use]
pub fn no_end() -> RunError {
    RunError::Defect {
        what: "a replay was over before its end".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_number_or_the_last() {
        assert_eq!("17".parse(), Ok(From::Entry(17)));
        assert_eq!("last".parse(), Ok(From::Last));
        for text in ["", "-1", "first", "1.5"] {
            assert!(text.parse::<From>().is_err(), "{text}");
        }
    }
}
