//! Who has an image.

use std::fmt;

/// Process that has an image locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub process: u32,
    /// Its name, as the kernel has it.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.process == std::process::id() {
            return formatter.write_str("this process: it was given twice");
        }
        write!(formatter, "process {} ({})", self.process, self.name)
    }
}

/// True if an image has a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// It has none.
    None,
    /// It has one, whom the kernel may name.
    Some(Option<Holder>),
}
