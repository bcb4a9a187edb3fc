//! One round: a recording under load, its replay, and what differs; or a pair that loses its
//! primary.

use super::load;
use super::workload::{Load, Workload, command};
use lockstep_logging_channel::{Body, Entry, LogReader};
use lockstep_tests::harness::process::run as run_process;
use lockstep_tests::harness::{Ended, Interrupt, PairSpec, Process, Scratch, Switch, wait_until};
use nix::sys::signal::Signal;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time for which the key-value guest is loaded in one round: its replay must come to an end within
/// the patience of the harness.
const LOAD: Duration = Duration::from_secs(6);

/// Common points that a pair has made when its primary is killed.
const BEFORE_FAILOVER: usize = 500;

/// Text of a guest that has found everything as it should be.
const AS_COMPUTED: &str = "are as computed";

/// What a replay says that found no difference.
const EQUAL: &str = "the replay equals the log";

/// What a round came to.
#[derive(Clone, Debug, Default)]
pub struct CameTo {
    /// Entries of the log.
    pub entries: u64,
    /// Events that entered.
    pub events: u64,
    /// Those that entered between two exits, at an exact instruction, and again there in the
    /// replay.
    pub exact: u64,
    /// Common points.
    pub common_points: u64,
    /// Outputs.
    pub outputs: u64,
    /// Exits of the guest.
    pub exits: u64,
    /// Writes that were acknowledged to clients.
    pub acknowledged: u64,
    /// Sides of a pair that were killed.
    pub strikes: u64,
    /// How long the recording took.
    pub recorded: Duration,
    /// How long the replay took.
    pub replayed: Duration,
    /// The difference that was found, or the loss.
    pub difference: Option<String>,
}

/// The circumstances of a round, beside its workload.
#[derive(Debug)]
pub struct Round<'a> {
    /// Rounds of every workload before it.
    pub turn: u32,
    /// Time for a workload that ends by being stopped.
    pub share: Duration,
    /// Folder of the logs that did not replay.
    pub keep: &'a Path,
    /// Ends such a workload sooner.
    pub interrupt: &'a Interrupt,
}

impl fmt::Display for CameTo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.strikes > 0 {
            write!(
                formatter,
                "{} sides killed, {} writes, ",
                self.strikes, self.acknowledged
            )?;
        }
        write!(
            formatter,
            "{} entries, {} events ({} between exits), {} common points, {} exits, {:.1} s, replayed in {:.1} s: {}",
            self.entries,
            self.events,
            self.exact,
            self.common_points,
            self.exits,
            self.recorded.as_secs_f64(),
            self.replayed.as_secs_f64(),
            self.difference.as_deref().unwrap_or("the same"),
        )
    }
}

/// Records `workload`, replays it, and compares. A log that does not replay is kept.
pub fn record_and_replay(workload: &Workload, round: &Round<'_>) -> CameTo {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let mut came_to = CameTo::default();
    let start = Instant::now();
    let recorded = record(workload, &scratch, &log, &mut came_to).expect_code(0);
    came_to.recorded = start.elapsed();
    count(&log, &mut came_to);
    let start = Instant::now();
    let replayed = run_process(command("replay", workload).arg("--log").arg(&log));
    came_to.replayed = start.elapsed();
    came_to.difference = difference(&recorded, &replayed);
    if let Some(difference) = &came_to.difference {
        keep_log(workload, round, &log, difference);
    }
    came_to
}

/// Protects `workload` in checkpoint mode, kills its primary, and lets it come to its end.
pub fn fail_over(workload: &Workload) -> CameTo {
    let spec = PairSpec::new(workload.boots)
        .setting("mode", "checkpoint")
        .setting("epoch-ms", "5")
        .setting("command-line", &workload.options);
    let start = Instant::now();
    let mut pair = spec.with_proxy().start();
    let is_point = |entry: &&Entry| matches!(entry.body, Body::CommonPoint(_));
    wait_until(
        || {
            let points = pair.proxy().entries().iter().filter(is_point).count();
            (points >= BEFORE_FAILOVER).then_some(())
        },
        || format!("{BEFORE_FAILOVER} common points"),
    );
    let _ = pair.primary.process.kill();
    let ended = pair.backup.process.wait();
    let mut came_to = CameTo {
        recorded: start.elapsed(),
        ..CameTo::default()
    };
    pair.proxy().entries().iter().for_each(|entry| came_to.add(entry));
    let is_good = ended.code() == Some(0) && ended.stdout.contains(AS_COMPUTED);
    came_to.difference = (!is_good).then(|| format!("the side that took over: {ended}"));
    came_to
}

fn record(workload: &Workload, scratch: &Scratch, log: &Path, came_to: &mut CameTo) -> Ended {
    let mut command = command("record", workload);
    command.arg("--log").arg(log);
    if let Some(latency) = workload.event_latency_ms {
        command.args(["--event-latency-ms", latency]);
    }
    if workload.load == Load::None {
        return run_process(&mut command);
    }
    let switch = Switch::start_quiet(scratch);
    command.arg("--network").arg(switch.attachment());
    let mut recording = Process::start("record", &mut command);
    if workload.load == Load::Clients {
        came_to.acknowledged = load::serve(switch.client_address(), LOAD);
        recording.signal(Signal::SIGTERM);
        return recording.wait();
    }
    let _knocking = load::Knocking::at(switch.client_address());
    recording.type_in("typed while it runs\n");
    recording.wait_with_input()
}

/// Why a replay is not its recording over again.
pub fn difference(recorded: &Ended, replayed: &Ended) -> Option<String> {
    if replayed.code() != recorded.code() {
        return Some(format!(
            "status {:?} instead of {:?}: {replayed}",
            replayed.code(),
            recorded.code()
        ));
    }
    if !replayed.stderr.contains(EQUAL) {
        return Some(format!("the replay does not say that it is equal: {replayed}"));
    }
    (replayed.stdout != recorded.stdout).then(|| format!("another text on the console: {replayed}"))
}

/// Adds what is in a log.
pub fn count(log: &Path, came_to: &mut CameTo) {
    let reader = LogReader::open(log).unwrap_or_else(|why| panic!("{}: {why}", log.display()));
    for entry in reader {
        came_to.add(&entry.unwrap_or_else(|why| panic!("{}: {why}", log.display())));
    }
}

impl CameTo {
    fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        self.exits = self.exits.max(entry.point.exits);
        match entry.body {
            Body::Event(_) => {
                self.events += 1;
                self.exact += u64::from(entry.point.instructions > 0);
            }
            Body::Output(_) | Body::HeldOutput(_) | Body::DiskWrite(_) => self.outputs += 1,
            Body::CommonPoint(_) => self.common_points += 1,
            _ => (),
        }
    }
}

/// Keeps the evidence, and says how to look at it.
pub fn keep_log(workload: &Workload, round: &Round<'_>, log: &Path, difference: &str) {
    let name = format!("{workload}-{}.lockstep-log", round.turn);
    let kept = round.keep.join(name.replace(", clock ", "-").replace(", ", "-"));
    std::fs::create_dir_all(round.keep).expect("a place for the log");
    std::fs::copy(log, &kept).expect("the log can be kept");
    let mut again = command("replay", workload);
    again.arg("--log").arg(&kept);
    println!("DIVERGED: {workload}: {difference}");
    println!("  the log is kept: {}", kept.display());
    println!("  again: {again:?}");
    println!("  look into it: lockstep log dump {:?} --from SEQUENCE", kept);
}
