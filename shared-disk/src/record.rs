//! The bytes of what a store remembers: lines of text, each with a key, below a line that names
//! kind and version.
//!
//! A record that is read is written again and compared: one that is not byte for byte what this
//! software writes is refused. `docs/identity.md` has the formats, which are a promise to later
//! versions.

use std::fmt::Write;

use lockstep_generation::Generation;

use crate::claim::{Backup, Claim, Ended, Party, Process, Seen, Switchover};
use crate::name::{Hex, Line, MachineId, MachineName, from_hex};

/// Stands for an address where there is none.
const NO_ADDRESS: &str = "-";

/// Content that a file of a store can have.
pub(crate) trait Record: Sized {
    /// First line: the kind, and the version of its format.
    const MAGIC: &str;

    /// Writes the lines below the first.
    fn write(&self, text: &mut String);

    /// Reads the lines below the first.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// The bytes of `record`.
pub(crate) fn encode<R: Record>(record: &R) -> String {
    let mut text = format!("{}\n", R::MAGIC);
    record.write(&mut text);
    text
}

/// Reason why a text is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRead {
    /// It is not what this software writes.
    Damaged(&'static str),
    /// It is of another version of its format.
    Version { found: u32, known: u32 },
}

/// The record that `text` is.
pub(crate) fn decode<R: Record>(text: &str) -> Result<R, NotRead> {
    let Some((magic, rest)) = text.split_once('\n') else {
        return Err(NotRead::Damaged("it is empty, or has no whole line"));
    };
    if magic != R::MAGIC {
        return Err(unknown(magic, R::MAGIC));
    }
    let record = R::read(&mut Fields(rest)).ok_or(NotRead::Damaged("a line is missing or wrong"))?;
    if encode(&record) == text {
        Ok(record)
    } else {
        Err(NotRead::Damaged("it is not written as this software writes it"))
    }
}

fn unknown(found: &str, known: &str) -> NotRead {
    match (kind_and_version(found), kind_and_version(known)) {
        (Some((kind, found)), Some((same, known))) if kind == same => NotRead::Version { found, known },
        _ => NotRead::Damaged("it is not a record of this kind"),
    }
}

/// A version is a number as this software writes it.
fn kind_and_version(magic: &str) -> Option<(&str, u32)> {
    let (kind, version) = magic.rsplit_once(' ')?;
    let number: u32 = version.parse().ok()?;
    (number.to_string() == version).then_some((kind, number))
}

/// Lines that have not been read yet.
pub(crate) struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    /// The value of the next line, which must have this key.
    fn value(&mut self, key: &str) -> Option<&'a str> {
        let (line, rest) = self.0.split_once('\n')?;
        self.0 = rest;
        line.strip_prefix(key)?.strip_prefix(' ')
    }

    fn number<N: std::str::FromStr>(&mut self, key: &str) -> Option<N> {
        self.value(key)?.parse().ok()
    }

    fn bytes(&mut self, key: &str) -> Option<[u8; 16]> {
        from_hex(self.value(key)?)
    }

    fn line(&mut self, key: &str) -> Option<Line> {
        Line::exact(self.value(key)?)
    }

    fn generation(&mut self) -> Option<Generation> {
        self.number("generation").map(Generation)
    }
}

/// Adds a line. Writing into a string cannot fail.
fn put(text: &mut String, key: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{key} {value}");
}

fn write_party(text: &mut String, party: &Party) {
    let Party {
        id,
        label,
        host,
        boot,
        process,
        address,
        written_unix_s,
    } = party;
    let Process {
        id: number,
        start_ticks,
        pid_namespace,
        time_namespace,
    } = process;
    put(text, "id", Hex(id));
    put(text, "label", label);
    put(text, "host", host);
    put(text, "boot", Hex(boot));
    put(text, "process", number);
    put(text, "process-start", start_ticks);
    put(text, "pid-namespace", pid_namespace);
    put(text, "time-namespace", time_namespace);
    put(text, "address", address.as_ref().map_or(NO_ADDRESS, Line::as_str));
    put(text, "written", written_unix_s);
}

fn read_party(fields: &mut Fields<'_>) -> Option<Party> {
    Some(Party {
        id: fields.bytes("id")?,
        label: fields.line("label")?,
        host: fields.line("host")?,
        boot: fields.bytes("boot")?,
        process: Process {
            id: fields.number("process")?,
            start_ticks: fields.number("process-start")?,
            pid_namespace: fields.number("pid-namespace")?,
            time_namespace: fields.number("time-namespace")?,
        },
        address: Some(fields.line("address")?).filter(|line| line.as_str() != NO_ADDRESS),
        written_unix_s: fields.number("written")?,
    })
}

impl Record for Claim {
    const MAGIC: &str = "lockstep-claim 2";

    fn write(&self, text: &mut String) {
        let Self {
            generation,
            machine,
            party,
        } = self;
        put(text, "generation", generation);
        put(text, "machine", machine);
        write_party(text, party);
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            generation: fields.generation()?,
            machine: MachineId(fields.bytes("machine")?),
            party: read_party(fields)?,
        })
    }
}

impl Record for Backup {
    const MAGIC: &str = "lockstep-backup 1";

    fn write(&self, text: &mut String) {
        let Self { generation, party } = self;
        put(text, "generation", generation);
        write_party(text, party);
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            generation: fields.generation()?,
            party: read_party(fields)?,
        })
    }
}

impl Record for Seen {
    const MAGIC: &str = "lockstep-seen 1";

    fn write(&self, text: &mut String) {
        put(text, "generation", self.generation());
        put(text, "id", Hex(&self.holder()));
        put(text, "counter", self.counter());
        put(text, "status", self.status());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (generation, holder) = (fields.generation()?, fields.bytes("id")?);
        let counter = fields.number("counter")?;
        Self::new(generation, holder, counter, fields.value("status")?)
    }
}

impl Record for Switchover {
    const MAGIC: &str = "lockstep-switchover 1";

    fn write(&self, text: &mut String) {
        let Self {
            generation,
            id,
            by,
            at_unix_s,
        } = self;
        put(text, "generation", generation);
        put(text, "id", Hex(id));
        put(text, "by", by);
        put(text, "written", at_unix_s);
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            generation: fields.generation()?,
            id: fields.bytes("id")?,
            by: fields.line("by")?,
            at_unix_s: fields.number("written")?,
        })
    }
}

impl Record for Ended {
    const MAGIC: &str = "lockstep-ended 1";

    fn write(&self, text: &mut String) {
        let Self {
            generation,
            machine,
            how,
            at_unix_s,
        } = self;
        put(text, "generation", generation);
        put(text, "machine", machine);
        put(text, "how", how);
        put(text, "written", at_unix_s);
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            generation: fields.generation()?,
            machine: MachineId(fields.bytes("machine")?),
            how: fields.line("how")?,
            at_unix_s: fields.number("written")?,
        })
    }
}

/// The file that names a machine's folder.
impl Record for MachineName {
    const MAGIC: &str = "lockstep-machine 1";

    fn write(&self, text: &mut String) {
        put(text, "name", self);
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        fields.number("name")
    }
}

/// The file that names a shared directory.
pub(crate) struct Identity(pub [u8; 16]);

impl Record for Identity {
    const MAGIC: &str = "lockstep-shared-directory 1";

    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "{}", Hex(&self.0));
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        from_hex(fields.0.strip_suffix('\n')?).map(Self)
    }
}

#[cfg(test)]
mod tests;
