//! A witness as it is written: `10.0.2.2` or `tcp:HOST:PORT`.

use crate::error::RunError;
use lockstep_core::replica::role::WITNESSES_MAX;
use lockstep_logging_channel::transport::Address;
use lockstep_network::Attachment;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The shortest timeout with witnesses, in milliseconds: its eighth, the time between two
/// questions, is then 10 ms, so that no witness is asked more than 100 times a second.
const TIMEOUT_MS_MIN: u64 = 80;

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WitnessAddress {
    /// A station of the guest's network, by ARP.
    Arp(Ipv4Addr),
    /// Any host that this one reaches, by a TCP connection.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// The text does not name a witness.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` does not name a witness: write the IPv4 address of a station in the guest's network, as in 10.0.2.2, \
     or tcp:HOST:PORT"
)]
pub struct WitnessAddressError {
    text: String,
}

impl FromStr for WitnessAddress {
    type Err = WitnessAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || WitnessAddressError {
            text: text.to_owned(),
        };
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            let is_station = !(address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast()
                || address.is_loopback());
            return is_station.then_some(Self::Arp(address)).ok_or_else(wrong);
        }
        match text.strip_prefix("tcp:").and_then(|_| text.parse().ok()) {
            Some(Address::Tcp { host, port }) if port > 0 => Ok(Self::Tcp { host, port }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for WitnessAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arp(address) => address.fmt(formatter),
            Self::Tcp { host, port } => Address::Tcp {
                host: host.clone(),
                port: *port,
            }
            .fmt(formatter),
        }
    }
}

impl WitnessAddress {
    /// The witnesses that `texts` name, for a replica on `network` with a timeout of `timeout_ms`.
    ///
    /// # Errors
    /// [`RunError::Setting`]: one cannot be asked.
    pub fn all(texts: &[String], network: &Attachment, timeout_ms: u64) -> Result<Vec<Self>, RunError> {
        let wrong = |why: String| RunError::setting("witness", why);
        let mut all = Vec::new();
        for text in texts {
            let address: Self = text
                .parse()
                .map_err(|why: WitnessAddressError| wrong(why.to_string()))?;
            if matches!(address, Self::Arp(_)) && *network == Attachment::None {
                return Err(wrong(format!(
                    "{address} is asked through the guest's network, and --network is none: use tcp:HOST:PORT"
                )));
            }
            if all.contains(&address) {
                return Err(wrong(format!("{address} is named twice")));
            }
            all.push(address);
        }
        if all.len() > WITNESSES_MAX {
            return Err(wrong(format!(
                "{} witnesses: name at most {WITNESSES_MAX}",
                all.len()
            )));
        }
        if !all.is_empty() && timeout_ms < TIMEOUT_MS_MIN {
            return Err(wrong(format!(
                "a witness is asked eight times in a timeout, and this is {timeout_ms} ms: use at least \
                 --timeout-ms {TIMEOUT_MS_MIN}"
            )));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_value_are_the_same() {
        for text in ["10.0.2.2", "tcp:router:22", "tcp:[fe80::1]:9", "tcp:192.0.2.1:9"] {
            assert_eq!(text.parse::<WitnessAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_text_teaches_the_right_one() {
        for text in [
            "",
            "router",
            "0.0.0.0",
            "224.0.0.1",
            "127.0.0.1",
            "unix:/a",
            "tcp:",
            "tcp:host",
            "tcp:host:0",
            "router:22",
        ] {
            let error = text.parse::<WitnessAddress>().unwrap_err().to_string();
            assert!(error.contains("tcp:HOST:PORT") && error.contains(text), "{error}");
        }
    }

    fn refusal(texts: &[&str], network: &Attachment, timeout_ms: u64) -> String {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        WitnessAddress::all(&texts, network, timeout_ms)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn witnesses_that_cannot_be_asked_are_refused() {
        let tap = Attachment::Tap("tap0".to_owned());
        assert!(refusal(&["10.0.2.2"], &Attachment::None, 200).contains("--network is none"));
        assert!(refusal(&["10.0.2.2", "10.0.2.2"], &tap, 200).contains("named twice"));
        assert!(refusal(&["10.0.2.2"], &tap, 79).contains("--timeout-ms 80"));
        let many: Vec<String> = (1..=9).map(|number| format!("10.0.2.{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(refusal(&many, &tap, 200).contains("at most 8"));
        assert_eq!(WitnessAddress::all(&[], &Attachment::None, 10).unwrap(), []);
    }
}
