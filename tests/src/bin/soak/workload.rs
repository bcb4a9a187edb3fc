//! What is recorded: a guest, its instruction clock, its options.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Guest, lockstep};
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
}

/// Something to record and replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The guest.
    pub guest: Guest,
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

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = match self.guest {
            Guest::KeyValue => "key-value",
            Guest::Entropy => "entropy",
            Guest::Compute => "compute",
            Guest::Steady => "steady",
            Guest::Smoke => "smoke",
            Guest::Diverging => "diverging",
            Guest::Disk => "disk",
        };
        write!(formatter, "{guest}, clock {}", self.clock)?;
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
    command
        .arg(verb)
        .arg(workload.guest.image())
        .args(["--clock", workload.clock, "--memory-mib", "64"])
        .args(["--command-line", &workload.options]);
    command
}

/// True if this host has that clock.
fn offers(clock: &'static str) -> bool {
    let probe = Workload {
        guest: Guest::Entropy,
        clock,
        options: "sources=cpuid".to_owned(),
        load: Load::None,
        event_latency_ms: None,
    };
    run(&mut command("run", &probe)).code() != Some(NO_SUCH_CLOCK)
}

/// The workloads whose names begin with `only` and whose clock this host has, with `options` in the
/// place of their own. The others are named.
pub fn offered(only: &str, options: Option<&str>) -> Vec<Workload> {
    let workload = |(guest, clock, own, load): (Guest, &'static str, &str, Load)| Workload {
        guest,
        clock,
        options: options.unwrap_or(own).to_owned(),
        load,
        event_latency_ms: (own == OFTEN).then_some("1"),
    };
    let has = |workload: &Workload| {
        let offered = offers(workload.clock);
        if !offered {
            println!("skipped: {workload}: this host has no such clock");
        }
        offered
    };
    let mut offered: Vec<Workload> = Vec::new();
    for (row, workload) in ALL.iter().zip(ALL.map(workload)) {
        // By the options that a row has of its own: two rows differ in nothing else.
        let name = Workload {
            options: row.2.to_owned(),
            ..workload.clone()
        }
        .to_string();
        if name.starts_with(only) && !offered.contains(&workload) && has(&workload) {
            offered.push(workload);
        }
    }
    offered
}
