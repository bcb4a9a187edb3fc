//! Options of the command line.

use crate::measured::{Kind, Measure};
use core::fmt;
use lockstep_guest_runtime::command_line::CommandLine;
use lockstep_guest_runtime::requests::IN_FLIGHT_MAX;

/// Largest block of a load that is timed: 16 MiB.
const BLOCK_KIB_MAX: usize = 16 << 10;

/// Settings of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seed of the requests.
    pub seed: u64,
    /// Requests to each disk; `u64::MAX` for no end.
    pub requests: u64,
    /// Requests on their way to each disk at a time.
    pub in_flight: usize,
    /// Bytes of each disk that are used, beside the header.
    pub area_bytes: u64,
    /// Requests after which a line says how far it is; 0 for no such lines.
    pub report: u64,
    /// True if requests that are on their way may be for the same sectors.
    pub overlap: bool,
    /// The load that is timed instead, if there is one.
    pub measure: Option<Measure>,
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
        let requests = match number(line, "requests", 2000)? {
            0 => u64::MAX,
            requests => requests,
        };
        let in_flight: usize = number(line, "in_flight", 32)?;
        Ok(Self {
            seed: number(line, "seed", 1)?,
            requests,
            in_flight: in_flight.clamp(1, IN_FLIGHT_MAX),
            area_bytes: number::<u64>(line, "area_kib", 4096)?.saturating_mul(1024),
            report: number(line, "report", 0)?,
            overlap: match line.option("overlap") {
                None | Some("yes") => true,
                Some("no") => false,
                Some(value) => {
                    let name = "overlap";
                    return Err(OptionError { name, value });
                }
            },
            measure: measure(line)?,
        })
    }
}

fn measure(line: CommandLine<'_>) -> Result<Option<Measure>, OptionError<'_>> {
    let Some(value) = line.option("measure") else {
        return Ok(None);
    };
    let name = "measure";
    let kind = Kind::named(value).ok_or(OptionError { name, value })?;
    let block_kib: usize = number(line, "block_kib", 4)?;
    Ok(Some(Measure {
        kind,
        block_bytes: block_kib.clamp(4, BLOCK_KIB_MAX).next_multiple_of(4) * 1024,
        blocks: number(line, "blocks", 1000)?,
        flush: number(line, "flush", 0)?,
    }))
}

fn number<'a, T: core::str::FromStr>(
    line: CommandLine<'a>,
    name: &'static str,
    default: T,
) -> Result<T, OptionError<'a>> {
    line.option(name).map_or(Ok(default), |value| {
        value.parse().map_err(|_| OptionError { name, value })
    })
}
