//! Everything a round leaves behind, for its judgement and, where it fails, for people.

use super::clients::Account;
use super::faults::Subject;
use super::history::Record;
use super::kind::Side;
use super::plan::Plan;
use crate::harness::logs;
use crate::harness::proxy::Traffic;
use crate::harness::switch::Frame;
use lockstep_logging_channel::{Body, Entry, ExecutionPoint, Generation, Sequence};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// What one side said.
#[derive(Debug)]
pub struct Said {
    /// Its report.
    pub events: Vec<Value>,
    /// Its standard error.
    pub stderr: String,
    /// Its exit status, if no signal ended it.
    pub code: Option<i32>,
}

impl Said {
    /// The first report of `event`.
    #[must_use]
    pub fn event(&self, event: &str) -> Option<&Value> {
        self.events.iter().find(|line| line["event"] == event)
    }

    /// When `event` was first reported, on the host's monotonic clock.
    #[must_use]
    pub fn at_ns(&self, event: &str) -> Option<u64> {
        self.event(event)?["at_ns"].as_u64()
    }
}

/// Everything.
#[derive(Debug)]
pub struct Evidence {
    /// Of each client.
    pub accounts: Vec<Account>,
    /// Reads of every key, when the clients had stopped.
    pub last: Vec<Record>,
    /// What every key held then.
    pub held: BTreeMap<String, u64>,
    /// Frames that entered the switch.
    pub frames: Vec<Frame>,
    /// What went over the channel, where a proxy was in it.
    pub traffic: Option<Traffic>,
    /// What each side said.
    pub said: BTreeMap<Side, Said>,
    /// Who has won, by the storage.
    pub winner: Option<Side>,
    capture: Vec<u8>,
    switch_said: String,
}

impl Evidence {
    /// Collects it when the processes have ended.
    pub fn collect(
        subject: &mut Subject<'_>,
        accounts: Vec<Account>,
        last: Vec<Record>,
        held: BTreeMap<String, u64>,
    ) -> Self {
        let said = Side::BOTH.map(|side| {
            let replica = subject.side(side);
            let code = if replica.process.is_running() {
                None
            } else {
                replica.process.wait().code()
            };
            let (events, stderr) = (replica.events(), replica.process.stderr());
            (side, Said { events, stderr, code })
        });
        let switch = subject.pair.switch.as_ref();
        let capture = switch.and_then(crate::harness::Switch::capture);
        Self {
            accounts,
            last,
            held,
            frames: switch.map(crate::harness::Switch::frames).unwrap_or_default(),
            traffic: subject.pair.proxy.as_ref().map(crate::harness::Proxy::traffic),
            said: BTreeMap::from(said),
            winner: subject.winner(),
            capture: capture.and_then(|path| fs::read(path).ok()).unwrap_or_default(),
            switch_said: switch.map(|switch| switch.process.stderr()).unwrap_or_default(),
        }
    }

    /// Every operation of every client, the last reads among them.
    pub fn history(&self) -> impl Iterator<Item = &Record> {
        self.accounts
            .iter()
            .flat_map(|account| &account.history)
            .chain(&self.last)
    }

    /// Keeps it in `directory`.
    ///
    /// # Errors
    /// The file system's.
    pub fn keep(&self, directory: &Path, plan: &Plan, failures: &[String]) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let write = |name: &str, text: &str| fs::write(directory.join(name), text);
        let lines =
            |values: &mut dyn Iterator<Item = String>| values.map(|line| line + "\n").collect::<String>();
        write("plan.txt", &format!("{}\n{plan:#?}\n", plan.describe()))?;
        write("failures.txt", &lines(&mut failures.iter().cloned()))?;
        write(
            "history.jsonl",
            &lines(&mut self.history().map(|record| record.to_json().to_string())),
        )?;
        for (side, said) in &self.said {
            write(
                &format!("{}.jsonl", side.name()),
                &lines(&mut said.events.iter().map(Value::to_string)),
            )?;
            write(&format!("{}.stderr", side.name()), &said.stderr)?;
        }
        write("switch.stderr", &self.switch_said)?;
        fs::write(directory.join("frames.pcapng"), &self.capture)?;
        let Some(traffic) = &self.traffic else {
            return Ok(());
        };
        let passed = traffic
            .passed
            .iter()
            .map(|(at_us, passing)| format!("{at_us} {passing:?}"));
        write("channel.passed", &lines(&mut { passed }))?;
        if let Some(environment) = &traffic.environment {
            let first = Entry {
                generation: Generation(1),
                sequence: Sequence(0),
                point: ExecutionPoint::default(),
                body: Body::Environment(environment.clone()),
            };
            let entries: Vec<Entry> = std::iter::once(first)
                .chain(traffic.entries.iter().cloned())
                .collect();
            logs::write(&directory.join("channel.log"), &entries);
        }
        Ok(())
    }
}
