//! Divergences of this side's replay: their times, which decide whether it joins again, and their
//! reports, which are kept.
//!
//! The program begins again to join again, in the same process. The times go along in its
//! environment, on the clock that runs on meanwhile.

use lockstep_core::machine::divergence::Divergence;
use lockstep_core::replica::divergences::{Counted, DIVERGENCES_MAX, Decision, decide, recent};
use lockstep_logging_channel::Generation;
use lockstep_shared_disk::Party;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The times, in nanoseconds of the role machine's clock, separated by commas.
const VARIABLE: &str = "LOCKSTEP_DIVERGED_AT_NS";

/// Begins the names of files with reports.
const FILE_PREFIX: &str = "divergence-";
/// Reports kept of a machine: those of three sides that gave up, and one more. With
/// [`REPORT_BYTES_MAX`] each they take 1 MiB.
const REPORTS_MAX: usize = 16;
/// Bytes of a report, beside the line that says whose it is. A line of text for each of the entries
/// before a divergence is far less; the text of a fault may be longer.
const REPORT_BYTES_MAX: usize = 64 << 10;
/// Entries of the machine's folder that are looked at for reports that are to be removed.
const FILES_MAX: usize = 10_000;

/// Divergences of this side so far.
#[derive(Clone, Debug, Default)]
pub struct Diverging {
    /// It finds its holder in the store, and may join it again.
    joins_again: bool,
    /// The machine falls back to checkpoints where replays are given up.
    falls_back: bool,
    earlier_ns: Vec<u64>,
}

/// A side that joins again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// Rest before that.
    pub rest: Duration,
    /// Number of divergences that count.
    pub count: usize,
    variable: String,
}

impl Again {
    /// Name and value of the variable with the times, for the program that begins again.
    #[must_use]
    pub fn variable(self) -> (&'static str, String) {
        (VARIABLE, self.variable)
    }
}

impl Diverging {
    /// Divergences of this process before its program began again. A side that does not join again
    /// has none.
    #[must_use]
    pub fn new(joins_again: bool, falls_back: bool) -> Self {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        Self {
            joins_again,
            falls_back,
            earlier_ns: times(&text),
        }
    }

    /// Those so far, for a side that holds the machine: they were replays of it.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted::since(&self.earlier_ns)
    }

    /// Decides after a divergence at `now_ns` of a side that has been `joining`, and was not armed.
    /// `None`: this side joins no more.
    #[must_use]
    pub fn again(&self, now_ns: u64, joining: Duration) -> Option<Again> {
        let joining_ns = u64::try_from(joining.as_nanos()).unwrap_or(u64::MAX);
        match decide(now_ns, &self.earlier_ns, joining_ns, self.falls_back) {
            Decision::JoinAgain { rest_ns } if self.joins_again => {
                let at_ns: Vec<_> = recent(now_ns, &self.earlier_ns).chain([now_ns]).collect();
                let texts: Vec<_> = at_ns.iter().map(u64::to_string).collect();
                Some(Again {
                    rest: Duration::from_nanos(rest_ns),
                    count: at_ns.len(),
                    variable: texts.join(","),
                })
            }
            Decision::JoinAgain { .. } | Decision::GiveUp => None,
        }
    }

    /// Says why this side joins no more.
    #[must_use]
    pub fn given_up(&self, now_ns: u64) -> Option<String> {
        let count = recent(now_ns, &self.earlier_ns).count() + 1;
        let gives_up = self.joins_again && !self.falls_back && count >= DIVERGENCES_MAX;
        gives_up.then(|| {
            format!("{count} divergences within an hour: this guest cannot be replayed here, giving up")
        })
    }
}

/// The newest times of the variable. What is not a number was not written by this program.
fn times(text: &str) -> Vec<u64> {
    let mut times: Vec<u64> = text.split(',').flat_map(str::parse).collect();
    times.drain(..times.len().saturating_sub(DIVERGENCES_MAX));
    times
}

/// The report of a divergence, with who reports it.
#[must_use]
pub fn report(divergence: &Divergence, party: &Party, generation: Generation) -> String {
    let text = bounded(divergence);
    format!("{party}, generation {generation}\n{text}\n")
}

/// The report of a divergence, of bounded length.
#[must_use]
pub fn bounded(divergence: &Divergence) -> String {
    let mut text = String::new();
    if write!(Bounded(&mut text), "divergence: {divergence}").is_err() {
        text.push_str("\n(cut here)");
    }
    text
}

/// Text of at most [`REPORT_BYTES_MAX`]: an entry's bytes are not formatted beyond.
struct Bounded<'a>(&'a mut String);

impl std::fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = REPORT_BYTES_MAX.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let fits = text.floor_char_boundary(room);
        self.0.push_str(text.get(..fits).unwrap_or_default());
        Err(std::fmt::Error)
    }
}

/// Keeps a report in the machine's `folder`, and removes the oldest beyond [`REPORTS_MAX`]. Gives
/// its path.
///
/// # Errors
/// The system's.
pub fn keep(folder: &Path, party: &Party, now_unix_s: u64, report: &str) -> io::Result<PathBuf> {
    let [a, b, c, d, ..] = party.id;
    let id = u32::from_be_bytes([a, b, c, d]);
    let path = folder.join(format!("{FILE_PREFIX}{now_unix_s:012}-{id:08x}"));
    fs::write(&path, report)?;
    let entries = fs::read_dir(folder)?.take(FILES_MAX).flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(FILE_PREFIX))
        .collect();
    names.sort();
    let oldest = names.len().saturating_sub(REPORTS_MAX);
    for name in names.iter().take(oldest) {
        // Somebody else may have removed it.
        let _ = fs::remove_file(folder.join(name));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::{Body, DeviceId, Entry, Event, EventKind, ExecutionPoint, Sequence};
    use lockstep_shared_disk::fake;

    const SECOND_NS: u64 = 1_000_000_000;

    fn side(joins_again: bool, text: &str) -> Diverging {
        Diverging {
            joins_again,
            falls_back: false,
            earlier_ns: times(text),
        }
    }

    #[test]
    fn a_side_whose_machine_falls_back_does_not_give_up() {
        let mut side = side(true, "");
        side.falls_back = true;
        let mut rests = Vec::new();
        for second in 0..7 {
            let now_ns = (7_000 + second) * SECOND_NS;
            let again = side.again(now_ns, Duration::ZERO).unwrap();
            assert_eq!(side.given_up(now_ns), None);
            rests.push(again.rest.as_secs());
            side.earlier_ns = times(&again.variable().1);
        }
        assert_eq!(rests, [1, 2, 4, 8, 1, 1, 1]);
        assert_eq!(side.earlier_ns.len(), DIVERGENCES_MAX);
    }

    #[test]
    fn the_times_go_along_and_end_in_giving_up() {
        let (mut text, mut rests) = (String::new(), Vec::new());
        let mut now_ns = 7_000 * SECOND_NS;
        while let Some(again) = side(true, &text).again(now_ns, Duration::ZERO) {
            rests.push(again.rest.as_secs());
            assert_eq!(again.count, rests.len());
            assert_eq!(side(true, &text).given_up(now_ns), None);
            text = again.variable().1;
            now_ns += SECOND_NS;
        }
        assert_eq!(rests, [1, 2, 4, 8]);
        let why = side(true, &text).given_up(now_ns).unwrap();
        assert!(why.contains("5 divergences within an hour"), "{why}");
    }

    #[test]
    fn a_side_that_names_its_channel_joins_no_more() {
        assert_eq!(side(false, "").again(1, Duration::ZERO), None);
        assert_eq!(side(false, "").given_up(1), None);
    }

    #[test]
    fn what_is_no_time_is_left_out_and_few_are_kept() {
        assert!(times("").is_empty());
        assert_eq!(times("x,-1,7,,99999999999999999999"), [7]);
        assert_eq!(times("1,2,3,4,5,6,7"), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn reports_are_kept_and_the_oldest_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("machine"), "x").unwrap();
        let party = fake::party(1);
        let many = REPORTS_MAX as u64 + 3;
        let paths: Vec<_> = (0..many)
            .map(|at| keep(folder.path(), &party, 99_999_999 + at, &format!("report {at}")).unwrap())
            .collect();
        let there: Vec<_> = paths.iter().map(|path| path.is_file()).collect();
        let removed = there.iter().take_while(|there| !**there).count();
        assert_eq!(
            (removed, there.iter().filter(|there| **there).count()),
            (3, REPORTS_MAX)
        );
        assert_eq!(fs::read_to_string(&paths[3]).unwrap(), "report 3");
        assert!(folder.path().join("machine").is_file());
    }

    fn divergence(found: String, frame_bytes: usize) -> Divergence {
        let frame = Entry {
            generation: Generation(4),
            sequence: Sequence(6),
            point: ExecutionPoint::default(),
            body: Body::Event(Event {
                device: DeviceId(1),
                monotonic_ns: 9,
                kind: EventKind::Frame(vec![0xab; frame_bytes]),
            }),
        };
        Divergence {
            sequence: Sequence(7),
            recorded_at: ExecutionPoint::default(),
            found_at: ExecutionPoint::default(),
            part: "registers".to_owned(),
            device: None,
            devices: vec!["interval timer", "network device"],
            expected: "1".to_owned(),
            found,
            before: vec![frame],
        }
    }

    #[test]
    fn a_report_says_who_and_is_bounded() {
        let text = report(&divergence("2".to_owned(), 3), &fake::party(1), Generation(4));
        for part in [
            "process 1",
            "generation 4",
            "at entry 7: registers",
            " 6 g4 ",
            "device 1 frame 3 bytes ababab at 9 ns (network device)",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let long = "x".repeat(REPORT_BYTES_MAX);
        let text = report(&divergence(long, 3), &fake::party(1), Generation(4));
        assert!(text.ends_with("(cut here)\n") && text.len() < REPORT_BYTES_MAX + 128);
    }

    #[test]
    fn a_whole_frame_takes_a_line_of_a_report() {
        let text = bounded(&divergence("2".to_owned(), 1 << 16));
        let line = text.lines().last().unwrap();
        assert!(
            line.len() < 160 && line.contains("frame 65536 bytes ababab"),
            "{line}"
        );
    }
}
