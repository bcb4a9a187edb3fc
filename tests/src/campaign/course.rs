//! Observations of a round while it runs.

use super::kind::Side;

/// State of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both sides run, and nobody has claimed anything.
    Protected,
    /// This side goes on alone; the other is gone.
    Alone(Side),
    /// Nobody goes on.
    Down,
    /// A machine that heals goes on, in this generation.
    Healed(u32),
}

/// Observations while a round ran.
#[derive(Debug, Default)]
pub struct Course {
    /// Time at which the first thing was done that takes a side or the channel away.
    pub fault_ns: Option<u64>,
    /// The point of the plan was met.
    pub met: bool,
    /// State of the pair at the end, if that became clear.
    pub standing: Option<Standing>,
    /// Everything that did not go as it must.
    pub failures: Vec<String>,
}
