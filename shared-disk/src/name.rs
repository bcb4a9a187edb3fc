//! Names of machines, and what else in a record is a line of text.

use std::fmt;
use std::str::FromStr;

/// The longest name of a machine, in bytes. It is the name of a folder, and a part of the path of a
/// socket, which has 107.
pub const NAME_BYTES_MAX: usize = 64;

/// The longest line of text in a record, in bytes: a path of a socket, or a host name of 253 and a
/// port.
pub const LINE_BYTES_MAX: usize = 260;

/// The name of a machine whose operator gives none.
const DEFAULT_NAME: &str = "default";

/// Names that a shared directory has for itself.
const RESERVED: &[&str] = &["identity"];

/// A machine's name, given once by its operator: letters, digits, `.`, `_` and `-`, at most 64, not
/// beginning with a dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineName(String);

/// A name that a machine cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a name for a machine: {why}")]
pub struct NameError {
    /// The name, escaped.
    pub name: String,
    /// The reason why it is not a name for a machine.
    pub why: &'static str,
}

impl MachineName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a machine whose operator gives none.
impl Default for MachineName {
    fn default() -> Self {
        Self(DEFAULT_NAME.to_owned())
    }
}

impl FromStr for MachineName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let why = if name.is_empty() {
            "it is empty"
        } else if name.len() > NAME_BYTES_MAX {
            "it is longer than 64 characters"
        } else if !name.bytes().all(is_allowed) {
            "only letters (a to z), digits, `.`, `_` and `-` are allowed"
        } else if name.starts_with('.') {
            "it begins with a dot"
        } else if name.starts_with('-') {
            "it begins with `-`"
        } else if RESERVED.contains(&name) {
            "a shared directory has a file of that name"
        } else {
            return Ok(Self(name.to_owned()));
        };
        let name = name
            .chars()
            .take(NAME_BYTES_MAX + 1)
            .flat_map(char::escape_debug)
            .collect();
        Err(NameError { name, why })
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// Random identity of one machine: of one run of a guest, through all its generations. A machine
/// that is begun afresh under the same name has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub [u8; 16]);

impl fmt::Display for MachineId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(formatter)
    }
}

/// A line of text without control characters, at most [`LINE_BYTES_MAX`] bytes, without space at
/// its ends. May be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(String);

impl Line {
    /// `text` without what a line may not hold, cut where it is too long. For what people read.
    #[must_use]
    pub fn shortened(text: &str) -> Self {
        let mut line = String::new();
        for char in text.trim().chars().filter(|char| !char.is_control()) {
            if line.len() + char.len_utf8() > LINE_BYTES_MAX {
                break;
            }
            line.push(char);
        }
        Self(line.trim().to_owned())
    }

    /// `text`, if it is a line as it is. For what programs read.
    #[must_use]
    pub fn exact(text: &str) -> Option<Self> {
        let line = Self::shortened(text);
        (line.0 == text).then_some(line)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// Sixteen bytes as 32 hexadecimal digits.
pub(crate) struct Hex<'a>(pub &'a [u8; 16]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

/// The sixteen bytes that 32 hexadecimal digits say.
pub(crate) fn from_hex(digits: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_bounded_word() {
        for name in ["web", "Web-1.example_org", "0", &"a".repeat(NAME_BYTES_MAX)] {
            assert_eq!(name.parse::<MachineName>().unwrap().to_string(), name);
        }
        for (name, why) in [
            ("", "empty"),
            (&*"a".repeat(NAME_BYTES_MAX + 1), "longer"),
            ("a/b", "only letters"),
            ("a b", "only letters"),
            ("w\u{e9}b", "only letters"),
            ("..", "dot"),
            (".hidden", "dot"),
            ("-x", "`-`"),
            ("identity", "a file of that name"),
        ] {
            let error = name.parse::<MachineName>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let escaped = "a\n\u{1b}[2J".parse::<MachineName>().unwrap_err().to_string();
        assert!(!escaped.chars().any(char::is_control), "{escaped}");
    }

    #[test]
    fn a_line_is_cut_for_people_and_exact_for_programs() {
        let long = "\u{e9}".repeat(LINE_BYTES_MAX);
        assert_eq!(Line::shortened(&long).as_str().len(), LINE_BYTES_MAX);
        assert_eq!(Line::shortened(" a\nb ").as_str(), "ab");
        assert_eq!(Line::exact("unix:/run/a b").unwrap().as_str(), "unix:/run/a b");
        for text in ["a\nb", " a", &long] {
            assert_eq!(Line::exact(text), None);
        }
    }
}
