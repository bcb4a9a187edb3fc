//! The pieces of a recording, replayed at the same time and compared where they meet.
//!
//! ```text
//!   log:       entry 1 .......... snapshot .......... snapshot .......... end
//!   pieces:    |-------- 1 --------|--------- 2 --------|-------- 3 --------|
//!   compared:                     1 with 2             2 with 3
//! ```
//!
//! What is reported is the earliest difference in the recording, whichever thread finds one first:
//! the first error of the first piece that has one, or the first boundary at which a machine
//! differs from the snapshot. A piece that differs before it has left its snapshot behind is such a
//! boundary: the piece before has replayed the same entries without an error.

use super::pieces::{Piece, Recorded, no_end};
use crate::error::RunError;
use crate::live::Order;
use crate::live::control::Control;
use crate::machine::piece::{Checked, Finish};
use crate::outside::Signals;
use crate::progress::Lines;
use lockstep_core::machine::door::DoorError;
use lockstep_core::machine::{Ended, MachineError};
use lockstep_core::replica::snapshot::{Boundary, difference, from_the_snapshot};
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// Memory of a piece beside its guest's: page tables, the log's buffers, a section of its snapshot.
const PIECE_BYTES: u64 = 32 << 20;

/// Replays all pieces, as many at a time as there are processors and memory for. A signal ends
/// it.
///
/// # Errors
/// [`RunError`]; the first divergence is one.
pub async fn check(recorded: &Recorded, signals: &mut Signals) -> Result<AllChecked, RunError> {
    let pieces = recorded.pieces()?;
    let at_a_time = at_a_time(recorded.memory_bytes()).min(pieces.len());
    let mut checking = Checking {
        recorded,
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
                Some(Err(why)) => return Err(RunError::other("a piece was not replayed")(std::io::Error::other(why))),
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

/// Outcome of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllChecked {
    /// End of the recording.
    pub ended: Ended,
    /// Pieces that were replayed.
    pub pieces: usize,
    /// Pieces at the same time.
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
    let differs = match (began, finish) {
        (None, Err(MachineError::Door(DoorError::Diverged(divergence)))) => {
            Some(from_the_snapshot(piece.entry(), divergence))
        }
        // It was stopped on its way, or the host has failed.
        (None, Err(_)) => None,
        _ => difference(piece.entry(), began, reached),
    };
    match differs {
        None => Ok(()),
        Some(divergence) => Err(MachineError::Door(DoorError::Diverged(Box::new(divergence))).into()),
    }
}

fn stopped() -> RunError {
    MachineError::Door(DoorError::Stopped).into()
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

/// Progress over pieces, for people.
struct Progress {
    done: usize,
    all: usize,
    lines: Lines,
}

impl Progress {
    fn begin(all: usize) -> Self {
        let lines = Lines::begin();
        Self { done: 0, all, lines }
    }

    fn one_more(&mut self) {
        self.done += 1;
        if self.done < self.all && self.lines.is_due() {
            tracing::info!(replayed = self.done, of = self.all, "pieces");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_core::machine::divergence::Divergence;
    use lockstep_logging_channel::{EndReason, ExecutionPoint, Sequence};

    #[test]
    fn what_is_available_is_read_in_bytes() {
        let text = "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:    8000 kB\n";
        assert_eq!(available_bytes(text), Some(8_000 << 10));
        for text in ["", "MemAvailable: lots", "MemAvailable: 8000"] {
            assert_eq!(available_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn there_is_always_room_for_one_piece() {
        assert_eq!(at_a_time(u64::MAX / 2), 1);
        assert!(at_a_time(0) >= 1);
    }

    fn ended() -> Outcome {
        let finish = Ok(Finish::Ended(Ended {
            reason: EndReason::PoweredOff(0),
            point: ExecutionPoint::default(),
        }));
        Ok(Checked { began: None, finish })
    }

    fn failed(what: &str) -> Outcome {
        Err(RunError::Defect {
            what: what.to_owned(),
        })
    }

    fn concluded(outcomes: Vec<Option<Outcome>>) -> String {
        let pieces = vec![Piece::default(); outcomes.len()];
        let done = outcomes.into_iter().enumerate();
        let done = done.filter_map(|(index, outcome)| outcome.map(|outcome| (index, outcome)));
        conclusion(&pieces, done.collect()).unwrap_err().to_string()
    }

    #[test]
    fn the_first_error_in_the_order_of_the_log_is_told() {
        let why = concluded(vec![Some(ended()), Some(failed("second")), Some(failed("third"))]);
        assert!(why.contains("second"), "{why}");
        let why = concluded(vec![Some(ended()), None, Some(failed("third"))]);
        assert_eq!(why, stopped().to_string());
    }

    /// The machine from the snapshot has another memory than the end of the log, and no execution
    /// point is between the two.
    #[test]
    fn a_piece_that_differs_before_it_has_left_its_snapshot_is_a_difference_of_the_snapshot() {
        let divergence = Divergence {
            sequence: Sequence(9),
            recorded_at: ExecutionPoint::default(),
            found_at: ExecutionPoint::default(),
            part: "memory".to_owned(),
            device: None,
            devices: Vec::new(),
            expected: "of the log".to_owned(),
            found: "of the machine".to_owned(),
            before: Vec::new(),
        };
        let diverged = || DoorError::Diverged(Box::new(divergence.clone()));
        let from_snapshot = || {
            Ok(Checked {
                began: None,
                finish: Err(MachineError::Door(diverged())),
            })
        };
        let why = concluded(vec![Some(ended()), Some(from_snapshot())]);
        for part in [
            "at entry 1: memory",
            "expected: of the machine, from its snapshot",
            "found:    of the log",
        ] {
            assert!(why.contains(part), "{part}: {why}");
        }
        let first = Ok(Checked {
            began: None,
            finish: Err(MachineError::Door(diverged())),
        });
        let why = concluded(vec![Some(first), Some(from_snapshot())]);
        assert!(why.contains("at entry 9: memory"), "the run itself: {why}");
        assert!(!why.contains("snapshot"), "{why}");
    }
}
