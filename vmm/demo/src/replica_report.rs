//! The report of a replica: JSON lines with a time, an event and the event's fields.
//!
//! A replica that is killed may leave its last line unfinished; it and events unknown here are
//! passed over.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

/// Something that happened to a replica.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct ReplicaEvent {
    /// Its time by CLOCK_MONOTONIC, in nanoseconds.
    pub(super) at_ns: u64,
    /// Its name.
    pub(super) event: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl ReplicaEvent {
    /// A field as text for people, if it is there.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        match self.fields.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// A field that is a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.fields.get(name)?.as_u64()
    }
}

/// Counters of a replica, from the last line that has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Statistics {
    /// Entries of the log.
    pub(super) log_entries: u64,
    /// Bytes of the log.
    pub(super) log_bytes: u64,
    /// Outputs that have left.
    pub(super) outputs: u64,
    /// Median of the time outputs waited, in microseconds.
    pub(super) held_us_p50: u64,
    /// 99th percentile of it.
    pub(super) held_us_p99: u64,
}

/// A report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ReplicaReport {
    events: Vec<ReplicaEvent>,
}

impl ReplicaReport {
    /// Reads what the replica has written so far; nothing where it has not begun.
    pub(super) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    fn parse(text: &str) -> Self {
        Self {
            events: text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        }
    }

    /// Number of events.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// The first event of that name.
    pub(super) fn first(&self, event: &str) -> Option<&ReplicaEvent> {
        self.first_since(event, 0)
    }

    /// The first event of that name at or after a time.
    pub(super) fn first_since(&self, event: &str, at_ns: u64) -> Option<&ReplicaEvent> {
        let is_wanted = |known: &&ReplicaEvent| known.event == event && known.at_ns >= at_ns;
        self.events.iter().find(is_wanted)
    }

    /// All events of that name at or after a time.
    pub(super) fn all_since<'a>(
        &'a self,
        event: &'a str,
        at_ns: u64,
    ) -> impl Iterator<Item = &'a ReplicaEvent> {
        let is_wanted = move |known: &&'a ReplicaEvent| known.event == event && known.at_ns >= at_ns;
        self.events.iter().filter(is_wanted)
    }

    /// The last event of any of these names.
    pub(super) fn last_of(&self, events: &[&str]) -> Option<&ReplicaEvent> {
        let is_wanted = |known: &&ReplicaEvent| events.contains(&known.event.as_str());
        self.events.iter().rev().find(is_wanted)
    }

    /// Divergences found. A replica that has diverged begins its program again, with counters of its
    /// own, and goes on with the same report.
    pub(super) fn divergences(&self) -> u64 {
        self.all_since("diverged", 0).count() as u64
    }

    /// The counters as written last before a time.
    pub(super) fn statistics_until(&self, at_ns: u64) -> Statistics {
        let is_counters = |known: &ReplicaEvent| known.event == "statistics" || known.event == "summary";
        let has_counters = |known: &&ReplicaEvent| is_counters(known) && known.at_ns <= at_ns;
        let last = self.events.iter().rev().find(has_counters);
        let fields = last.map(|last| Value::Object(last.fields.clone()));
        fields
            .and_then(|fields| serde_json::from_value(fields).ok())
            .unwrap_or_default()
    }
}

/// A report that is still written: each line is read once.
pub(super) struct Following {
    path: PathBuf,
    /// Bytes that were read, whole lines.
    read_bytes: u64,
    report: ReplicaReport,
}

impl Following {
    /// A report that may not have begun.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read_bytes: 0,
            report: ReplicaReport::default(),
        }
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The report so far; as it was where its file cannot be read.
    pub(super) fn look(&mut self) -> &ReplicaReport {
        let text = self.appended().unwrap_or_default();
        if let Some((lines, _)) = text.rsplit_once('\n') {
            self.read_bytes += lines.len() as u64 + 1;
            self.report.events.extend(ReplicaReport::parse(lines).events);
        }
        &self.report
    }

    fn appended(&self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read_bytes))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
impl From<&str> for ReplicaReport {
    fn from(text: &str) -> Self {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"at_ns":10,"event":"protected","role":"backup"}
{"at_ns":20,"event":"statistics","log_entries":5,"log_bytes":500,"held_us_p50":7}
{"at_ns":30,"event":"noticed","cause":"it closed the connection"}
{"at_ns":40,"event":"won","generation":2}
{"at_ns":50,"event":"summary","log_entries":9,"log_bytes":900,"held_us_p50":8,"held_us_p99":80,"lag_us_p50":3}
{"at_ns":60,"event":"summ"#;

    #[test]
    fn events_are_found_by_name_and_time() {
        let report = ReplicaReport::from(REPORT);
        assert_eq!(report.first("noticed").map(|event| event.at_ns), Some(30));
        assert_eq!(report.first_since("noticed", 31), None);
        assert_eq!(
            report.first("noticed").unwrap().field("cause").as_deref(),
            Some("it closed the connection")
        );
        assert_eq!(
            report.first("won").unwrap().field("generation").as_deref(),
            Some("2")
        );
        assert_eq!(report.first("live"), None);
    }

    #[test]
    fn divergences_of_every_life_of_the_process_count() {
        let life = r#"{"at_ns":1,"event":"diverged","sequence":7,"part":"registers"}
{"at_ns":2,"event":"summary","divergences":1}
"#;
        let report = ReplicaReport::from(format!("{life}{life}{REPORT}").as_str());
        assert_eq!(report.divergences(), 2);
        assert_eq!(ReplicaReport::from(REPORT).divergences(), 0);
    }

    #[test]
    fn the_last_counters_count() {
        let whole = ReplicaReport::from(REPORT).statistics_until(u64::MAX);
        assert_eq!((whole.log_entries, whole.held_us_p99), (9, 80));
        let killed =
            ReplicaReport::from(REPORT.split_once("{\"at_ns\":50").unwrap().0).statistics_until(u64::MAX);
        assert_eq!(
            (killed.log_entries, killed.held_us_p50, killed.held_us_p99),
            (5, 7, 0)
        );
        assert_eq!(
            ReplicaReport::read(Path::new("/nowhere")).statistics_until(u64::MAX),
            Statistics::default()
        );
    }

    #[test]
    fn a_report_that_grows_is_read_on_from_its_last_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report");
        let mut following = Following::new(path.clone());
        assert_eq!(following.look().len(), 0);
        let (begun, rest) = REPORT.split_at(REPORT.find("\"cause\"").unwrap());
        std::fs::write(&path, begun).unwrap();
        assert_eq!(following.look().len(), 2);
        std::fs::write(&path, format!("{begun}{rest}")).unwrap();
        let whole = ReplicaReport::from(REPORT);
        assert_eq!(*following.look(), whole);
        assert_eq!(*following.look(), whole);
    }
}
