//! Where a channel is listened for: `tcp:HOST:PORT` or `unix:PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address as a person writes it. A bare `HOST:PORT` means TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// `tcp:HOST:PORT`.
    Tcp {
        /// Name or address of the host; an IPv6 address without its brackets.
        host: String,
        /// Port; 0 lets a listener choose.
        port: u16,
    },
    /// `unix:PATH`.
    Unix {
        /// The socket file.
        path: PathBuf,
    },
}

/// Reason why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither a scheme nor a port.
    #[error("`{text}` is not an address: write tcp:HOST:PORT or unix:PATH")]
    Unknown {
        /// The whole text.
        text: String,
    },
    /// A path without its scheme.
    #[error("`{text}` looks like a path: write unix:{text}")]
    PathWithoutScheme {
        /// The whole text.
        text: String,
    },
    /// `unix:` and nothing.
    #[error("`unix:` needs the path of a socket, for example unix:/run/lockstep/pair.sock")]
    EmptyPath,
    /// No `:PORT`.
    #[error("`{text}` has no port: write tcp:HOST:PORT")]
    MissingPort {
        /// The whole text.
        text: String,
    },
    /// The port is not a number from 0 to 65535.
    #[error("`{port}` in `{text}` is not a port: a port is a number from 0 to 65535")]
    BadPort {
        /// The whole text.
        text: String,
        /// What stands where the port belongs.
        port: String,
    },
    /// No host before the port.
    #[error(
        "`{text}` has no host: write tcp:0.0.0.0:PORT to listen on every interface, tcp:127.0.0.1:PORT for this machine only"
    )]
    MissingHost {
        /// The whole text.
        text: String,
    },
    /// Colons in the host, but no brackets around it.
    #[error("`{host}` in `{text}` is not a host: write an IPv6 address in brackets, tcp:[ADDRESS]:PORT")]
    BadHost {
        /// The whole text.
        text: String,
        /// What stands where the host belongs.
        host: String,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(AddressError::EmptyPath),
                path => Ok(Self::Unix { path: path.into() }),
            };
        }
        match text.strip_prefix("tcp:") {
            Some(rest) => tcp(text, rest),
            None if text.contains('/') => Err(AddressError::PathWithoutScheme {
                text: text.to_owned(),
            }),
            None if !text.contains(':') => Err(AddressError::Unknown {
                text: text.to_owned(),
            }),
            None => tcp(text, text),
        }
    }
}

/// `HOST:PORT`, which stands in `text`.
fn tcp(text: &str, host_and_port: &str) -> Result<Address, AddressError> {
    let text = || text.to_owned();
    let (host, port) = host_and_port
        .rsplit_once(':')
        .ok_or_else(|| AddressError::MissingPort { text: text() })?;
    let port = port.parse().map_err(|_| AddressError::BadPort {
        text: text(),
        port: port.to_owned(),
    })?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bracketed.unwrap_or(host) {
        "" => Err(AddressError::MissingHost { text: text() }),
        host if host.contains(['[', ']']) || bracketed.is_none() && host.contains(':') => {
            Err(AddressError::BadHost {
                text: text(),
                host: host.to_owned(),
            })
        }
        host => Ok(Address::Tcp {
            host: host.to_owned(),
            port,
        }),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "tcp:{host}:{port}"),
            Self::Unix { path } => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Address>().unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_what_is_shown() {
        for text in [
            "tcp:127.0.0.1:7000",
            "tcp:backup.example:1",
            "tcp:[::1]:80",
            "unix:/run/a.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bare_host_and_port_is_tcp() {
        let address: Address = "localhost:7000".parse().unwrap();
        assert_eq!(
            address,
            Address::Tcp {
                host: "localhost".to_owned(),
                port: 7000
            }
        );
    }

    #[test]
    fn errors_say_what_to_write() {
        assert!(error("").contains("write tcp:HOST:PORT or unix:PATH"));
        assert!(error("localhost").contains("write tcp:HOST:PORT or unix:PATH"));
        assert!(error("/run/a.sock").contains("write unix:/run/a.sock"));
        assert!(error("unix:").contains("needs the path"));
        assert!(error("tcp:localhost").contains("no port"));
        assert!(error("localhost:http").contains("`http`"));
        assert!(error("localhost:65536").contains("0 to 65535"));
        assert!(error(":7000").contains("no host"));
        assert!(error("tcp:::1:7000").contains("brackets"));
        assert!(error("tcp:[a]b]:80").contains("`a]b`"));
        assert!(error("udp:localhost:7000").contains("`udp:localhost`"));
    }
}
