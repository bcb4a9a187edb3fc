//! The command line.

use crate::commands::disk::DiskCommand;
use crate::commands::inspect::InspectArguments;
use crate::commands::log::LogCommand;
use crate::commands::machines::StoreArguments;
use crate::commands::switchover::SwitchoverArguments;
use crate::doctor::DoctorArguments;
use crate::settings::{PAIR_HEADING, Settings};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use lockstep_host::recording::pieces::From;
use lockstep_host::recording::taking::EVERY_MIN;
use lockstep_logging_channel::FORMAT_VERSION;
use lockstep_process::console::KEYS;
use lockstep_process::time::parse_time;
use std::path::PathBuf;
use std::time::Duration;

/// The flag that asks for settings only: no image and no log are needed for it.
const PRINT_CONFIG: &str = "print_config";

/// Arguments of a machine that has an outside, and what they are not for.
const LIVE_ONLY: [(&str, &str); 2] = [
    (
        "network",
        "not for a replay: its frames are in the log, and those it sends go nowhere",
    ),
    (
        "event_latency_ms",
        "not for a replay: the log says where something enters",
    ),
];

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

const AFTER_RUN_HELP: &str = "\
Try it:
  lockstep run guest-images/build/smoke.elf
  lockstep run --kernel vmlinuz --initrd shell.initrd     (`make guests-debian` makes both)";

const AFTER_RECORD_HELP: &str = "\
Snapshots are files in the folder LOG.snapshots; `lockstep log info LOG` lists them. A machine with disks
has there, for each, what was written to them since the one before; the images stay as they are.
A snapshot that the disk has no room for is given up, and the recording goes on.

Try it:
  lockstep record key-value.elf --log log --snapshot-every 10s --network switch:pair/switch
  lockstep replay key-value.elf --log log --from last";

const AFTER_REPLAY_HELP: &str = "\
`lockstep log info LOG` lists the snapshots of a recording: the entries that --from finds.";

const AFTER_VERIFY_HELP: &str = "\
A recording with snapshots is replayed in pieces, one for each processor at a time, as far as there is
memory for so many guests. At the end of a piece the machine has to be equal to the next snapshot.";

const AFTER_SWITCHOVER_HELP: &str = "\
The backup becomes the primary, and the primary its backup, without a hand on either side:
  the guest stands for some milliseconds, everything that it has said has left, and the backup goes on
  what has been the primary joins anew; until it is armed, the loss of the new primary is the end of the guest
If the backup is lost on the way, the primary goes on. Both sides must run.

Empty a host of its primaries, then stop what is left there, and look after the host:
  lockstep switchover web --shared-directory pair
  lockstep status web --shared-directory pair";

const AFTER_INSPECT_HELP: &str = "\
Nothing is run. For each file it says
  sites      instructions that tell of the host: a kernel's or guest image's become exits
  hidden     others, which the fixed CPUID hides: they are left as they are
  module     modules of an initrd with sites: modules are not rewritten, so they are refused
  result     whether it can be used, and why not

The status is 0 if all files can be used, 3 if one is refused or cannot be read.

Try it:
  lockstep inspect /boot/vmlinuz-* /boot/initrd.img-*
  lockstep inspect --json guest-images/build/entropy.elf";

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

/// Text below the options of a command whose guest may have a console.
fn beside_keys(text: &str) -> String {
    format!("{KEYS}\n\n{text}")
}

/// The version without the build, which takes a look at the whole program: [`full_version`].
fn version() -> &'static str {
    concat!(env!("CARGO_PKG_VERSION"), " (log format version 2)")
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

/// A machine: its guest and settings.
#[derive(Clone, Debug, Args)]
pub struct MachineArguments {
    /// The guest: an image that was written for Lockstep (ELF64). A Linux is named by --kernel
    #[arg(required_unless_present_any = [PRINT_CONFIG, "kernel"], conflicts_with = "kernel")]
    pub image: Option<PathBuf>,
    /// The guest: a kernel of Linux as a distribution ships it (bzImage or vmlinux), in place of an
    /// image; needs a host whose KVM runs kernels in ring 0 (`lockstep doctor`)
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    pub kernel: Option<PathBuf>,
    /// Initial ramdisk of the kernel (cpio, compressed or not). Its modules are not rewritten: those
    /// that read the host are refused by name
    #[arg(
        long,
        value_name = "FILE",
        requires = "kernel",
        conflicts_with = "image",
        help_heading = "Machine"
    )]
    pub initrd: Option<PathBuf>,
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

/// Arguments of a machine without a pair: those that its command does not use are not listed, and
/// refused. `REPLAYS`: it lives by a log alone.
#[derive(Clone, Debug)]
pub struct Alone<A, const REPLAYS: bool = false>(pub A);

impl<A: Args, const REPLAYS: bool> Args for Alone<A, REPLAYS> {
    fn augment_args(command: clap::Command) -> clap::Command {
        A::augment_args(command).mut_args(|argument| {
            let is_hidden = not_used(&argument, REPLAYS).is_some();
            argument.hide(is_hidden)
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl<A: Args, const REPLAYS: bool> FromArgMatches for Alone<A, REPLAYS> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let all = A::augment_args(clap::Command::new("alone"));
        for argument in all.get_arguments() {
            let is_given = matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine);
            if let Some(why) = not_used(argument, REPLAYS).filter(|_| is_given) {
                let name = argument.get_long().unwrap_or_default();
                return Err(clap::Error::raw(
                    ErrorKind::UnknownArgument,
                    format!("--{name} is {why}"),
                ));
            }
        }
        A::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Purpose of an argument, where a machine without a pair does not use it.
fn not_used(argument: &Arg, replays: bool) -> Option<&'static str> {
    if argument.get_help_heading() == Some(PAIR_HEADING) {
        Some("for a side of a pair: `lockstep primary`, `backup` or `replica`")
    } else if replays {
        let id = argument.get_id().as_str();
        LIVE_ONLY
            .iter()
            .find_map(|(live, why)| (*live == id).then_some(*why))
    } else {
        None
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let every = parse_time(text)?;
    if every < EVERY_MIN {
        return Err(format!("write {} ms or more", EVERY_MIN.as_millis()));
    }
    Ok(every)
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a guest, unprotected
    #[command(after_help = beside_keys(AFTER_RUN_HELP))]
    Run(#[command(flatten)] Alone<MachineArguments>),
    /// Run a guest and record everything that enters it into a log
    #[command(after_help = beside_keys(AFTER_RECORD_HELP))]
    Record {
        /// The machine
        #[command(flatten)]
        machine: Alone<MachineArguments>,
        /// The log file to write
        #[arg(long, value_name = "FILE", required_unless_present = PRINT_CONFIG)]
        log: Option<PathBuf>,
        /// Replace the log file if it exists, and its snapshots
        #[arg(long)]
        overwrite: bool,
        /// Write a snapshot of the machine each so often, in seconds, or with a unit as in 500ms,
        /// at least 100ms: replays can begin there. Each has the memory that the guest uses,
        /// compressed
        #[arg(long, value_name = "TIME", value_parser = parse_interval)]
        snapshot_every: Option<Duration>,
    },
    /// Replay a log and compare every output and digest with it
    #[command(after_help = AFTER_REPLAY_HELP)]
    Replay {
        /// The machine
        #[command(flatten)]
        machine: Alone<MachineArguments, true>,
        /// The log file to read
        #[arg(long, value_name = "FILE", required_unless_present = PRINT_CONFIG)]
        log: Option<PathBuf>,
        /// Begin at the newest snapshot at or before this entry, or at the newest of all with
        /// `last`. Entries before the snapshot are not looked at
        #[arg(long, value_name = "ENTRY")]
        from: Option<From>,
    },
    /// Record a guest once, replay it several times, compare everything
    #[command(after_help = AFTER_VERIFY_HELP)]
    Verify {
        /// The machine
        #[command(flatten)]
        machine: Alone<MachineArguments>,
        /// Number of replays, 1 or more [default: 3; of a log 1]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        runs: Option<u32>,
        /// Verify this log, and record nothing
        #[arg(long, value_name = "FILE", conflicts_with = "snapshot_every")]
        log: Option<PathBuf>,
        /// Write a snapshot each so often while the guest is recorded, as `lockstep record` does,
        /// and replay the pieces between them at the same time
        #[arg(long, value_name = "TIME", value_parser = parse_interval)]
        snapshot_every: Option<Duration>,
    },
    /// Begin a machine and run it as the primary, once its backup is there; refused where somebody
    /// holds the machine already
    #[command(after_help = KEYS)]
    Primary(#[command(flatten)] MachineArguments),
    /// Run the backup of a machine that another side holds, or is about to begin
    #[command(after_help = KEYS)]
    Backup(#[command(flatten)] MachineArguments),
    /// Run a side of a machine: begins it, or joins it as its backup, or waits; the same
    /// command on every host, at every start
    #[command(after_help = beside_keys(AFTER_REPLICA_HELP))]
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
    /// Make the backup of a machine its primary, and the primary its backup
    #[command(after_help = AFTER_SWITCHOVER_HELP)]
    Switchover(#[command(flatten)] SwitchoverArguments),
    /// The network between a pair and its clients, outside the fault domain
    Switch(lockstep_switch::SwitchArguments),
    /// See a protected machine lose its processes under load, one after another, and its clients
    /// not notice
    Demo(lockstep_demo::DemoArguments),
    /// Find out by measurement what this host is good for
    Doctor(#[command(flatten)] DoctorArguments),
    /// Tell what files are, and whether a machine could have them: guest images, Linux kernels,
    /// modules, initrds
    #[command(after_help = AFTER_INSPECT_HELP)]
    Inspect(#[command(flatten)] InspectArguments),
    /// Look into log files
    #[command(subcommand)]
    Log(LogCommand),
    /// Make images of disks, and look into them
    #[command(subcommand)]
    Disk(DiskCommand),
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
