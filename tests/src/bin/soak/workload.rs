//! What is recorded: a guest, its instruction clock, its options.

use clap::ValueEnum;
use lockstep_tests::harness::linux::QUIET;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Boots, Guest, Linux, lockstep};
use std::ffi::OsString;
use std::fmt;
use std::process::Command;

/// What a guest has to do with while it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nobody but itself.
    None,
    /// Frames that look for it, and a line that is typed.
    Frames,
    /// Clients that are served.
    Clients,
    /// Nobody; and it is not recorded, but protected in checkpoint mode until its primary is
    /// killed.
    Failover,
    /// Clients that are served beside what it does by itself, until it is stopped.
    Mixed,
    /// The same; and it is not recorded, but protected by a pair whose sides are killed in turn.
    Struck,
}

/// Guests of a soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Guests {
    /// Those that were written for Lockstep.
    Small,
    /// Debian's Linux with a mixed load.
    Linux,
}

/// Something to record and replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The guest.
    pub boots: Boots,
    /// `--clock`.
    pub clock: &'static str,
    /// `--command-line`.
    pub options: String,
    /// What comes from outside.
    pub load: Load,
    /// `--event-latency-ms` of its recording, where it is not the default.
    pub event_latency_ms: Option<&'static str>,
}

/// Every source of the entropy guest, for some seconds.
const ENTROPY: &str =
    "rounds=200 landings=40 spin0=200000 spin3=2000000 frames=40 frames_ms=1500 console_ms=1500";

/// A timer interrupt into a loop of ring 0 without exits, and no network: what stepping is promised
/// for (docs/hosts.md).
const LOOP: &str = "sources=timer0 landings=1 spin0=100000000";

/// A guest that computes without an exit: every interrupt enters at a common point. 1 MiB is few
/// pages for one, 8 MiB is many.
const FEW_PAGES: &str = "interrupts=400 pages=256";
const MANY_PAGES: &str = "interrupts=100 pages=2048";

/// The same with as many common points in a time as there can be: a page, and a timer that is
/// always due again.
const OFTEN: &str = "interrupts=5000 period_us=1000 pages=1";

/// Name of the workload that makes common points as often as it can.
pub const MOST_COMMON_POINTS: &str = "steady, clock none, 1 ms";

/// The same for a pair: some seconds, half of them on the side that takes over.
const FAILOVER: &str = "interrupts=800 pages=64";

/// Every workload: guest, clock, options and load.
const ALL: [(Guest, &str, &str, Load); 10] = [
    (Guest::Steady, "none", OFTEN, Load::None),
    (Guest::Steady, "none", FAILOVER, Load::Failover),
    (Guest::Steady, "none", FEW_PAGES, Load::None),
    (Guest::Steady, "none", MANY_PAGES, Load::None),
    (Guest::Steady, "statistic", FEW_PAGES, Load::None),
    (Guest::Entropy, "none", ENTROPY, Load::Frames),
    (Guest::KeyValue, "none", "", Load::Clients),
    (Guest::Entropy, "statistic", ENTROPY, Load::Frames),
    (Guest::KeyValue, "statistic", "", Load::Clients),
    (Guest::Entropy, "step", LOOP, Load::None),
];

/// Every workload of a Linux: its image says what it does.
const LINUX: [(Linux, Load); 2] = [(Linux::Mixed, Load::Mixed), (Linux::Mixed, Load::Struck)];

/// The instruction clock of every host. Kernels are run without another.
const NO_CLOCK: &str = "none";

impl Workload {
    fn of_image((guest, clock, options, load): (Guest, &'static str, &str, Load)) -> Self {
        Self {
            boots: guest.into(),
            clock,
            options: options.to_owned(),
            load,
            event_latency_ms: (options == OFTEN).then_some("1"),
        }
    }

    fn of_linux((linux, load): (Linux, Load)) -> Self {
        Self {
            boots: linux.into(),
            clock: NO_CLOCK,
            options: String::new(),
            load,
            event_latency_ms: None,
        }
    }

    /// Arguments of Lockstep that name the machine.
    pub fn machine(&self) -> Vec<OsString> {
        let (memory_mib, command_line) = match self.boots {
            Boots::Image(_) => ("64", self.options.clone()),
            Boots::Kernel(linux) => (linux.memory_mib(), format!("{QUIET} {}", self.options)),
        };
        let mut arguments = self.boots.arguments();
        arguments.push(format!("--clock={}", self.clock).into());
        arguments.push(format!("--memory-mib={memory_mib}").into());
        arguments.push(format!("--command-line={command_line}").into());
        arguments
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = match self.boots {
            Boots::Image(Guest::KeyValue) => "key-value",
            Boots::Image(Guest::Entropy) => "entropy",
            Boots::Image(Guest::Compute) => "compute",
            Boots::Image(Guest::Steady) => "steady",
            Boots::Image(Guest::Smoke) => "smoke",
            Boots::Image(Guest::Diverging) => "diverging",
            Boots::Image(Guest::Disk) => "disk",
            Boots::Kernel(_) => "linux",
        };
        match self.load {
            Load::Mixed => return write!(formatter, "{guest}, mixed load"),
            Load::Struck => return write!(formatter, "{guest}, struck pair"),
            _ => write!(formatter, "{guest}, clock {}", self.clock)?,
        }
        match self.options.as_str() {
            MANY_PAGES => write!(formatter, ", 8 MiB"),
            OFTEN => write!(formatter, ", 1 ms"),
            FAILOVER => write!(formatter, ", checkpoints"),
            _ => Ok(()),
        }
    }
}

/// Status of a host without the clock.
const NO_SUCH_CLOCK: i32 = 4;

/// `verb` with this workload.
pub fn command(verb: &str, workload: &Workload) -> Command {
    let mut command = lockstep();
    command.arg(verb).args(workload.machine());
    command
}

/// True if this host has that clock.
fn offers(clock: &'static str) -> bool {
    let probe = Workload::of_image((Guest::Entropy, clock, "sources=cpuid", Load::None));
    run(&mut command("run", &probe)).code() != Some(NO_SUCH_CLOCK)
}

/// The workloads of `guests` whose names begin with `only`, with `options` in the place of their
/// own. Two that differ in nothing else become one.
pub fn chosen(guests: Guests, only: &str, options: Option<&str>) -> Vec<Workload> {
    let all: Vec<Workload> = match guests {
        Guests::Small => ALL.into_iter().map(Workload::of_image).collect(),
        Guests::Linux => LINUX.into_iter().map(Workload::of_linux).collect(),
    };
    let mut chosen: Vec<Workload> = Vec::new();
    for workload in all {
        // By the options that it has of its own: two differ in nothing else.
        if !workload.to_string().starts_with(only) {
            continue;
        }
        let options = options.map_or_else(|| workload.options.clone(), str::to_owned);
        let workload = Workload { options, ..workload };
        if !chosen.contains(&workload) {
            chosen.push(workload);
        }
    }
    chosen
}

/// Those whose clock this host has. The others are named.
pub fn offered(mut workloads: Vec<Workload>) -> Vec<Workload> {
    workloads.retain(|workload| {
        // Every host has none.
        let offered = workload.clock == NO_CLOCK || offers(workload.clock);
        if !offered {
            println!("skipped: {workload}: this host has no such clock");
        }
        offered
    });
    workloads
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(guests: Guests, only: &str) -> Vec<String> {
        let chosen = chosen(guests, only, None);
        chosen.iter().map(Workload::to_string).collect()
    }

    #[test]
    fn every_workload_has_a_name_of_its_own() {
        let names = [names(Guests::Small, ""), names(Guests::Linux, "")].concat();
        assert_eq!(names.len(), ALL.len() + LINUX.len());
        assert_eq!(
            names.iter().collect::<BTreeSet<_>>().len(),
            names.len(),
            "{names:?}"
        );
    }

    #[test]
    fn linux_is_run_where_it_is_named_only() {
        assert!(
            !names(Guests::Small, "")
                .iter()
                .any(|name| name.starts_with("linux"))
        );
        assert_eq!(
            names(Guests::Linux, ""),
            ["linux, mixed load", "linux, struck pair"]
        );
    }

    #[test]
    fn a_beginning_of_a_name_chooses() {
        assert_eq!(names(Guests::Linux, "linux, s"), ["linux, struck pair"]);
        assert_eq!(names(Guests::Small, MOST_COMMON_POINTS), [MOST_COMMON_POINTS]);
        assert!(names(Guests::Linux, "steady").is_empty());
    }

    #[test]
    fn options_take_the_place_of_all_and_leave_no_workload_twice() {
        let chosen = chosen(Guests::Small, "steady, clock none", Some("pages=8"));
        // Each has another event latency or another load.
        assert_eq!(chosen.len(), 3);
        assert!(chosen.iter().all(|workload| workload.options == "pages=8"));
    }
}
