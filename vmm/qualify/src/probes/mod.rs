//! The probes. Each has two halves: one that runs a probe guest and writes down what it saw, and
//! one, a function of that alone, that judges it.

pub mod breakpoint;
pub mod clock;
pub mod cost;
pub mod determinism;
pub mod dirty;
pub mod instructions;
pub mod step;
pub mod transfer;
pub mod visible;
pub mod window;

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Repetitions of what is over in a moment.
    pub rounds: u32,
    /// Single steps in a row.
    pub steps: u64,
    /// Stops at instructions, for each clock and ring.
    pub stops: u32,
    /// Samples of each cost.
    pub samples: u32,
    /// Exits of the determinism run.
    pub length_exits: u64,
    /// How often it is replayed.
    pub replays: u32,
    /// What has to be exact is tried once more while all processors are busy.
    pub under_load: bool,
}

impl Effort {
    /// What every start of a machine tries: a part of a second.
    pub const START: Self = Self {
        rounds: 3,
        steps: 64,
        stops: 4,
        samples: 0,
        length_exits: 200,
        replays: 1,
        under_load: false,
    };
    /// Under five seconds, wherever exits cost less than 100 µs.
    pub const QUICK: Self = Self {
        rounds: 4,
        steps: 256,
        stops: 8,
        samples: 200,
        length_exits: 1_000,
        replays: 1,
        under_load: false,
    };
    /// What is tried by default.
    pub const FULL: Self = Self {
        rounds: 40,
        steps: 4_000,
        stops: 60,
        samples: 2_000,
        length_exits: 20_000,
        replays: 3,
        under_load: true,
    };
}

/// Texts, each once, in the order of their first appearance, with how often they appeared.
fn tally(texts: impl IntoIterator<Item = String>) -> String {
    let mut counted: Vec<(String, u32)> = Vec::new();
    for text in texts {
        match counted.iter_mut().find(|(known, _)| *known == text) {
            Some((_, count)) => *count += 1,
            None => counted.push((text, 1)),
        }
    }
    let shown = counted.iter().take(TALLIED_MAX).map(|(text, count)| match count {
        1 => text.clone(),
        count => format!("{text} ({count} times)"),
    });
    let mut line = shown.collect::<Vec<_>>().join("; ");
    if counted.len() > TALLIED_MAX {
        line.push_str(&format!("; and {} more", counted.len() - TALLIED_MAX));
    }
    line
}

/// Different texts that a tally names.
const TALLIED_MAX: usize = 4;
