//! The processes of a demonstration and their directory, from setting up to clearing away.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{Instant, sleep, timeout};

use super::client::Connection;
use super::command_lines::Places;
use super::processes::Process;
use super::replica_report::ReplicaReport;
use super::resp::Reply;
use super::{DemoError, progress};

/// The longest any step of setting up takes: on an emulated host a guest starts in seconds.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Between two looks at a report.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Between two attempts to use the guest while it starts.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// A switch and a pair.
pub(super) struct Scene {
    directory: Option<TempDir>,
    pub(super) places: Places,
    executable: PathBuf,
    switch: Option<Process>,
    primary: Option<Process>,
    backup: Option<Process>,
}

impl Scene {
    /// A directory for processes of `executable`.
    pub(super) fn prepare(executable: PathBuf) -> Result<Self, DemoError> {
        let failed = |action| move |source| DemoError::Directory { action, source };
        let prefix = "lockstep-demo-";
        let directory = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir()
            .map_err(failed("make a directory"))?;
        let places = Places::new(directory.path());
        std::fs::create_dir(places.shared()).map_err(failed("make the shared directory"))?;
        Ok(Self {
            directory: Some(directory),
            places,
            executable,
            switch: None,
            primary: None,
            backup: None,
        })
    }

    /// Starts everything; gives the address at which clients reach the guest, which answers there.
    pub(super) async fn start(&mut self, image: &Path, timeout_ms: u64) -> Result<SocketAddr, DemoError> {
        progress::note("starting the switch");
        let address = self.start_switch().await?;
        progress::note("starting the primary");
        let arguments = self.places.replica("primary", image, timeout_ms);
        let primary = Process::start(&self.executable, "primary", &arguments, &self.places, false)?;
        let primary = self.primary.insert(primary);
        await_event(
            primary,
            &self.places.report("primary"),
            "listening",
            "starting the primary",
        )
        .await?;
        progress::note("starting the backup");
        let arguments = self.places.replica("backup", image, timeout_ms);
        let backup = Process::start(&self.executable, "backup", &arguments, &self.places, false)?;
        let backup = self.backup.insert(backup);
        await_event(
            backup,
            &self.places.report("backup"),
            "protected",
            "protecting the guest",
        )
        .await?;
        progress::note("waiting for the guest");
        self.await_guest(address).await?;
        Ok(address)
    }

    async fn start_switch(&mut self) -> Result<SocketAddr, DemoError> {
        let arguments = self.places.switch();
        let switch = Process::start(&self.executable, "switch", &arguments, &self.places, true)?;
        let switch = self.switch.insert(switch);
        let mut line = String::new();
        if let Some(output) = switch.child().stdout.take() {
            let read = timeout(START_TIME_MAX, BufReader::new(output).read_line(&mut line)).await;
            read.map_err(|_| late("starting the switch", switch))?
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
                Err(late("starting the switch", switch))
            }
        }
    }

    async fn await_guest(&mut self, address: SocketAddr) -> Result<(), DemoError> {
        let deadline = Instant::now() + START_TIME_MAX;
        let ping = vec![b"PING".to_vec()];
        loop {
            let answered = async { Connection::open(address).await?.ask(&ping).await };
            if matches!(answered.await, Ok(Reply::Simple(_))) {
                return Ok(());
            }
            self.check()?;
            if Instant::now() > deadline {
                let messages = self.primary.as_ref().map(Process::messages).unwrap_or_default();
                return Err(DemoError::NotInTime {
                    what: "the guest's first answer",
                    limit: START_TIME_MAX,
                    messages,
                });
            }
            sleep(CONNECT_INTERVAL).await;
        }
    }

    /// An error where any process has ended.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        self.processes().try_for_each(Process::check)
    }

    /// The primary, and the backup.
    pub(super) fn pair(&mut self) -> Option<(&mut Process, &mut Process)> {
        Some((self.primary.as_mut()?, self.backup.as_mut()?))
    }

    /// What the primary and the backup have reported.
    pub(super) fn reports(&self) -> (ReplicaReport, ReplicaReport) {
        let read = |role| ReplicaReport::read(&self.places.report(role));
        (read("primary"), read("backup"))
    }

    /// Kills what still runs and removes the directory, or keeps it; gives its path then.
    pub(super) async fn clear(&mut self, keep: bool) -> Option<PathBuf> {
        for process in self.processes() {
            // What cannot be waited for was never there.
            let _ = process.kill().await;
        }
        let directory = self.directory.take()?;
        if keep { Some(directory.keep()) } else { None }
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        [&mut self.switch, &mut self.primary, &mut self.backup]
            .into_iter()
            .flatten()
    }
}

fn late(what: &'static str, process: &Process) -> DemoError {
    DemoError::NotInTime {
        what,
        limit: START_TIME_MAX,
        messages: process.messages(),
    }
}

async fn await_event(
    process: &mut Process,
    report: &Path,
    event: &str,
    what: &'static str,
) -> Result<(), DemoError> {
    let deadline = Instant::now() + START_TIME_MAX;
    while ReplicaReport::read(report).first(event).is_none() {
        process.check()?;
        if Instant::now() > deadline {
            return Err(late(what, process));
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}
