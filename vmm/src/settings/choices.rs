//! Settings that are one word of a few.

use lockstep_host::configuration;
use lockstep_kvm::ClockKind;
use serde::{Deserialize, Serialize};

/// The instruction clock that is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClockChoice {
    /// What performs on this host: none, events enter at exits. On a replay: the log's.
    #[default]
    Auto,
    /// No clock: events enter at exits.
    None,
    /// Single stepping: exact and slow.
    Step,
    /// KVM's count of emulated instructions: exact for ring 0 on software-assisted KVM.
    Statistic,
}

impl ClockChoice {
    /// The clock that was named, if one was.
    #[must_use]
    pub fn kind(self) -> Option<ClockKind> {
        match self {
            Self::Auto => None,
            Self::None => Some(ClockKind::None),
            Self::Step => Some(ClockKind::Step),
            Self::Statistic => Some(ClockKind::Statistic),
        }
    }
}

impl std::fmt::Display for ClockChoice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind() {
            Some(kind) => kind.fmt(formatter),
            None => formatter.write_str("auto"),
        }
    }
}

/// Method by which a backup follows its primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It replays what entered the guest.
    #[default]
    Replay,
    /// It is told the guest's state again and again, and does not run: for guests that cannot be
    /// replayed.
    Checkpoint,
    /// By replay, until five replays have differed from the log within an hour; by checkpoints from
    /// then on.
    ReplayThenCheckpoint,
}

impl From<Mode> for configuration::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Replay => Self::Replay,
            Mode::Checkpoint => Self::Checkpoint,
            Mode::ReplayThenCheckpoint => Self::ReplayThenCheckpoint,
        }
    }
}
