//! What happened in a run, in words; kept only where somebody wants to read it.

use std::fmt;

/// Lines of a run, or nothing.
#[derive(Debug, Default)]
pub struct Trace(Option<Vec<String>>);

impl Trace {
    /// A trace that keeps what it is told.
    #[must_use]
    pub fn kept() -> Self {
        Self(Some(Vec::new()))
    }

    /// Whether anybody wants to read it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Notes what happened at `at_ns`.
    pub fn say(&mut self, at_ns: u64, what: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            lines.push(format!("{:>12.6} ms  {}", at_ns as f64 / 1e6, what()));
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .flatten()
            .try_for_each(|line| writeln!(formatter, "{line}"))
    }
}
