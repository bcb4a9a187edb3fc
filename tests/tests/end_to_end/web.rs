//! Sides of a machine called `web`, on one network and one shared directory.

use lockstep_tests::harness::{Client, Guest, Load, Replica, Reply, Scratch, Switch, lockstep, wait_until};
use std::process::Command;

pub const CLIENTS: usize = 8;
/// Long, so that a busy machine causes no failover of its own.
pub const TIMEOUT_MS: &str = "4000";
/// As long as a test may take.
pub const LAG_MS_MAX: &str = "60000";
/// The least that goes with the timeout: a newcomer is not armed while it is a second behind.
pub const LAG_MS_MIN: &str = "2000";

/// Waits until `holder` has armed `newcomer`.
pub fn expect_armed(holder: &mut Replica, newcomer: &mut Replica) {
    newcomer.wait_for("armed");
    holder.wait_for_count("armed", 1);
}

/// Waits until the status names both sides.
pub fn expect_both_in_the_status(web: &Web, holder: &Replica, newcomer: &Replica) {
    let expected = [
        ("primary", holder.process.id()),
        ("backup", newcomer.process.id()),
    ];
    let names = |status: &serde_json::Value| {
        expected
            .iter()
            .zip(status["sides"].as_array().into_iter().flatten())
            .all(|((role, process), side)| side["role"] == *role && side["process"] == *process)
            && status["sides"].as_array().is_some_and(|sides| sides.len() == 2)
    };
    wait_until(
        || Some(web.status()).filter(|status| names(status) && status["protected"] == true),
        || format!("both sides in the status: {}", web.status()),
    );
}

/// Kills `holder`, and waits until `newcomer` serves `load`. Gives what it said when it went live.
pub fn take_over(holder: &mut Replica, newcomer: &mut Replica, load: &Load) -> serde_json::Value {
    let _ = holder.process.kill();
    let live = newcomer.wait_for("live");
    load.wait_for_more(50);
    live
}

pub fn expect_good_end(survivor: &mut Replica) {
    let _ = survivor.stop().expect_code(0);
    assert_eq!(survivor.count("diverged"), 0);
}

/// The same, with the load that it has served.
pub fn expect_good_end_of(load: Load, survivor: &mut Replica) {
    load.stop_and_check();
    expect_good_end(survivor);
}

/// A network and a shared directory for the sides of the machine `web`.
pub struct Web {
    pub switch: Switch,
    pub scratch: Scratch,
    pub lag_ms_max: &'static str,
    pub guest: Guest,
    /// More of its command line.
    pub settings: &'static [&'static str],
}

impl Web {
    pub fn new() -> Self {
        let scratch = Scratch::new();
        scratch.directory("shared");
        let switch = Switch::start(&scratch);
        Self {
            switch,
            scratch,
            lag_ms_max: LAG_MS_MAX,
            guest: Guest::KeyValue,
            settings: &[],
        }
    }

    pub fn command(&self, name: &str) -> Command {
        self.command_with(self.guest, name)
    }

    pub fn command_with(&self, guest: Guest, name: &str) -> Command {
        self.command_of("replica", guest, name)
    }

    /// The same with other settings than those of all sides.
    pub fn command_with_settings(&self, name: &str, settings: &[&str]) -> Command {
        let mut command = self.bare_command("replica", self.guest, name);
        command.args(settings);
        command
    }

    /// The command `verb` for a side.
    pub fn command_of(&self, verb: &str, guest: Guest, name: &str) -> Command {
        let mut command = self.bare_command(verb, guest, name);
        command.args(self.settings);
        command
    }

    fn bare_command(&self, verb: &str, guest: Guest, name: &str) -> Command {
        let mut command = lockstep();
        command
            .arg(verb)
            .arg(guest.image())
            .args([
                "--name",
                "web",
                "--timeout-ms",
                TIMEOUT_MS,
                "--lag-ms-max",
                self.lag_ms_max,
            ])
            .arg("--network")
            .arg(self.switch.attachment())
            .arg("--shared-directory")
            .arg(self.scratch.join("shared"))
            .arg("--report")
            .arg(self.report(name));
        command
    }

    pub fn report(&self, name: &str) -> std::path::PathBuf {
        self.scratch.join(&format!("{name}.jsonl"))
    }

    /// Starts a side, which is called `name` here.
    pub fn start(&self, name: &str) -> Replica {
        self.start_by(name, self.command(name))
    }

    /// The same, by a command of its own.
    pub fn start_by(&self, name: &str, mut command: Command) -> Replica {
        Replica::start(name, &mut command, self.report(name))
    }

    /// Starts a side that `holder` arms.
    pub fn join(&self, name: &str, holder: &mut Replica) -> Replica {
        let mut newcomer = self.start(name);
        expect_armed(holder, &mut newcomer);
        newcomer
    }

    /// Starts a side by a command that is refused, with this status and these names.
    pub fn expect_refused(&self, name: &str, command: Command, code: i32, named: &[&str]) {
        let mut refused = self.start_by(name, command);
        refused.process.wait().expect_code(code).expect_named(named);
    }

    /// Starts the machine.
    pub fn begin(&self) -> Replica {
        let mut holder = self.start("first");
        holder.wait_for("listening");
        holder
    }

    /// Starts the machine with a mebibyte in its memory that compresses badly, and a channel that
    /// takes some seconds for it.
    pub fn begin_slowly(&self) -> Replica {
        let mut command = self.command("first");
        command.args(["--transfer-mbit", "1"]);
        let mut holder = self.start_by("first", command);
        holder.wait_for("listening");
        let mut client = Client::connect(self.switch.client_address());
        let mut state = 1_u32;
        for key in 0..64 {
            let digit = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(b'a' + (state >> 27) as u8 % 26)
            };
            let value: String = (0..16 << 10).map(digit).collect();
            let set = client.call(&["SET", &format!("filler{key}"), &value]);
            assert_eq!(set, Reply::ok());
        }
        // Only what the guest wrote is of interest: it stays in memory.
        for key in 0..64 {
            client.call(&["DEL", &format!("filler{key}")]);
        }
        holder
    }

    pub fn load(&self) -> Load {
        Load::start(self.switch.client_address(), CLIENTS)
    }

    /// Returns the output of `lockstep status`.
    pub fn status(&self) -> serde_json::Value {
        let mut command = lockstep();
        command.args(["status", "web", "--json", "--shared-directory"]);
        let output = command.arg(self.scratch.join("shared")).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }
}
