//! The command line.

use crate::commands::log::LogCommand;
use crate::commands::machines::StoreArguments;
use crate::doctor::DoctorArguments;
use crate::settings::Settings;
use clap::{Args, Parser, Subcommand, ValueEnum};
use lockstep_logging_channel::FORMAT_VERSION;
use std::path::PathBuf;

/// The flag that asks for settings only: no image and no log are needed for it.
const PRINT_CONFIG: &str = "print_config";

const AFTER_HELP: &str = "\
Exit statuses:
  0  all went well               40  a replay differs from its log
  1  the guest failed            41  fenced: another machine of the pair has gone on
  2  wrong usage                 42  the log is damaged
  3  wrong configuration or file 43  the peer or the environment does not match
  4  the host lacks something

Try it:
  lockstep doctor
  make guests && lockstep run guest-images/build/smoke.elf
  lockstep demo";

const AFTER_REPLICA_HELP: &str = "\
The shared directory remembers the machine by its name. A start looks there first:
  nobody has begun the machine, or its guest has ended      begins it
  its holder and every backup are proven dead (this host)   begins it anew
  its holder answers                                        joins it, and becomes its backup
  its holder does not answer                                says so, and waits; --afresh if it is gone for good

Try it, twice, in two terminals; then kill one, and start it again:
  lockstep replica --name web key-value.elf --network switch:pair/switch --shared-directory pair
  lockstep status web --shared-directory pair";

/// Fault tolerance for virtual machines: records and replays a guest in lockstep on stock KVM
#[derive(Clone, Debug, Parser)]
#[command(name = "lockstep", version = version(), after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// How to talk
    #[command(flatten)]
    pub talk: Talk,
}

/// The version without the build, which takes a look at the whole program: [`full_version`].
fn version() -> &'static str {
    concat!(env!("CARGO_PKG_VERSION"), " (log format version 1)")
}

/// What `--version` prints.
#[must_use]
pub fn full_version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let build = lockstep_host::build::shown();
    format!("lockstep {version} build {build} (log format version {FORMAT_VERSION})\n")
}

/// How the program talks on standard error.
#[derive(Clone, Debug, Args)]
pub struct Talk {
    /// Say more; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Say only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// How messages on standard error look
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

/// Form of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// JSON lines.
    Json,
}

/// A machine: its image and settings.
#[derive(Clone, Debug, Args)]
pub struct MachineArguments {
    /// The guest image (ELF64)
    #[arg(required_unless_present = PRINT_CONFIG)]
    pub image: Option<PathBuf>,
    /// Flags
    #[command(flatten)]
    pub settings: Settings,
    /// Read settings from this TOML file; flags win over it
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<PathBuf>,
    /// Measure this host anew, and do not look up what was found since it started
    #[arg(long, help_heading = "Host")]
    pub requalify: bool,
    /// Print the settings that would hold, as a TOML file, and end
    #[arg(id = PRINT_CONFIG, long = "print-config", help_heading = "Configuration")]
    pub print_config: bool,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a guest, unprotected
    Run(#[command(flatten)] MachineArguments),
    /// Run a guest and record everything that enters it into a log
    Record {
        /// The machine
        #[command(flatten)]
        machine: MachineArguments,
        /// The log file to write
        #[arg(long, value_name = "FILE", required_unless_present = PRINT_CONFIG)]
        log: Option<PathBuf>,
        /// Replace the log file if it exists
        #[arg(long)]
        overwrite: bool,
    },
    /// Replay a log and compare every output and digest with it
    Replay {
        /// The machine
        #[command(flatten)]
        machine: MachineArguments,
        /// The log file to read
        #[arg(long, value_name = "FILE", required_unless_present = PRINT_CONFIG)]
        log: Option<PathBuf>,
    },
    /// Record a guest once, replay it several times, compare everything
    Verify {
        /// The machine
        #[command(flatten)]
        machine: MachineArguments,
        /// Number of replays, 1 or more
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
    },
    /// Begin a machine and run it as the primary, once its backup is there; refused where somebody
    /// holds the machine already
    Primary(#[command(flatten)] MachineArguments),
    /// Run the backup of a machine that another side holds, or is about to begin
    Backup(#[command(flatten)] MachineArguments),
    /// Run a side of a machine: begins it, or joins it as its backup, or waits; the same
    /// command on every host, at every start
    #[command(after_help = AFTER_REPLICA_HELP)]
    Replica {
        /// The machine
        #[command(flatten)]
        machine: MachineArguments,
        /// Begin a new machine in place of one that is gone for good; refused while its holder
        /// gives a sign of life
        #[arg(long)]
        afresh: bool,
    },
    /// Machines that a shared directory remembers: which are protected, and why not
    List(#[command(flatten)] StoreArguments),
    /// One machine: who takes part, where, since when it is protected, or why it is not
    Status {
        /// Its name
        name: String,
        /// Store to look into, and output format
        #[command(flatten)]
        store: StoreArguments,
    },
    /// The network between a pair and its clients, outside the fault domain
    Switch(lockstep_switch::SwitchArguments),
    /// See a protected machine lose its processes under load, one after another, and its clients
    /// not notice
    Demo(lockstep_demo::DemoArguments),
    /// Find out by measurement what this host is good for
    Doctor(#[command(flatten)] DoctorArguments),
    /// Look into log files
    #[command(subcommand)]
    Log(LogCommand),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_demonstration_has_the_timeout_of_every_pair() {
        let defaults = Settings::defaults();
        assert_eq!(defaults.timeout_ms, Some(lockstep_demo::TIMEOUT_MS));
    }

    #[test]
    fn the_version_names_the_log_format() {
        assert!(version().ends_with(&format!("(log format version {FORMAT_VERSION})")));
    }
}
