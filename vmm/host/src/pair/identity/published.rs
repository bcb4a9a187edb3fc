//! Status of a machine that its holder publishes in the store, for `lockstep status`. Keys are only
//! ever added.

use crate::disk::executor::DiskState;
use lockstep_logging_channel::{Digest, Environment};
use lockstep_shared_disk::{Line, Party, STATUS_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::time::UNIX_EPOCH;

/// Longest value of a compared field that is published as it is: a digest of 16 bytes, with a word.
const VALUE_BYTES_MAX: usize = 40;

/// A machine as its holder sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// A backup that may take over follows.
    pub protected: bool,
    /// Wall time since when that is so, in seconds since 1970.
    pub since_unix_s: u64,
    /// Reason why the machine is not protected.
    #[serde(default)]
    pub why_not: Option<String>,
    /// Number of times that a replay of the machine has differed from its log.
    #[serde(default)]
    pub divergences: u64,
    /// Method by which a backup follows; `None` of a holder that does not say it.
    #[serde(default)]
    pub mode: Option<String>,
    /// Reason for it, where it was chosen.
    #[serde(default)]
    pub mode_why: Option<String>,
    /// Fields that a side must have the same, and their values, shortened ([`shortened`]).
    #[serde(default)]
    pub compared: Vec<(String, String)>,
    /// Those that take part: the holder, and whoever joins or follows it.
    #[serde(default)]
    pub sides: Vec<Side>,
    /// Disks of the holder.
    #[serde(default)]
    pub disks: Vec<Disk>,
}

/// A disk of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its place, and its image at the holder.
    pub name: String,
    /// Requests that are not carried out.
    pub waiting: usize,
    /// The host's error for which they wait.
    #[serde(default)]
    pub error: Option<String>,
    /// Wall time of its first failure, in seconds since 1970.
    #[serde(default)]
    pub since_unix_s: Option<u64>,
    /// Tries that have failed since then.
    #[serde(default)]
    pub failures: u64,
}

impl Disk {
    /// The disk `name` in this state.
    #[must_use]
    pub fn of(name: &str, state: DiskState) -> Self {
        let shown = |text: &str| Line::shortened(text).to_string();
        let fault = state.error.as_ref();
        let since = fault.and_then(|fault| fault.since.duration_since(UNIX_EPOCH).ok());
        Self {
            name: shown(name),
            waiting: state.waiting,
            error: fault.map(|fault| shown(&fault.to_string())),
            since_unix_s: since.map(|since| since.as_secs()),
            failures: fault.map_or(0, |fault| fault.failures),
        }
    }
}

/// One that takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// `primary`, `backup`, or `newcomer` for one that is not armed yet.
    pub role: String,
    /// Name of its host.
    pub host: String,
    /// Process number.
    pub process: u32,
    /// Address at which it can be joined, or from which it is connected.
    #[serde(default)]
    pub address: Option<String>,
    /// Time by which its replay is behind.
    #[serde(default)]
    pub lag_ms: Option<u64>,
}

impl Side {
    /// A party that takes part as `role`.
    #[must_use]
    pub fn of(party: &Party, role: &str) -> Self {
        Self {
            role: role.to_owned(),
            host: party.host.to_string(),
            process: party.process.id,
            address: party.address.as_ref().map(ToString::to_string),
            lag_ms: None,
        }
    }
}

/// The compared fields of `environment`. Of a long value there is a digest.
#[must_use]
pub fn shortened(environment: &Environment) -> Vec<(String, String)> {
    let fields = environment.compared.iter().map(|field| {
        let value = if field.value.len() <= VALUE_BYTES_MAX {
            field.value.clone()
        } else {
            format!("digest {}", Digest::of(field.value.as_bytes()))
        };
        (field.name.clone(), value)
    });
    fields.collect()
}

impl Published {
    /// One line of JSON that a sign of life has room for. Where the whole is too long the compared
    /// fields are left out, then the disks, and then the sides: twenty fields of 70 bytes are
    /// expected, four disks of about 100, and two sides of about 700.
    #[must_use]
    pub fn to_json(&self) -> String {
        let json = |published: &Self| serde_json::to_string(published).unwrap_or_default();
        let mut published = self.clone();
        let mut whole = json(&published);
        if whole.len() > STATUS_BYTES_MAX {
            published.compared.clear();
            whole = json(&published);
        }
        if whole.len() > STATUS_BYTES_MAX {
            published.disks.clear();
            whole = json(&published);
        }
        if whole.len() > STATUS_BYTES_MAX {
            (published.why_not, published.mode_why) = (None, None);
            published.sides.clear();
            whole = json(&published);
        }
        whole
    }

    /// The first field in which `here` differs from what the holder has: its name, and both values.
    /// What was not published is not compared.
    #[must_use]
    pub fn first_difference(&self, here: &Environment) -> Option<(String, String, Option<String>)> {
        let here = shortened(here);
        let differs = |(name, value): &&(String, String)| {
            let other = here.iter().find(|(other, _)| other == name);
            other.is_none_or(|(_, other)| other != value)
        };
        let (name, value) = self.compared.iter().find(differs)?;
        let other = here.into_iter().find(|(other, _)| other == name);
        Some((name.clone(), value.clone(), other.map(|(_, value)| value)))
    }

    /// Parses `json`; `None` where it is of another version.
    #[must_use]
    pub fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}
