//! Status of a machine that its holder publishes in the store, for `lockstep status`. Keys are only
//! ever added.

use lockstep_shared_disk::{Party, STATUS_BYTES_MAX};
use serde::{Deserialize, Serialize};

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
    /// Those that take part: the holder, and whoever joins or follows it.
    #[serde(default)]
    pub sides: Vec<Side>,
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

impl Published {
    /// One line of JSON that a sign of life has room for. Where the whole is too long the sides are
    /// left out: at most two are expected, of about 700 bytes each.
    #[must_use]
    pub fn to_json(&self) -> String {
        let json = |published: &Self| serde_json::to_string(published).unwrap_or_default();
        let whole = json(self);
        if whole.len() <= STATUS_BYTES_MAX {
            return whole;
        }
        json(&Self {
            why_not: None,
            sides: Vec::new(),
            ..self.clone()
        })
    }

    /// Parses `json`; `None` where it is of another version.
    #[must_use]
    pub fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}
