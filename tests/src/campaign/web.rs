//! The environment of a machine that heals: its switches, its shared directory, and its sides, each
//! started by the same words.

use super::disks::Images;
use super::evidence::{Said, files_of};
use super::plan::TIMEOUT_MS;
use super::stop_point::{self, REACHED, is_stopped};
use crate::harness::clock::monotonic_ns;
use crate::harness::{Guest, Process, Replica, Scratch, Switch, lockstep};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The machine's name.
const NAME: &str = "web";
/// Time by which a backup may be behind: as long as a round may take.
const LAG_MS_MAX: &str = "60000";
/// Memory of the guest, and of one that has an append-only file.
const MEMORY_MIB: u32 = 16;
const MEMORY_WITH_DISK_MIB: u32 = 32;
/// A defect that a process is to have.
pub const MUTANT: &str = "LOCKSTEP_MUTANT";

const NS_PER_MS: u64 = 1_000_000;

/// A claim, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The generation.
    pub generation: u32,
    /// The machine's id.
    pub machine: String,
    /// Number of the process that has claimed.
    pub process: u32,
}

/// A side: its process, and what was done to it.
#[derive(Debug)]
pub struct Side {
    /// Its name here.
    pub name: String,
    /// The process.
    pub replica: Replica,
    /// Path at which it can be joined.
    pub channel: PathBuf,
    /// It was killed, by the plan or by its own stop point.
    pub killed: bool,
    /// It was asked to end.
    pub stopped: bool,
    /// The switch that it is attached to.
    pub switch: usize,
    /// Its image, where the machine has a disk.
    pub image: Option<PathBuf>,
    /// Time at which it goes on, if it was stopped.
    continue_at_ns: Option<u64>,
    dies_at_point: bool,
}

/// A side that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Starting {
    /// The command: `replica`, `primary` or `backup`.
    pub role: &'static str,
    /// The switch that it is attached to.
    pub switch: usize,
    /// Its stop point.
    pub point: Option<String>,
}

impl Starting {
    /// A replica, with this stop point.
    #[must_use]
    pub fn replica(point: Option<String>) -> Self {
        Self {
            role: "replica",
            switch: 0,
            point,
        }
    }
}

/// Everything that the sides of one machine share.
#[derive(Debug)]
pub struct Web {
    /// Switches: a side is attached to one of them.
    pub switches: Vec<Switch>,
    /// Every side that was started.
    pub sides: Vec<Side>,
    /// The files.
    pub scratch: Scratch,
    /// Images, where the machine has a disk.
    pub images: Option<Images>,
    guest: Guest,
    memory_mib: u32,
    /// More of each side's command line.
    settings: Vec<&'static str>,
    mutant: Option<String>,
}

impl Web {
    /// An environment with so many switches, and without a side.
    #[must_use]
    pub fn new(switches: usize, mutant: Option<&str>) -> Self {
        let scratch = Scratch::new();
        scratch.directory("shared");
        let switches = (0..switches)
            .map(|number| Switch::start_named(&scratch, &format!("switch-{number}")))
            .collect();
        Self {
            switches,
            sides: Vec::new(),
            scratch,
            images: None,
            guest: Guest::KeyValue,
            memory_mib: MEMORY_MIB,
            settings: Vec::new(),
            mutant: mutant.map(ToOwned::to_owned),
        }
    }

    /// The same with another guest, and more of each side's command line.
    #[must_use]
    pub fn with(self, guest: Guest, settings: impl Into<Vec<&'static str>>) -> Self {
        Self {
            guest,
            settings: settings.into(),
            ..self
        }
    }

    /// The same with a disk, for which the guest needs more memory.
    #[must_use]
    pub fn with_disk(self, images: Images) -> Self {
        Self {
            images: Some(images),
            memory_mib: MEMORY_WITH_DISK_MIB,
            ..self
        }
    }

    /// Addresses of the guest behind each switch, for clients.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.switches.iter().map(Switch::client_address).collect()
    }

    /// Starts a side, where there is a disk on a host on which none runs. Gives its number.
    pub fn start(&mut self, starting: &Starting) -> usize {
        let running = self.running();
        let in_use: Vec<&Path> = running
            .iter()
            .filter_map(|number| self.sides[*number].image.as_deref())
            .collect();
        let folder = self.scratch.path();
        let image = self.images.as_mut().map(|images| images.next(folder, &in_use));
        self.start_on(starting, image)
    }

    /// Starts a side on the host that has this image. Gives its number.
    pub fn start_on(&mut self, starting: &Starting, image: Option<PathBuf>) -> usize {
        let number = self.sides.len();
        let name = format!("side-{number}");
        let channel = self.scratch.join(&format!("channel-{number}"));
        let report = self.scratch.join(&format!("{name}.jsonl"));
        let mut command = self.command(starting);
        let address = match starting.role {
            // It looks for a primary where the newest side listens that can be one.
            "backup" => self.sides.last().map_or(&channel, |side| &side.channel),
            _ => &channel,
        };
        command
            .arg(format!("--channel=unix:{}", address.display()))
            .arg("--report")
            .arg(&report);
        if let Some(point) = &starting.point {
            command.env(stop_point::VARIABLE, point);
        }
        if let (Some(images), Some(image)) = (&self.images, &image) {
            command.arg("--disk").arg(images.argument(image));
        }
        let dies_at_point = starting
            .point
            .as_ref()
            .is_some_and(|point| point.ends_with(":KILL"));
        self.sides.push(Side {
            replica: Replica::start(&name, &mut command, report),
            name,
            channel,
            killed: false,
            stopped: false,
            switch: starting.switch,
            image,
            continue_at_ns: None,
            dies_at_point,
        });
        number
    }

    fn command(&self, starting: &Starting) -> Command {
        let mut command = lockstep();
        command
            .arg(starting.role)
            .arg(self.guest.image())
            .args(["--name", NAME])
            .arg(format!("--memory-mib={}", self.memory_mib))
            .arg(format!("--timeout-ms={TIMEOUT_MS}"))
            .arg(format!("--lag-ms-max={LAG_MS_MAX}"))
            .arg("--network")
            .arg(self.switches[starting.switch].attachment())
            .arg("--shared-directory")
            .arg(self.scratch.join("shared"))
            .args(&self.settings);
        if let Some(mutant) = &self.mutant {
            command.env(MUTANT, mutant);
        }
        command
    }

    /// Asks for a switchover; `more` of its options.
    #[must_use]
    pub fn switch_over(&self, more: &[&str]) -> Process {
        let mut command = lockstep();
        command.args(["switchover", NAME, "--shared-directory"]);
        command.arg(self.scratch.join("shared")).args(more);
        Process::start("switchover", &mut command)
    }

    /// The output of `lockstep status`, if it has any.
    #[must_use]
    pub fn status(&self) -> Option<serde_json::Value> {
        let ended = self.ask_for_status().wait();
        serde_json::from_str(&ended.stdout).ok()
    }

    /// Asks for the status.
    #[must_use]
    pub fn ask_for_status(&self) -> Process {
        let mut command = lockstep();
        command.args(["status", NAME, "--json", "--shared-directory"]);
        Process::start("status", command.arg(self.scratch.join("shared")))
    }

    /// The claims of all generations, in order.
    #[must_use]
    pub fn claims(&self) -> Vec<Claimed> {
        let folder = self.scratch.join("shared").join(NAME);
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        let paths = names.map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("generation-")
        });
        let mut claims: Vec<Claimed> = paths
            .filter_map(|path| claimed(&fs::read_to_string(path).ok()?))
            .collect();
        claims.sort_by_key(|claim| claim.generation);
        claims
    }

    /// The side that has claimed the newest generation, and that generation.
    #[must_use]
    pub fn holder(&self) -> Option<(usize, Claimed)> {
        let newest = self.claims().pop()?;
        let number = self
            .sides
            .iter()
            .position(|side| side.replica.process.id() == newest.process)?;
        Some((number, newest))
    }

    /// Stops a side, and lets it go on after so long.
    pub fn stop(&mut self, number: usize, ms: u64) {
        self.signal(number, Signal::SIGSTOP);
        self.go_on_after(number, ms);
    }

    /// Lets a side that has stopped go on after so long.
    pub fn go_on_after(&mut self, number: usize, ms: u64) {
        self.sides[number].continue_at_ns = Some(monotonic_ns() + ms * NS_PER_MS);
    }

    /// Kills a side.
    pub fn kill(&mut self, number: usize) {
        self.signal(number, Signal::SIGKILL);
        self.sides[number].killed = true;
    }

    fn signal(&mut self, number: usize, signal: Signal) {
        let process = &mut self.sides[number].replica.process;
        // Looked at first, which also reaps: the number could be another's afterwards.
        if process.is_running() {
            process.signal(signal);
        }
    }

    /// True if a side's process is there, stopped or not. One that its stop point has killed counts
    /// as killed from then on.
    pub fn is_running(&mut self, number: usize) -> bool {
        let side = &mut self.sides[number];
        let running = side.replica.process.is_running();
        if !running && side.dies_at_point && side.replica.process.stderr().contains(REACHED) {
            side.killed = true;
        }
        running
    }

    /// Numbers of the sides that run.
    pub fn running(&mut self) -> Vec<usize> {
        (0..self.sides.len())
            .filter(|number| self.is_running(*number))
            .collect()
    }

    /// True if a side stands still, by its stop point or by the plan.
    #[must_use]
    pub fn is_stopped(&self, number: usize) -> bool {
        is_stopped(self.sides[number].replica.process.id())
    }

    /// True if a side has come to its stop point, and stands there or is gone.
    pub fn is_at_its_point(&mut self, number: usize) -> bool {
        let reached = self.sides[number].replica.process.stderr().contains(REACHED);
        reached && (self.is_stopped(number) || !self.is_running(number))
    }

    /// Sides that have stopped themselves, and for which nothing is planned.
    pub fn stopped_by_themselves(&mut self) -> Vec<usize> {
        self.running()
            .into_iter()
            .filter(|number| self.sides[*number].continue_at_ns.is_none() && self.is_stopped(*number))
            .collect()
    }

    /// Lets sides go on whose time has come. Called all the time.
    pub fn look_at_the_time(&mut self) {
        let now_ns = monotonic_ns();
        for number in 0..self.sides.len() {
            if self.sides[number]
                .continue_at_ns
                .is_some_and(|at_ns| at_ns <= now_ns)
            {
                self.sides[number].continue_at_ns = None;
                self.signal(number, Signal::SIGCONT);
            }
        }
    }

    /// True if nothing is to go on later.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.sides.iter().all(|side| side.continue_at_ns.is_none())
    }

    /// Number of times that a side has reported `event`.
    #[must_use]
    pub fn count(&self, number: usize, event: &str) -> usize {
        self.sides[number].replica.count(event)
    }

    /// True if a side acts alone in this generation.
    #[must_use]
    pub fn acts(&self, number: usize, generation: u32) -> bool {
        let events = self.sides[number].replica.events();
        events.iter().any(|line| {
            (line["event"] == "live" || line["event"] == "solo") && line["generation"] == generation
        })
    }

    /// Number of sides that have met the stop point that they were started with: each has one at
    /// most.
    #[must_use]
    pub fn points_met(&self) -> usize {
        let sides = self.sides.iter();
        sides
            .filter(|side| side.replica.process.stderr().contains(REACHED))
            .count()
    }

    /// Messages and reports of every side.
    pub fn said(&mut self) -> BTreeMap<String, Said> {
        let sides = self.sides.iter_mut();
        sides
            .map(|side| (side.name.clone(), Said::by(&mut side.replica)))
            .collect()
    }

    /// Files for whoever looks at a round that failed.
    #[must_use]
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let claims: String = self.claims().iter().map(|claim| format!("{claim:?}\n")).collect();
        let switches = self.switches.iter().enumerate();
        let of_switches = switches.flat_map(|(number, switch)| files_of(switch, &format!("-{number}")));
        of_switches
            .chain([("claims.txt".to_owned(), claims.into_bytes())])
            .collect()
    }
}

/// The claim that `text` is.
fn claimed(text: &str) -> Option<Claimed> {
    let value = |key: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
    };
    Some(Claimed {
        generation: value("generation")?.parse().ok()?,
        machine: value("machine")?.to_owned(),
        process: value("process")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_read_and_anything_else_is_not() {
        let text = "lockstep-claim 2\ngeneration 3\nmachine 00ff\nid 01\nprocess 77\nprocess-start 5\n";
        let expected = Claimed {
            generation: 3,
            machine: "00ff".to_owned(),
            process: 77,
        };
        assert_eq!(claimed(text), Some(expected));
        assert_eq!(claimed("lockstep-claim 2\ngeneration 3\n"), None);
    }
}
