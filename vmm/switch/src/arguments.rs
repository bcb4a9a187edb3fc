//! What a switch is told: flags and configuration file have the same form.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

/// Arguments of `lockstep switch`.
#[derive(Args, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchArguments {
    /// Unix socket to which virtual machines attach with `--network switch:PATH`
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,

    /// Forward a TCP port of this host to a guest; port 0 takes any free one. May be given several
    /// times
    #[arg(long, value_name = "HOST_IP:HOST_PORT:GUEST_IP:GUEST_PORT")]
    #[serde(default)]
    pub forward: Vec<Forward>,

    /// Address of this host in the network of the guests, and the length of its prefix
    #[arg(long, value_name = "IP/PREFIX", default_value_t)]
    #[serde(default)]
    pub address: HostAddress,

    /// Write every frame that enters the switch to FILE, in pcapng format with one interface per
    /// port
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub pcap: Option<PathBuf>,
}

/// A TCP port of the host, and the port of a guest to which its connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Forward {
    /// Where the host listens; port 0 takes any free one.
    pub host: SocketAddrV4,
    /// Where the guest does.
    pub guest: SocketAddrV4,
}

/// The text does not name a forward.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` does not name a forward: write HOST_IP:HOST_PORT:GUEST_IP:GUEST_PORT, as in 127.0.0.1:6379:10.0.2.15:6379"
)]
pub struct ForwardParseError {
    text: String,
}

impl FromStr for Forward {
    type Err = ForwardParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = || {
            let mut colons = text.match_indices(':').map(|(at, _)| at);
            let (host, guest) = text.split_at_checked(colons.nth(1)?)?;
            let forward = Self {
                host: host.parse().ok()?,
                guest: guest.strip_prefix(':')?.parse().ok()?,
            };
            (forward.guest.port() != 0).then_some(forward)
        };
        parsed().ok_or_else(|| ForwardParseError {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.guest)
    }
}

impl TryFrom<String> for Forward {
    type Error = ForwardParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Forward> for String {
    fn from(forward: Forward) -> Self {
        forward.to_string()
    }
}

/// The address of the host in the network of the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of it that name the network, 8 to 30.
    pub prefix_bits: u8,
}

/// The text does not name an address that one host can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` cannot be the address of the host: write IP/PREFIX, the address of one station and a prefix of 8 to 30 bits, as in 10.0.2.2/24"
)]
pub struct HostAddressParseError {
    text: String,
}

impl HostAddress {
    /// True if one station can have the address: it is neither the network's own nor a broadcast or
    /// multicast.
    fn is_station(self) -> bool {
        let of_the_host = u32::MAX.checked_shr(u32::from(self.prefix_bits)).unwrap_or(0);
        let number = self.address.to_bits() & of_the_host;
        number != 0 && number != of_the_host && !self.address.is_unspecified() && !self.address.is_multicast()
    }

    /// True if `other` is an address in the same network.
    #[must_use]
    pub fn reaches(&self, other: Ipv4Addr) -> bool {
        let host_bits = 32_u32.saturating_sub(u32::from(self.prefix_bits));
        let network = |address: Ipv4Addr| address.to_bits().checked_shr(host_bits);
        network(self.address) == network(other)
    }
}

impl Default for HostAddress {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::new(10, 0, 2, 2),
            prefix_bits: 24,
        }
    }
}

impl FromStr for HostAddress {
    type Err = HostAddressParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix_bits) = (address.parse::<Ipv4Addr>().ok()?, prefix.parse().ok()?);
            let host = Self { address, prefix_bits };
            let is_station = (8..=30).contains(&prefix_bits) && host.is_station();
            is_station.then_some(host)
        };
        parsed().ok_or_else(|| HostAddressParseError {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix_bits)
    }
}

impl TryFrom<String> for HostAddress {
    type Error = HostAddressParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_four_parts() {
        let forward: Forward = "127.0.0.1:6380:10.0.2.15:6379".parse().unwrap();
        assert_eq!(forward.host, "127.0.0.1:6380".parse().unwrap());
        assert_eq!(forward.guest, "10.0.2.15:6379".parse().unwrap());
        assert_eq!(forward.to_string(), "127.0.0.1:6380:10.0.2.15:6379");
    }

    #[test]
    fn other_forwards_are_refused_with_an_example() {
        for text in [
            "",
            "6379",
            "127.0.0.1:1:10.0.2.15",
            "127.0.0.1:1:10.0.2.15:0",
            "a:1:b:2",
            "1.2.3.4:99999:1.2.3.4:1",
        ] {
            let told = text.parse::<Forward>().unwrap_err().to_string();
            assert!(told.contains("127.0.0.1:6379:10.0.2.15:6379"), "{told}");
        }
    }

    #[test]
    fn an_address_knows_its_network() {
        let host: HostAddress = "192.168.7.1/25".parse().unwrap();
        assert!(host.reaches(Ipv4Addr::new(192, 168, 7, 127)));
        assert!(!host.reaches(Ipv4Addr::new(192, 168, 7, 128)));
        assert_eq!(host.to_string(), "192.168.7.1/25");
    }

    #[test]
    fn other_addresses_are_refused_with_an_example() {
        for text in [
            "10.0.2.2",
            "10.0.2.2/31",
            "10.0.2.2/7",
            "0.0.0.0/24",
            "224.0.0.1/8",
            "10.0.2.0/24",
            "10.0.2.255/24",
            "255.255.255.255/8",
            "x/24",
        ] {
            let told = text.parse::<HostAddress>().unwrap_err().to_string();
            assert!(told.contains("10.0.2.2/24"), "{told}");
        }
    }
}
