//! Everything a round leaves behind, for its judgement and, where it fails, for people.

use super::clients::Account;
use super::faults::Subject;
use super::history::Record;
use super::kind::Side;
use super::plan::Title;
use crate::harness::proxy::Traffic;
use crate::harness::switch::Frame;
use crate::harness::{Replica, Switch, logs};
use lockstep_logging_channel::{Body, Entry, ExecutionPoint, Generation, Sequence};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Messages and reports of one side.
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
    /// Those of `replica`; its status, where it has ended.
    pub fn by(replica: &mut Replica) -> Self {
        let code = if replica.process.is_running() {
            None
        } else {
            replica.process.wait().code()
        };
        Self {
            events: replica.events(),
            stderr: replica.process.stderr(),
            code,
        }
    }

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

/// Files that are kept of a switch, whose number is `number`.
#[must_use]
pub fn files_of(switch: &Switch, number: &str) -> [(String, Vec<u8>); 2] {
    let capture = switch.capture().and_then(|path| fs::read(path).ok());
    [
        (
            format!("switch{number}.stderr"),
            switch.process.stderr().into_bytes(),
        ),
        (format!("frames{number}.pcapng"), capture.unwrap_or_default()),
    ]
}

/// Everything.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Of each client.
    pub accounts: Vec<Account>,
    /// Reads of every key, when the clients had stopped.
    pub last: Vec<Record>,
    /// Values that the keys held then.
    pub held: BTreeMap<String, u64>,
    /// Frames that entered the switch.
    pub frames: Vec<Frame>,
    /// Traffic on the channel, where a proxy was in it.
    pub traffic: Option<Traffic>,
    /// Traffic on the wires of a chain, in the generations of their holders.
    pub wires: Vec<(u32, Traffic)>,
    /// Messages and reports of each process.
    pub said: BTreeMap<String, Said>,
    /// The side that has won, by the storage.
    pub winner: Option<Side>,
    /// More for a person who looks at a failed round, by file names.
    pub files: Vec<(String, Vec<u8>)>,
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
            let said = Said::by(subject.side(side));
            (side.name().to_owned(), said)
        });
        let switch = subject.pair.switch.as_ref();
        Self {
            accounts,
            last,
            held,
            frames: switch.map(crate::harness::Switch::frames).unwrap_or_default(),
            traffic: subject.pair.proxy.as_ref().map(crate::harness::Proxy::traffic),
            said: BTreeMap::from(said),
            winner: subject.winner(),
            wires: Vec::new(),
            files: switch
                .map(|switch| files_of(switch, ""))
                .into_iter()
                .flatten()
                .collect(),
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
    pub fn keep(&self, directory: &Path, title: &Title, failures: &[String]) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let write = |name: &str, text: &str| fs::write(directory.join(name), text);
        let lines =
            |values: &mut dyn Iterator<Item = String>| values.map(|line| line + "\n").collect::<String>();
        write("plan.txt", &format!("{}\n{title:#?}\n", title.plan))?;
        write("failures.txt", &lines(&mut failures.iter().cloned()))?;
        write(
            "history.jsonl",
            &lines(&mut self.history().map(|record| record.to_json().to_string())),
        )?;
        for (name, said) in &self.said {
            write(
                &format!("{name}.jsonl"),
                &lines(&mut said.events.iter().map(Value::to_string)),
            )?;
            write(&format!("{name}.stderr"), &said.stderr)?;
        }
        for (name, bytes) in &self.files {
            fs::write(directory.join(name), bytes)?;
        }
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
