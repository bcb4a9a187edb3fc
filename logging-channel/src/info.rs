//! A log at a glance: what `lockstep log info` prints.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use serde::{Serialize, Serializer};

use crate::view::{BodyView, EntryView};
use crate::{Body, Entry, Environment, LogError, LogReader, Value};

/// Entries of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KindCount {
    /// How many.
    pub entries: u64,
    /// Their bytes in the log.
    pub bytes: u64,
}

/// What a log holds, up to where it can be read.
#[derive(Debug, Default, Serialize)]
pub struct LogInfo {
    /// Good entries.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Good entries by kind.
    pub kinds: BTreeMap<&'static str, KindCount>,
    /// Exits up to the last entry.
    pub exits: u64,
    /// Generation of the first entry.
    pub generation_first: u32,
    /// Generation of the last entry.
    pub generation_last: u32,
    /// Guest monotonic time of the last entry that says one, in nanoseconds since the machine started.
    pub guest_ns: Option<u64>,
    /// Bytes of the log over that time, in millions of bits a second.
    pub mbit_per_second: Option<f64>,
    /// What the recording depends on.
    #[serde(serialize_with = "environment_view")]
    pub environment: Option<Environment>,
    /// The end entry.
    pub end: Option<EntryView>,
    /// Why there is no more, where the log is not complete.
    #[serde(skip)]
    pub fault: Option<LogError>,
}

impl LogInfo {
    /// Reads `log` to its end, or to where it can be read no further: then `fault` says why.
    #[must_use]
    pub fn of(log: &mut LogReader<impl Read>) -> Self {
        let mut info = Self::default();
        while let Some(entry) = log.next() {
            match entry {
                Ok(entry) => info.add(entry, log.offset()),
                Err(error) => info.fault = Some(error),
            }
        }
        info.mbit_per_second = info.guest_ns.filter(|ns| *ns > 0).map(|ns| {
            // Bits a nanosecond are gigabits a second.
            info.bytes as f64 * 8.0 / ns as f64 * 1000.0
        });
        info
    }

    /// Adds the next entry, after which the log is read up to `offset`.
    fn add(&mut self, entry: Entry, offset: u64) {
        let count = self.kinds.entry(entry.body.kind().name()).or_default();
        count.entries += 1;
        count.bytes += offset - self.bytes;
        if self.entries == 0 {
            self.generation_first = entry.generation.0;
        }
        self.entries += 1;
        self.bytes = offset;
        self.exits = entry.point.exits;
        self.generation_last = entry.generation.0;
        self.guest_ns = guest_ns(&entry.body).or(self.guest_ns);
        if matches!(entry.body, Body::End(_)) {
            self.end = Some(EntryView::from(&entry));
        }
        if let Body::Environment(environment) = entry.body {
            self.environment = Some(environment);
        }
    }
}

/// The environment under the keys it has in an entry.
fn environment_view<S: Serializer>(environment: &Option<Environment>, to: S) -> Result<S::Ok, S::Error> {
    environment.as_ref().map(BodyView::from).serialize(to)
}

/// The guest monotonic time that `body` says, if it says one.
fn guest_ns(body: &Body) -> Option<u64> {
    match body {
        Body::Value(Value::Monotonic(ns)) => Some(*ns),
        Body::Event(event) => Some(event.monotonic_ns),
        _ => None,
    }
}

impl fmt::Display for LogInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            entries,
            bytes,
            exits,
            generation_first,
            generation_last,
            ..
        } = self;
        writeln!(formatter, "entries       {entries} in {bytes} bytes")?;
        for (name, KindCount { entries, bytes }) in &self.kinds {
            writeln!(formatter, "  {name:<12} {entries} in {bytes} bytes")?;
        }
        writeln!(formatter, "exits         {exits}")?;
        writeln!(formatter, "generations   {generation_first} to {generation_last}")?;
        if let Some(ns) = self.guest_ns {
            writeln!(
                formatter,
                "guest time    {}.{:09} s",
                ns / 1_000_000_000,
                ns % 1_000_000_000
            )?;
        }
        if let Some(rate) = self.mbit_per_second {
            writeln!(formatter, "rate          {rate:.3} Mbit/s")?;
        }
        if let Some(environment) = &self.environment {
            show_environment(formatter, environment)?;
        }
        match &self.end {
            Some(end) => writeln!(formatter, "end           {end}"),
            None => writeln!(formatter, "end           none: the log is not complete"),
        }
    }
}

fn show_environment(formatter: &mut fmt::Formatter<'_>, environment: &Environment) -> fmt::Result {
    writeln!(formatter, "pair          {}", hex::encode(environment.pair))?;
    for field in environment.compared.iter().chain(&environment.informative) {
        writeln!(
            formatter,
            "  {} = {}",
            field.name.escape_debug(),
            field.value.escape_debug()
        )?;
    }
    Ok(())
}
