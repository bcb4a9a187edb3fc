//! One side of a pair: its process, and what it reports.

use super::process::{Ended, Process, Redirect};
use super::{wait_until, wait_while};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running `lockstep primary` or `lockstep backup`.
#[derive(Debug)]
pub struct Replica {
    /// The process.
    pub process: Process,
    report: PathBuf,
}

/// The whole lines of a report file.
///
/// # Panics
/// A line is no JSON.
#[must_use]
pub fn read_report(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why} in report line {line}")))
        .collect()
}

/// Times that `event` is among these events.
#[must_use]
pub fn times_reported(events: &[Value], event: &str) -> usize {
    events.iter().filter(|line| line["event"] == event).count()
}

impl Replica {
    /// Starts `command`, which reports to `report`.
    #[must_use]
    pub fn start(name: &str, command: &mut Command, report: PathBuf) -> Self {
        Self::start_redirected(name, command, report, &[])
    }

    /// The same, with some streams to elsewhere.
    #[must_use]
    pub fn start_redirected(
        name: &str,
        command: &mut Command,
        report: PathBuf,
        redirects: &[Redirect],
    ) -> Self {
        Self {
            process: Process::start_redirected(name, command, redirects),
            report,
        }
    }

    /// Everything reported so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        read_report(&self.report)
    }

    /// The first report of `event`, if there is one.
    #[must_use]
    pub fn event(&self, event: &str) -> Option<Value> {
        self.events().into_iter().find(|line| line["event"] == event)
    }

    /// Times that `event` was reported so far.
    #[must_use]
    pub fn count(&self, event: &str) -> usize {
        times_reported(&self.events(), event)
    }

    /// Waits until `event` was reported so many times.
    ///
    /// # Panics
    /// It is not.
    pub fn wait_for_count(&self, event: &str, times: usize) {
        wait_while(
            || signs(&self.report),
            || (self.count(event) >= times).then_some(()),
            || format!("{times} times `{event}`: {}", self.account()),
        );
    }

    /// Waits until `event` is reported, as long as other things are.
    ///
    /// # Panics
    /// It is not, or the process ends before.
    pub fn wait_for(&mut self, event: &str) -> Value {
        let report = self.report.clone();
        wait_while(
            || signs(&report),
            || {
                let running = self.process.is_running();
                let found = self.event(event);
                assert!(
                    found.is_some() || running,
                    "ended without `{event}`: {}",
                    self.account()
                );
                found
            },
            || format!("`{event}`: {:?}", std::fs::read_to_string(&report)),
        )
    }

    /// Waits until the newest statistics satisfy `enough`, and gives them.
    ///
    /// # Panics
    /// They never do.
    pub fn wait_for_statistics(&self, enough: impl Fn(&Value) -> bool) -> Value {
        let newest = || {
            self.events()
                .into_iter()
                .rev()
                .find(|line| line["event"] == "statistics")
        };
        wait_until(
            || newest().filter(&enough),
            || format!("such statistics: {:?}", newest()),
        )
    }

    /// The last line's statistics, when the process has ended.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn summary(&self) -> Value {
        self.event("summary")
            .unwrap_or_else(|| panic!("no summary: {}", self.account()))
    }

    /// Asks it to stop, and waits for its end.
    pub fn stop(&mut self) -> Ended {
        self.process.signal(Signal::SIGTERM);
        self.process.wait()
    }

    /// Everything known of it, for a test that fails.
    #[must_use]
    pub fn account(&self) -> String {
        let report = std::fs::read_to_string(&self.report).unwrap_or_default();
        format!("\n--- report\n{report}\n--- stderr\n{}", self.process.stderr())
    }
}

/// Signs of progress in a report: whatever happens, other than time.
fn signs(report: &Path) -> usize {
    let events = read_report(report);
    events.iter().filter(|line| line["event"] != "statistics").count()
}
