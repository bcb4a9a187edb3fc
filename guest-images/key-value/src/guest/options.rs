//! What the command line says.

use crate::append_only::Policy;
use core::fmt;
use lockstep_guest_runtime::command_line::CommandLine;
use smoltcp::wire::{Ipv4Address, Ipv4Cidr};

const ADDRESS: &str = "10.0.2.15/24";
const GATEWAY: &str = "10.0.2.2";

/// How this server is to be.
pub struct Options {
    /// Its address and the length of its network's prefix.
    pub address: Ipv4Cidr,
    /// The way to other networks.
    pub gateway: Ipv4Address,
    /// Bytes of keys and values, where said.
    pub memory_bytes_max: Option<usize>,
    /// Clients at a time, where said.
    pub clients_max: Option<usize>,
    /// When the append-only file on the first disk is made durable; none without one.
    pub append_only: Option<Policy>,
    /// Mebibytes of memory that are written beside serving; none without.
    pub write_mib: usize,
    /// Pages of it that are written a second.
    pub write_pages: u64,
}

/// An option that says nothing.
pub struct OptionError<'a> {
    name: &'static str,
    value: &'a str,
}

impl fmt::Display for OptionError<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "option {}={} is not understood", self.name, self.value)
    }
}

impl Options {
    /// Reads `line`.
    ///
    /// # Errors
    /// The first option whose value is not what it should be.
    pub fn read(line: CommandLine<'_>) -> Result<Self, OptionError<'_>> {
        Ok(Self {
            address: parse("ip", line.option("ip").unwrap_or(ADDRESS))?,
            gateway: parse("gw", line.option("gw").unwrap_or(GATEWAY))?,
            memory_bytes_max: line
                .option("maxmemory")
                .map(|value| parse("maxmemory", value))
                .transpose()?,
            clients_max: line
                .option("maxclients")
                .map(|value| parse("maxclients", value))
                .transpose()?,
            append_only: append_only(line)?,
            write_mib: parse("write_mib", line.option("write_mib").unwrap_or("0"))?,
            write_pages: parse("write_pages", line.option("write_pages").unwrap_or("0"))?,
        })
    }
}

fn append_only(line: CommandLine<'_>) -> Result<Option<Policy>, OptionError<'_>> {
    match line.option("appendonly") {
        None | Some("no") => Ok(None),
        Some("always") => Ok(Some(Policy::Always)),
        Some("everysec") => Ok(Some(Policy::EverySecond)),
        Some(value) => {
            let name = "appendonly";
            Err(OptionError { name, value })
        }
    }
}

fn parse<'a, T: core::str::FromStr>(name: &'static str, value: &'a str) -> Result<T, OptionError<'a>> {
    value.parse().map_err(|_| OptionError { name, value })
}
