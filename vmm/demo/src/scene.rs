//! The processes of a demonstration and their directory, from setting up to clearing away.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{Instant, sleep, timeout};

use super::client::Connection;
use super::command_lines::{Places, Sides};
use super::control::{Control, Phase};
use super::folder::Folder;
use super::joining::{self, Started};
use super::processes::Process;
use super::replica_report::{Following, ReplicaReport};
use super::resp::Reply;
use super::{DemoError, Kill, progress};
use lockstep_process::clock::monotonic_ns;

/// The longest any step of setting up takes: on an emulated host a side was seen to need 26 s
/// before it joined, on a machine that was busy with much else. Seven times that.
const START_TIME_MAX: Duration = Duration::from_secs(180);

/// The longest a guest takes to its first answer: in the emulated machine of the lab Debian's Linux
/// has been seen to need two minutes until it serves, beside much else. Five times that.
const GUEST_START_TIME_MAX: Duration = Duration::from_secs(600);

/// The longest a new backup takes in all, however often it begins again: ten times what 64 MiB of
/// memory take at 1 Mbit/s, the least bandwidth that can be asked for.
const JOIN_TIME_MAX: Duration = Duration::from_secs(90 * 60);

/// Between two looks at a report.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Between two attempts to use the guest while it starts.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// A side of the machine.
pub(super) struct Side {
    /// Its process.
    pub(super) process: Process,
    /// Its report.
    pub(super) report: Following,
}

/// A switch and the sides of a machine.
pub(super) struct Scene {
    folder: Option<Folder>,
    pub(super) places: Places,
    switch: Option<Process>,
    primary: Option<Side>,
    backup: Option<Side>,
    started: usize,
}

impl Scene {
    /// A directory, which is kept if it is to be.
    pub(super) fn prepare(keep: bool) -> Result<Self, DemoError> {
        let failed = |action| move |source| DemoError::Directory { action, source };
        let folder = Folder::make(&std::env::temp_dir(), keep).map_err(failed("make a directory"))?;
        let places = Places::new(folder.path());
        std::fs::create_dir(places.shared()).map_err(failed("make the shared directory"))?;
        Ok(Self {
            folder: Some(folder),
            places,
            switch: None,
            primary: None,
            backup: None,
            started: 0,
        })
    }

    /// Starts everything; gives the address at which clients reach the guest, which answers there.
    pub(super) async fn start(&mut self, sides: &Sides) -> Result<SocketAddr, DemoError> {
        progress::note("starting the switch");
        let address = self.start_switch().await?;
        progress::note("starting the primary");
        let primary = self.start_side(sides)?;
        let primary = self.primary.insert(primary);
        await_event(primary, "listening", "starting the primary").await?;
        progress::note("starting the backup");
        let backup = self.start_side(sides)?;
        let backup = self.backup.insert(backup);
        await_event(backup, "protected", "protecting the guest").await?;
        progress::note("waiting for the guest");
        self.await_guest(address).await?;
        Ok(address)
    }

    fn start_side(&mut self, sides: &Sides) -> Result<Side, DemoError> {
        self.started += 1;
        let name = format!("replica-{}", self.started);
        let arguments = self.places.replica(&name, sides);
        let command = ("replica", name.as_str());
        let process = Process::start(command, &arguments, &self.places, false)?;
        let report = Following::new(self.places.report(&name));
        Ok(Side { process, report })
    }

    async fn start_switch(&mut self) -> Result<SocketAddr, DemoError> {
        let arguments = self.places.switch();
        let command = ("switch", "switch");
        let switch = Process::start(command, &arguments, &self.places, true)?;
        let switch = self.switch.insert(switch);
        let mut line = String::new();
        if let Some(output) = switch.child().stdout.take() {
            let read = timeout(START_TIME_MAX, BufReader::new(output).read_line(&mut line)).await;
            read.map_err(|_| late("starting the switch", START_TIME_MAX, switch))?
                .map_err(|source| DemoError::Spawn {
                    process: "switch",
                    source,
                })?;
        }
        let forwarded = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("forward="));
        let host = forwarded.and_then(|forward| forward.split("->").next()?.parse().ok());
        match host {
            Some(host) => Ok(host),
            None => {
                // Without its line it is about to end; the reason is in its messages.
                let _ = switch.ended().await;
                switch.check()?;
                Err(late("starting the switch", START_TIME_MAX, switch))
            }
        }
    }

    async fn await_guest(&mut self, address: SocketAddr) -> Result<(), DemoError> {
        let deadline = Instant::now() + GUEST_START_TIME_MAX;
        let ping = vec![b"PING".to_vec()];
        loop {
            let answered = async { Connection::open(address).await?.ask(&ping).await };
            if matches!(answered.await, Ok(Reply::Simple(_))) {
                return Ok(());
            }
            self.check()?;
            if Instant::now() > deadline {
                let primary = self.primary.as_ref();
                return Err(DemoError::NotInTime {
                    what: "the guest's first answer",
                    limit: GUEST_START_TIME_MAX,
                    messages: primary.map(|side| side.process.messages()).unwrap_or_default(),
                });
            }
            sleep(CONNECT_INTERVAL).await;
        }
    }

    /// Removes the side that was lost: the one that is left is the primary.
    pub(super) async fn settle(&mut self, lost: Kill) {
        let gone = match lost {
            Kill::Primary => std::mem::replace(&mut self.primary, self.backup.take()),
            Kill::Backup => self.backup.take(),
            Kill::None => None,
        };
        if let Some(mut gone) = gone {
            // A process that cannot be waited for was never there.
            let _ = gone.process.kill().await;
        }
    }

    /// Starts a new backup, and waits until it is armed.
    pub(super) async fn join(&mut self, sides: &Sides, control: &Control) -> Result<Started, DemoError> {
        let at_ns = monotonic_ns();
        let newcomer = self.start_side(sides)?;
        let started = Started {
            process: newcomer.process.id(),
            at_ns,
        };
        self.backup = Some(newcomer);
        let end = Instant::now() + JOIN_TIME_MAX;
        let mut step_end = Instant::now() + START_TIME_MAX;
        let mut seen = 0;
        loop {
            self.check()?;
            let Some((primary, backup)) = self.pair() else {
                return Ok(started);
            };
            let reported = backup.report.look();
            let is_armed = reported.first("armed").is_some();
            if is_armed && primary.report.look().first_since("armed", at_ns).is_some() {
                return Ok(started);
            }
            control.enter(Phase::Step(joining::progress(reported)));
            // Each report of it is a step, which has its own time.
            if reported.len() > seen {
                seen = reported.len();
                step_end = Instant::now() + START_TIME_MAX;
            }
            let (now, what) = (Instant::now(), "arming a new backup");
            if now > end {
                return Err(late(what, JOIN_TIME_MAX, &backup.process));
            }
            if now > step_end {
                return Err(late(what, START_TIME_MAX, &backup.process));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// An error where any process has ended that was not lost.
    fn check(&mut self) -> Result<(), DemoError> {
        let sides = [&mut self.primary, &mut self.backup].into_iter().flatten();
        let processes = sides.map(|side| &mut side.process).chain(&mut self.switch);
        processes.into_iter().try_for_each(Process::check)
    }

    /// The primary, and the backup.
    pub(super) fn pair(&mut self) -> Option<(&mut Side, &mut Side)> {
        Some((self.primary.as_mut()?, self.backup.as_mut()?))
    }

    /// Reports of all sides that there were, in the order in which they were started.
    pub(super) fn reports(&self) -> Vec<ReplicaReport> {
        let names = (1..=self.started).map(|number| format!("replica-{number}"));
        names
            .map(|name| ReplicaReport::read(&self.places.report(&name)))
            .collect()
    }

    /// Kills what still runs and removes the directory, or keeps it; gives its path then.
    pub(super) async fn clear(&mut self) -> Option<PathBuf> {
        let sides = [&mut self.primary, &mut self.backup].into_iter().flatten();
        let sides = sides.map(|side| &mut side.process);
        for process in sides.chain(&mut self.switch) {
            // A process that cannot be waited for was never there.
            let _ = process.kill().await;
        }
        self.folder.take()?.leave()
    }
}

fn late(what: &'static str, limit: Duration, process: &Process) -> DemoError {
    DemoError::NotInTime {
        what,
        limit,
        messages: process.messages(),
    }
}

async fn await_event(side: &mut Side, event: &str, what: &'static str) -> Result<(), DemoError> {
    let deadline = Instant::now() + START_TIME_MAX;
    while side.report.look().first(event).is_none() {
        side.process.check()?;
        if Instant::now() > deadline {
            return Err(late(what, START_TIME_MAX, &side.process));
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}
