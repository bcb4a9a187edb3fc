//! Which network the guest is attached to, as text and as a value.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest interface name, in bytes (IFNAMSIZ without its zero).
const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// The network a guest is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Attachment {
    /// The Unix socket of a running `lockstep switch`.
    Switch(PathBuf),
    /// A TAP interface of the host.
    Tap(String),
    /// No network.
    #[default]
    None,
}

/// The text names no attachment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentParseError {
    /// Not one of the three forms.
    #[error("`{text}` does not name a network: write switch:/path/to/socket, tap:INTERFACE or none")]
    Unknown {
        /// The text.
        text: String,
    },
    /// `switch:` without a path.
    #[error(
        "switch: needs the path of the socket of a running `lockstep switch`, as in switch:/run/lockstep/switch"
    )]
    PathMissing,
    /// `tap:` with something that cannot be an interface name.
    #[error(
        "`{name}` is not an interface name: it has 1 to {INTERFACE_NAME_BYTES_MAX} characters without space, slash or colon"
    )]
    InterfaceName {
        /// The name.
        name: String,
    },
}

impl FromStr for Attachment {
    type Err = AttachmentParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            Some(("switch", "")) => Err(AttachmentParseError::PathMissing),
            Some(("switch", path)) => Ok(Self::Switch(path.into())),
            Some(("tap", name)) if is_interface_name(name) => Ok(Self::Tap(name.to_owned())),
            Some(("tap", name)) => Err(AttachmentParseError::InterfaceName {
                name: name.to_owned(),
            }),
            _ => Err(AttachmentParseError::Unknown {
                text: text.to_owned(),
            }),
        }
    }
}

/// What the kernel's own check of interface names accepts.
fn is_interface_name(name: &str) -> bool {
    let is_special = matches!(name, "" | "." | "..");
    let is_refused =
        |letter: char| letter.is_whitespace() || letter == '/' || letter == ':' || letter == '\0';
    !is_special && name.len() <= INTERFACE_NAME_BYTES_MAX && !name.contains(is_refused)
}

impl fmt::Display for Attachment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(path) => write!(formatter, "switch:{}", path.display()),
            Self::Tap(name) => write!(formatter, "tap:{name}"),
            Self::None => formatter.write_str("none"),
        }
    }
}

impl TryFrom<String> for Attachment {
    type Error = AttachmentParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Attachment> for String {
    fn from(attachment: Attachment) -> Self {
        attachment.to_string()
    }
}

impl Attachment {
    /// The kind of network, without its address.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Switch(_) => "switch",
            Self::Tap(_) => "tap",
            Self::None => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetworkError;

    #[test]
    fn text_and_value_are_the_same_thing() {
        for text in [
            "switch:/run/lockstep/switch",
            "switch:relative:with:colons",
            "tap:tap0",
            "none",
        ] {
            assert_eq!(text.parse::<Attachment>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_text_teaches_the_right_one() {
        for (text, hint) in [
            ("bridge:br0", "switch:/path/to/socket"),
            ("", "tap:INTERFACE"),
            ("none:", "or none"),
            ("switch:", "`lockstep switch`"),
            ("tap:", "not an interface name"),
            ("tap:a-name-of-16-byt", "1 to 15 characters"),
            ("tap:a/b", "without space, slash or colon"),
        ] {
            let told = text.parse::<Attachment>().unwrap_err().to_string();
            assert!(told.contains(hint), "{text}: {told}");
        }
    }

    #[test]
    fn a_missing_directory_and_a_missing_switch_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let missing = Attachment::Switch(directory.path().join("nowhere/switch"));
        let absent = Attachment::Switch(directory.path().join("switch"));

        assert!(matches!(
            missing.attach(),
            Err(NetworkError::SocketDirectoryMissing { .. })
        ));
        assert!(matches!(absent.attach(), Err(NetworkError::SwitchAbsent { .. })));
    }
}
