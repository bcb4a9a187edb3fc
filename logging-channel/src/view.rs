//! An entry as a person or another program reads it: one line of text, or JSON with stable keys.
//!
//! Keys are only ever added. Numbers that may pass 2^53 and byte strings are hexadecimal text.

use std::fmt;

use serde::Serialize;

use crate::{
    Body, Change, Completion, DiskChange, End, EndReason, Entry, Environment, Event, EventKind, Kind,
    OutputKind, PartDigest, ReadData, Value,
};

/// Bytes of a byte string that a line of text shows.
const SHOWN_BYTES: usize = 16;

/// One entry, to be shown with [`fmt::Display`] or as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryView {
    sequence: u64,
    generation: u32,
    exits: u64,
    instructions: u64,
    rip: String,
    kind: &'static str,
    body: BodyView,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum BodyView {
    Environment {
        pair: String,
        compared: Vec<FieldView>,
        informative: Vec<FieldView>,
    },
    Value(ValueView),
    Event(EventView),
    Output {
        device: u8,
        target: &'static str,
        length: u32,
        digest: String,
    },
    Digests {
        parts: Vec<PartView>,
    },
    End(EndView),
    Part {
        bytes: u32,
        compressed_bytes: u32,
    },
    CommonPoint {
        first: u64,
        pages: u64,
        sections: String,
    },
    HeldOutput {
        device: u8,
        target: &'static str,
        bytes: String,
    },
    DiskWrite {
        device: u8,
        number: u64,
        digest: String,
    },
    DiskChange {
        device: u8,
        number: u64,
        change: &'static str,
        offset: u64,
        length: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FieldView {
    name: String,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub(crate) enum ValueView {
    Tsc { ticks: String },
    Monotonic { ns: u64 },
    Wall { ns: u64 },
    Random { bytes: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct EventView {
    device: u8,
    event: &'static str,
    monotonic_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PartView {
    part: String,
    digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct EndView {
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    parts: Vec<PartView>,
}

/// The kind and the content of an entry in words, as [`EntryView`] shows them: of bounded length
/// however many bytes there are.
#[must_use]
pub fn described(body: &Body) -> String {
    format!("{} {}", body.kind().name(), BodyView::from(body))
}

/// The end of a guest in words, as [`EntryView`] shows it.
#[must_use]
pub fn described_end(reason: &EndReason) -> String {
    let view = EndView::from(&End {
        reason: reason.clone(),
        parts: Vec::new(),
    });
    view.reason_in_words()
}

impl From<&Entry> for EntryView {
    fn from(entry: &Entry) -> Self {
        Self {
            sequence: entry.sequence.0,
            generation: entry.generation.0,
            exits: entry.point.exits,
            instructions: entry.point.instructions,
            rip: format!("{:#x}", entry.point.rip),
            kind: entry.body.kind().name(),
            body: BodyView::from(&entry.body),
        }
    }
}

impl From<&Body> for BodyView {
    fn from(body: &Body) -> Self {
        match body {
            Body::Environment(environment) => Self::from(environment),
            Body::Value(value) => Self::Value(ValueView::from(value)),
            Body::Event(event) => Self::Event(EventView::from(event)),
            Body::Output(output) => Self::Output {
                device: output.target.device.0,
                target: target_name(output.target.kind),
                length: output.length,
                digest: output.digest.to_string(),
            },
            Body::Digests(parts) => Self::Digests {
                parts: part_views(parts),
            },
            Body::End(end) => Self::End(EndView::from(end)),
            Body::Part(part) => Self::Part {
                bytes: part.raw_bytes,
                compressed_bytes: part.block.len() as u32,
            },
            Body::CommonPoint(common) => Self::CommonPoint {
                first: common.first.0,
                pages: common.pages,
                sections: common.sections.to_string(),
            },
            Body::HeldOutput(output) => Self::HeldOutput {
                device: output.target.device.0,
                target: target_name(output.target.kind),
                bytes: hex::encode(&output.bytes),
            },
            Body::DiskWrite(write) => Self::DiskWrite {
                device: write.device.0,
                number: write.number,
                digest: write.digest.to_string(),
            },
            Body::DiskChange(change) => Self::from(change),
        }
    }
}

impl From<&DiskChange> for BodyView {
    fn from(change: &DiskChange) -> Self {
        let DiskChange {
            device,
            number,
            change,
        } = change;
        let (change, offset, length) = match change {
            Change::Written { offset_bytes, bytes } => ("written", *offset_bytes, bytes.len() as u64),
            Change::Flushed => ("flushed", 0, 0),
            Change::Discarded {
                offset_bytes,
                length_bytes,
            } => ("discarded", *offset_bytes, *length_bytes),
            Change::Zeroed {
                offset_bytes,
                length_bytes,
                ..
            } => ("zeroed", *offset_bytes, *length_bytes),
        };
        Self::DiskChange {
            device: device.0,
            number: *number,
            change,
            offset,
            length,
        }
    }
}

impl From<&Environment> for BodyView {
    fn from(environment: &Environment) -> Self {
        let views = |fields: &[crate::EnvironmentField]| {
            let view = |field: &crate::EnvironmentField| FieldView {
                name: field.name.clone(),
                value: field.value.clone(),
            };
            fields.iter().map(view).collect()
        };
        Self::Environment {
            pair: hex::encode(environment.pair),
            compared: views(&environment.compared),
            informative: views(&environment.informative),
        }
    }
}

impl From<&Value> for ValueView {
    fn from(value: &Value) -> Self {
        match value {
            Value::Tsc(ticks) => Self::Tsc {
                ticks: format!("{ticks:#x}"),
            },
            Value::Monotonic(ns) => Self::Monotonic { ns: *ns },
            Value::Wall(ns) => Self::Wall { ns: *ns },
            Value::Random(bytes) => Self::Random {
                bytes: hex::encode(bytes),
            },
        }
    }
}

impl EndView {
    fn reason_in_words(&self) -> String {
        let reason = self.reason;
        match (self.status, &self.fault) {
            (Some(status), _) => format!("{reason} {status}"),
            (None, Some(fault)) => format!("{reason} ({})", fault.escape_debug()),
            (None, None) => reason.to_owned(),
        }
    }
}

impl From<&End> for EndView {
    fn from(end: &End) -> Self {
        let parts = part_views(&end.parts);
        let (reason, status, fault) = match &end.reason {
            EndReason::PoweredOff(status) => ("powered_off", Some(*status), None),
            EndReason::Stopped => ("stopped", None, None),
            EndReason::GuestFault(fault) => ("guest_fault", None, Some(fault.clone())),
        };
        Self {
            reason,
            status,
            fault,
            parts,
        }
    }
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> Self {
        let (name, bytes) = match &event.kind {
            EventKind::Frame(bytes) => ("frame", Some(bytes)),
            EventKind::Timer => ("timer", None),
            EventKind::ConsoleInput(bytes) => ("console_input", Some(bytes)),
            EventKind::Completion(completion) => match &completion.read {
                ReadData::Bytes(bytes) => ("disk_read", Some(bytes)),
                ReadData::Digest(_) => ("disk_read", None),
                ReadData::Nothing => ("disk_done", None),
            },
        };
        let (number, digest) = match &event.kind {
            EventKind::Completion(Completion { number, read }) => {
                let digest = match read {
                    ReadData::Digest(digest) => Some(digest.to_string()),
                    ReadData::Bytes(_) | ReadData::Nothing => None,
                };
                (Some(*number), digest)
            }
            _ => (None, None),
        };
        Self {
            device: event.device.0,
            event: name,
            monotonic_ns: event.monotonic_ns,
            bytes: bytes.map(hex::encode),
            number,
            digest,
        }
    }
}

fn target_name(kind: OutputKind) -> &'static str {
    match kind {
        OutputKind::Frame => "network",
        OutputKind::Text => "console",
        OutputKind::Disk => "disk",
    }
}

fn part_views(parts: &[PartDigest]) -> Vec<PartView> {
    let view = |part: &PartDigest| PartView {
        part: part.part.clone(),
        digest: part.digest.to_string(),
    };
    parts.iter().map(view).collect()
}

impl fmt::Display for EntryView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = format!("{}+{}", self.exits, self.instructions);
        write!(
            formatter,
            "{:>8} g{} {point:>14} {:<12} ",
            self.sequence, self.generation, self.kind
        )?;
        write!(formatter, "{}", self.body)?;
        match self.rip.as_str() {
            "0x0" => Ok(()),
            rip => write!(formatter, " rip {rip}"),
        }
    }
}

impl fmt::Display for BodyView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment {
                pair,
                compared,
                informative,
            } => {
                write!(formatter, "pair {pair}")?;
                let fields = compared.iter().chain(informative);
                fields.into_iter().try_for_each(|FieldView { name, value }| {
                    write!(formatter, ", {}={}", name.escape_debug(), value.escape_debug())
                })
            }
            Self::Value(value) => value.fmt(formatter),
            Self::Event(event) => event.fmt(formatter),
            Self::Output {
                device,
                target,
                length,
                digest,
            } => {
                write!(
                    formatter,
                    "device {device} {target} {length} bytes, digest {digest}"
                )
            }
            Self::Digests { parts } => show_parts(formatter, parts),
            Self::End(end) => end.fmt(formatter),
            Self::Part {
                bytes,
                compressed_bytes,
            } => write!(formatter, "{bytes} bytes, compressed {compressed_bytes}"),
            Self::CommonPoint {
                first,
                pages,
                sections,
            } => {
                write!(
                    formatter,
                    "of parts from {first} on, {pages} pages, digest {sections}"
                )
            }
            Self::HeldOutput {
                device,
                target,
                bytes,
            } => {
                write!(formatter, "device {device} ")?;
                show_bytes(formatter, target, bytes)
            }
            Self::DiskWrite {
                device,
                number,
                digest,
            } => write!(formatter, "device {device} request {number}, digest {digest}"),
            Self::DiskChange {
                device,
                number,
                change,
                offset,
                length,
            } => write!(
                formatter,
                "device {device} request {number} {change} {length} bytes from {offset} on"
            ),
        }
    }
}

impl fmt::Display for ValueView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tsc { ticks } => write!(formatter, "tsc {ticks}"),
            Self::Monotonic { ns } => write!(formatter, "monotonic {ns} ns"),
            Self::Wall { ns } => write!(formatter, "wall {ns} ns"),
            Self::Random { bytes } => show_bytes(formatter, "random", bytes),
        }
    }
}

impl fmt::Display for EventView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            event,
            monotonic_ns,
            bytes,
            number,
            digest,
        } = self;
        write!(formatter, "device {device} ")?;
        if let Some(number) = number {
            write!(formatter, "request {number} ")?;
        }
        match bytes {
            Some(bytes) => show_bytes(formatter, event, bytes)?,
            None => write!(formatter, "{event}")?,
        }
        if let Some(digest) = digest {
            write!(formatter, ", digest {digest},")?;
        }
        write!(formatter, " at {monotonic_ns} ns")
    }
}

impl fmt::Display for EndView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, ", self.reason_in_words())?;
        show_parts(formatter, &self.parts)
    }
}

fn show_parts(formatter: &mut fmt::Formatter<'_>, parts: &[PartView]) -> fmt::Result {
    write!(formatter, "{} parts", parts.len())?;
    parts
        .iter()
        .try_for_each(|PartView { part, digest }| write!(formatter, ", {} {digest}", part.escape_debug()))
}

/// The length of a byte string given in hexadecimal, and as much of it as a line has room for.
fn show_bytes(formatter: &mut fmt::Formatter<'_>, name: &str, digits: &str) -> fmt::Result {
    let shown = digits.get(..2 * SHOWN_BYTES).unwrap_or(digits);
    let more = if shown.len() < digits.len() { "…" } else { "" };
    write!(formatter, "{name} {} bytes {shown}{more}", digits.len() / 2)
}

/// The kinds of entries that a log has once it is read, as [`Kind::name`] names them in a view.
pub fn entry_kinds() -> impl Iterator<Item = Kind> {
    let kinds = Kind::ALL.iter().copied();
    kinds.filter(|kind| kind.is_entry() && kind.read_as() == *kind)
}
