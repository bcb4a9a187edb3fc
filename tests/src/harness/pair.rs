//! A protected pair as its user starts it.

use super::linux::{Linux, QUIET};
use super::process::{Redirect, Stream};
use super::proxy::Proxy;
use super::redis::Client;
use super::replica::Replica;
use super::scratch::Scratch;
use super::switch::Switch;
use super::{Boots, SLOWNESS, lockstep};
use std::path::PathBuf;
use std::process::Command;

/// Silence after which a peer is given up: long, so that a busy machine causes no failover of its
/// own.
const TIMEOUT_MS: u64 = 4_000 * SLOWNESS;
/// How far behind a backup may be: as long as a test may take.
const LAG_MS_MAX: &str = "60000";

/// Network that a pair is to have.
#[derive(Clone, Copy, Debug)]
enum Network {
    Captured,
    Quiet,
    /// Quiet, and leads to this TCP port of the guest.
    QuietTo(u16),
}

impl Network {
    fn start(self, scratch: &Scratch) -> Switch {
        match self {
            Self::Captured => Switch::start(scratch),
            Self::Quiet => Switch::start_quiet(scratch),
            Self::QuietTo(port) => Switch::start_quiet_to(scratch, port),
        }
    }
}

/// How a pair is to be started.
#[derive(Clone, Debug)]
pub struct PairSpec {
    boots: Boots,
    settings: Vec<(String, String)>,
    switch: Option<Network>,
    interfaces: Option<[&'static str; 2]>,
    proxy: bool,
    held: bool,
    environment: Vec<(&'static str, String, String)>,
    redirects: Vec<(&'static str, Redirect)>,
    disks: Option<[String; 2]>,
}

impl PairSpec {
    /// A pair of what `boots`, without a network.
    #[must_use]
    pub fn new(boots: impl Into<Boots>) -> Self {
        let spec = Self {
            boots: boots.into(),
            settings: Vec::new(),
            switch: None,
            interfaces: None,
            proxy: false,
            held: false,
            environment: Vec::new(),
            redirects: Vec::new(),
            disks: None,
        };
        spec.setting("timeout-ms", &TIMEOUT_MS.to_string())
            .setting("lag-ms-max", LAG_MS_MAX)
    }

    /// A pair of a Debian guest with this text for its kernel, and with a switch that captures
    /// nothing and leads to what it serves.
    #[must_use]
    pub fn serving(guest: Linux, command_line: &str) -> Self {
        Self::new(guest)
            .with_quiet_switch_to(guest.port())
            .setting("memory-mib", guest.memory_mib())
            .setting("command-line", &format!("{QUIET} {command_line}"))
    }

    /// With a switch, and the pair attached to it.
    #[must_use]
    pub fn with_switch(self) -> Self {
        Self {
            switch: Some(Network::Captured),
            ..self
        }
    }

    /// With a switch that captures nothing.
    #[must_use]
    pub fn with_quiet_switch(self) -> Self {
        Self {
            switch: Some(Network::Quiet),
            ..self
        }
    }

    /// The same, and its clients come to TCP port `port` of the guest.
    #[must_use]
    pub fn with_quiet_switch_to(self, port: u16) -> Self {
        Self {
            switch: Some(Network::QuietTo(port)),
            ..self
        }
    }

    /// With the primary and the backup on these TAP interfaces.
    #[must_use]
    pub fn with_interfaces(self, interfaces: [&'static str; 2]) -> Self {
        Self {
            interfaces: Some(interfaces),
            ..self
        }
    }

    /// With these disks of the primary and of the backup, as `--disk` takes them.
    #[must_use]
    pub fn with_disks(self, disks: [String; 2]) -> Self {
        Self {
            disks: Some(disks),
            ..self
        }
    }

    /// With a wire between the two that the test can hold and cut.
    #[must_use]
    pub fn with_proxy(self) -> Self {
        Self { proxy: true, ..self }
    }

    /// With a wire that holds acknowledgements back from the start.
    #[must_use]
    pub fn with_held_acknowledgements(self) -> Self {
        Self {
            held: true,
            ..self.with_proxy()
        }
    }

    /// With this setting on both sides.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this environment variable for the side that is called `role`.
    #[must_use]
    pub fn variable(mut self, role: &'static str, name: &str, value: &str) -> Self {
        self.environment.push((role, name.to_owned(), value.to_owned()));
        self
    }

    /// With a stream of the side that is called `role` to elsewhere.
    #[must_use]
    pub fn redirect(mut self, role: &'static str, stream: Stream, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.redirects.push((role, Redirect { stream, path }));
        self
    }

    /// Starts it, and waits until the guest is protected.
    ///
    /// # Panics
    /// It does not come to that.
    #[must_use]
    pub fn start(&self) -> Pair {
        self.start_in(Scratch::new())
    }

    /// The same, with everything in `scratch`. The storage is its directory `shared`.
    ///
    /// # Panics
    /// As [`PairSpec::start`].
    #[must_use]
    pub fn start_in(&self, scratch: Scratch) -> Pair {
        let switch = self.switch.map(|network| network.start(&scratch));
        let (shared, channel) = (scratch.directory("shared"), scratch.join("channel"));
        let proxy = self.proxy.then(|| Proxy::start(&scratch.join("wire"), &channel));
        if self.held {
            proxy.as_ref().into_iter().for_each(Proxy::hold_acknowledgements);
        }
        let direct = format!("unix:{}", channel.display());
        let wire = proxy.as_ref().map_or_else(|| direct.clone(), Proxy::address);
        let side = |role: &str, channel: &str| {
            let report = scratch.join(&format!("{role}.jsonl"));
            let mut command = self.command(role, channel, &shared, &report);
            if let Some(switch) = &switch {
                command.arg("--network").arg(switch.attachment());
            }
            if let Some([first, second]) = self.interfaces {
                let interface = if role == "primary" { first } else { second };
                command.arg(format!("--network=tap:{interface}"));
            }
            if let Some([first, second]) = &self.disks {
                let disk = if role == "primary" { first } else { second };
                command.args(["--disk", disk]);
            }
            let redirects: Vec<Redirect> = self
                .redirects
                .iter()
                .filter(|(of, _)| *of == role)
                .map(|(_, redirect)| redirect.clone())
                .collect();
            Replica::start_redirected(role, &mut command, report, &redirects)
        };
        let mut primary = side("primary", &direct);
        primary.wait_for("listening");
        let mut backup = side("backup", &wire);
        primary.wait_for("protected");
        backup.wait_for("protected");
        Pair {
            primary,
            backup,
            proxy,
            switch,
            shared,
            scratch,
            spec: self.clone(),
        }
    }

    /// The command of one side.
    #[must_use]
    pub fn command(
        &self,
        role: &str,
        channel: &str,
        shared: &std::path::Path,
        report: &std::path::Path,
    ) -> Command {
        let mut command = lockstep();
        command
            .arg(role)
            .args(self.boots.arguments())
            .args(["--channel", channel]);
        command
            .arg("--shared-directory")
            .arg(shared)
            .arg("--report")
            .arg(report);
        for (name, value) in &self.settings {
            command.arg(format!("--{name}={value}"));
        }
        for (_, name, value) in self.environment.iter().filter(|(of, ..)| *of == role) {
            command.env(name, value);
        }
        command
    }
}

/// A running pair. Dropped, its processes are killed, then its network, then its files.
#[derive(Debug)]
pub struct Pair {
    /// The primary.
    pub primary: Replica,
    /// The backup.
    pub backup: Replica,
    /// The wire between them, where one was asked for.
    pub proxy: Option<Proxy>,
    /// Their network, where one was asked for.
    pub switch: Option<Switch>,
    /// Where the test-and-set is made.
    pub shared: PathBuf,
    /// Where everything is.
    pub scratch: Scratch,
    /// Specification with which it was started.
    pub spec: PairSpec,
}

impl Pair {
    /// The wire.
    ///
    /// # Panics
    /// None was asked for.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a pair with a proxy")
    }

    /// The network.
    ///
    /// # Panics
    /// None was asked for.
    #[must_use]
    pub fn switch(&self) -> &Switch {
        self.switch.as_ref().expect("a pair with a switch")
    }

    /// Starts `lockstep backup` again, as `name`, with the settings of the pair.
    #[must_use]
    pub fn another_backup(&self, name: &str) -> Replica {
        self.another_backup_with(name, |_| ())
    }

    /// The same, with a command line that `change` has changed.
    #[must_use]
    pub fn another_backup_with(&self, name: &str, change: impl FnOnce(&mut Command)) -> Replica {
        let report = self.scratch.join(&format!("{name}.jsonl"));
        let channel = format!("unix:{}", self.scratch.join("channel").display());
        let mut command = self.spec.command("backup", &channel, &self.shared, &report);
        if let Some(switch) = &self.switch {
            command.arg("--network").arg(switch.attachment());
        }
        change(&mut command);
        Replica::start(name, &mut command, report)
    }

    /// A new client, connected and answered.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(self.switch().client_address())
    }
}
