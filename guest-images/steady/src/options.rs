//! Options of the command line.

use core::fmt;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;
use lockstep_guest_runtime::command_line::CommandLine;
use lockstep_guest_runtime::timer;

const ADDRESS: &str = "10.0.2.15";
/// Visits of a page, per interrupt that is waited for, after which it gives up: some seconds where
/// an interrupt is due each 10 ms.
const VISITS_PER_INTERRUPT: u64 = 50_000_000;
const PERIOD_US: u64 = 10_000;
/// The timer counts 16 bits, which is 54.9 ms.
const PERIODS_US: RangeInclusive<u64> = 100..=50_000;

/// Bounds of the computation.
pub struct Options {
    /// Timer interrupts to end at.
    pub interrupts: u64,
    /// Counts of the timer from one interrupt to the next.
    pub period_counts: u16,
    /// Pages that each pass changes.
    pub pages: usize,
    /// Passes at which it gives up.
    pub passes_max: u64,
    /// Passes after which it makes an exit; `u64::MAX` for none.
    pub exit_passes: u64,
    /// True where the handler asks the clock.
    pub asks_clock: bool,
    /// True where typed bytes are echoed.
    pub console: bool,
    /// True where frames are answered.
    pub network: bool,
    /// The address at which they are.
    pub ip: [u8; 4],
    /// The end, in words.
    pub end: End,
}

/// Event that ends it.
pub struct End(u64);

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            u64::MAX => formatter.write_str("it is stopped"),
            interrupts => write!(formatter, "{interrupts} timer interrupts have come"),
        }
    }
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

impl<'a> Options {
    /// Reads `line`.
    ///
    /// # Errors
    /// The first option whose value is not what it should be.
    pub fn read(line: CommandLine<'a>) -> Result<Self, OptionError<'a>> {
        let interrupts = match number(line, "interrupts", 100)? {
            0 => u64::MAX,
            interrupts => interrupts,
        };
        let period_counts = period_counts(line)?;
        let pages = number(line, "pages", 16)?.max(1);
        let visits_max = interrupts.saturating_mul(VISITS_PER_INTERRUPT);
        let passes_max = number(line, "passes", visits_max / pages)?;
        let exit_passes = match number(line, "exit_passes", 0)? {
            0 => u64::MAX,
            passes => passes,
        };
        let (mut console, mut network) = (false, false);
        let echo = line.option("echo").unwrap_or_default();
        for word in echo.split(',').filter(|word| !word.is_empty()) {
            match word {
                "console" => console = true,
                "network" => network = true,
                value => return Err(OptionError { name: "echo", value }),
            }
        }
        let asks_clock = match line.option("clock") {
            None | Some("page") => false,
            Some("ask") => true,
            Some(value) => return Err(OptionError { name: "clock", value }),
        };
        let ip = line.option("ip").unwrap_or(ADDRESS);
        let address: Ipv4Addr = ip.parse().map_err(|_| OptionError {
            name: "ip",
            value: ip,
        })?;
        Ok(Self {
            interrupts,
            period_counts,
            pages: pages as usize,
            passes_max,
            exit_passes,
            asks_clock,
            console,
            network,
            ip: address.octets(),
            end: End(interrupts),
        })
    }

    /// Time from one timer interrupt to the next.
    pub const fn period_ns(&self) -> u64 {
        self.period_counts as u64 * 1_000_000_000 / timer::COUNTS_PER_SECOND
    }
}

/// The period, to the next count.
fn period_counts<'a>(line: CommandLine<'a>) -> Result<u16, OptionError<'a>> {
    const NAME: &str = "period_us";
    let period_us = number(line, NAME, PERIOD_US)?;
    let refused = OptionError {
        name: NAME,
        value: line.option(NAME).unwrap_or_default(),
    };
    if !PERIODS_US.contains(&period_us) {
        return Err(refused);
    }
    let counts = (period_us * timer::COUNTS_PER_SECOND + 500_000) / 1_000_000;
    u16::try_from(counts).map_err(|_| refused)
}

fn number<'a>(line: CommandLine<'a>, name: &'static str, default: u64) -> Result<u64, OptionError<'a>> {
    let Some(value) = line.option(name) else {
        return Ok(default);
    };
    value.parse().map_err(|_| OptionError { name, value })
}
