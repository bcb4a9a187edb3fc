//! Arguments of a demonstration.

use lockstep_process::time::parse_time;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::DemoError;

/// Silence after which a replica gives up the other, in milliseconds, unless it is told otherwise:
/// that of every pair.
pub const TIMEOUT_MS: u64 = 200;

/// The replica that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kill {
    /// The one that runs the guest.
    Primary,
    /// The one that follows it.
    Backup,
    /// None: the pair runs undisturbed.
    None,
}

/// The manner of its loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KillSignal {
    /// SIGKILL: it is gone.
    Kill,
    /// SIGSTOP: it falls silent, and is woken in the middle of what remains.
    Stop,
}

/// How a backup follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// It replays what entered the guest.
    #[default]
    Replay,
    /// It is sent the guest's state again and again, and does not run.
    Checkpoint,
}

/// Text below the options.
const AFTER_HELP: &str = "\
A round: the primary is lost under load, its backup goes on, and a new backup joins, to which the machine is \
copied while its guest runs. When that one is armed the next round begins, and the side that went on is lost \
too. The last round ends without a new backup. All clients keep their connections throughout.

With --kill backup    the backup is lost in each round, and the same primary goes on
With --kill none      nothing is lost in the time of one round; --rounds changes nothing
With --signal stop    the lost side is woken halfway through the rest of its round,
                      and must end with status 41 (fenced); then a new backup joins
With --mode checkpoint
                      a backup does not replay the guest: it is sent the guest's state every
                      --epoch-ms, and replies wait for that; a survivor goes on from the last
                      state that it has whole

Try it:
  lockstep demo                                    three losses, one after another
  lockstep demo --rounds 1 --json                  one, for a program
  lockstep demo --rounds 2 --transfer-mbit 1       watch the memory being copied
  lockstep demo --signal stop --timeout-ms 500     sides that fall silent, and wake
  lockstep demo --mode checkpoint --epoch-ms 10    as for a guest that cannot be replayed
  lockstep demo --kernel vmlinuz --initrd redis.initrd --timeout-ms 1000
                                                   Debian's Linux, and its redis-server";

/// Arguments of `lockstep demo`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = AFTER_HELP)]
pub struct DemoArguments {
    /// Losses, one after another, 1 to 100; before each but the first a new backup joins
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = parse_rounds)]
    pub rounds: u16,

    /// Which replica to lose in each round
    #[arg(long, value_enum, default_value_t = Kill::Primary)]
    pub kill: Kill,

    /// How to lose it: kill it, or stop it and wake it again later
    #[arg(long, value_enum, default_value_t = KillSignal::Kill)]
    pub signal: KillSignal,

    /// How a backup follows: by replay, or by checkpoints as for a guest that cannot be replayed
    #[arg(long, value_enum, default_value_t = Mode::Replay)]
    pub mode: Mode,

    /// Time from one checkpoint to the next, in milliseconds, with --mode checkpoint [default: that
    /// of every pair]
    #[arg(long, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(5..=10_000))]
    pub epoch_ms: Option<u64>,

    /// Time under load before that, in each round, in seconds, or with a unit as in 500ms
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = parse_time)]
    pub after: Duration,

    /// Time under load of a round in all; what a new backup needs to join comes on top
    #[arg(long, value_name = "TIME", default_value = "6", value_parser = parse_time)]
    pub duration: Duration,

    /// Bandwidth for the memory that a new backup is sent, in Mbit/s; 0 for what the channel takes
    #[arg(long, value_name = "MBIT", default_value_t = 0)]
    pub transfer_mbit: u32,

    /// Concurrent clients, each on a TCP connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub clients: u16,

    /// Silence, in milliseconds, after which a replica gives up the other: more on a host that is
    /// busy
    #[arg(long, value_name = "MILLISECONDS", default_value_t = TIMEOUT_MS,
        value_parser = clap::value_parser!(u64).range(50..=2000))]
    pub timeout_ms: u64,

    /// Makes the clients' requests; the same seed asks the same [default: random, printed]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Print the result as one JSON object on the last line
    #[arg(long)]
    pub json: bool,

    /// The key-value guest [default: guest-images/build/key-value.elf, looked for beside the
    /// executable and here]
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,

    /// Debian's Linux with its redis-server in place of the key-value guest: its kernel
    /// (`make guests-debian` makes guest-images/build/debian/vmlinuz); needs a host whose KVM runs
    /// kernels in ring 0 (`lockstep doctor`)
    #[arg(long, value_name = "FILE", requires = "initrd", conflicts_with = "image")]
    pub kernel: Option<PathBuf>,

    /// Initial ramdisk of that kernel, which starts a redis-server on port 6379 of 10.0.2.15
    /// (guest-images/build/debian/redis.initrd)
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,

    /// Keep the directory with the reports and messages of the processes, and say where it is
    #[arg(long)]
    pub keep: bool,
}

/// Most rounds: every side has a process while it lives, and files to the end.
const ROUNDS_MAX: u16 = 100;

fn parse_rounds(text: &str) -> Result<u16, String> {
    let rounds = text.parse().ok();
    rounds
        .filter(|rounds| (1..=ROUNDS_MAX).contains(rounds))
        .ok_or_else(|| {
            format!(
                "write a number from 1 to {ROUNDS_MAX}: each round takes the time of --duration, and longer"
            )
        })
}

impl DemoArguments {
    /// Refuses times that contradict each other, and one that nothing uses.
    ///
    /// # Errors
    /// [`DemoError::EpochUnused`], [`DemoError::Times`], [`DemoError::StopTooShort`].
    pub fn check(&self) -> Result<(), DemoError> {
        if let (Mode::Replay, Some(epoch_ms)) = (self.mode, self.epoch_ms) {
            return Err(DemoError::EpochUnused { epoch_ms });
        }
        if self.kill != Kill::None && self.after >= self.duration {
            return Err(DemoError::Times {
                after: self.after,
                duration: self.duration,
            });
        }
        if self.kill != Kill::None && self.signal == KillSignal::Stop {
            // It is woken halfway through the rest. Twice the timeout: noticing takes up to one,
            // claiming comes after.
            let stopped = (self.duration - self.after) / 2;
            let needed = 2 * Duration::from_millis(self.timeout_ms);
            if stopped < needed {
                return Err(DemoError::StopTooShort {
                    stopped,
                    timeout_ms: self.timeout_ms,
                    more: 2 * (needed - stopped),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: DemoArguments,
    }

    fn parsed(line: &str) -> Result<DemoArguments, clap::Error> {
        Command::try_parse_from(line.split(' ')).map(|command| command.arguments)
    }

    #[test]
    fn alone_it_kills_three_primaries_under_eight_clients() {
        let arguments = parsed("demo").unwrap();
        assert_eq!(
            (arguments.kill, arguments.signal, arguments.clients),
            (Kill::Primary, KillSignal::Kill, 8)
        );
        assert_eq!(
            (arguments.after, arguments.duration),
            (Duration::from_secs(2), Duration::from_secs(6))
        );
        assert_eq!(arguments.rounds, 3);
        assert!(arguments.check().is_ok());
    }

    #[test]
    fn a_number_of_rounds_that_is_refused_comes_with_a_hint() {
        let refused = parsed("demo --rounds 0").unwrap_err().to_string();
        assert!(refused.contains("from 1 to 100"), "{refused}");
    }

    #[test]
    fn times_have_units() {
        let arguments = parsed("demo --after 250ms --duration 1.5s --kill backup --signal stop").unwrap();
        assert_eq!(arguments.after, Duration::from_millis(250));
        assert_eq!(arguments.duration, Duration::from_millis(1500));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "demo --after -1",
            "demo --after soon",
            "demo --duration 9e9",
            "demo --clients 0",
            "demo --kill both",
            "demo --timeout-ms 2001",
            "demo --rounds 0",
            "demo --rounds -1",
            "demo --rounds 101",
            "demo --rounds 99999999999999999999",
            "demo --rounds many",
            "demo --mode snapshots",
            "demo --mode checkpoint --epoch-ms 4",
            "demo --mode checkpoint --epoch-ms 10001",
            "demo --kernel vmlinuz",
            "demo --initrd redis.initrd",
            "demo --image key-value.elf --kernel vmlinuz --initrd redis.initrd",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(matches!(
            parsed("demo --after 7").unwrap().check(),
            Err(DemoError::Times { .. })
        ));
        assert!(parsed("demo --after 7 --kill none").unwrap().check().is_ok());
        let unused = parsed("demo --epoch-ms 20").unwrap().check();
        assert!(matches!(unused, Err(DemoError::EpochUnused { epoch_ms: 20 })));
        let used = parsed("demo --mode checkpoint --epoch-ms 20").unwrap();
        assert!(used.check().is_ok());
    }

    #[test]
    fn a_stop_that_the_timeout_outlasts_is_refused_with_the_time_that_is_missing() {
        let check = |rest: &str| {
            parsed(&format!("demo --after 1 --timeout-ms 1000 {rest}"))
                .unwrap()
                .check()
        };
        let refused = check("--duration 2 --signal stop").unwrap_err().to_string();
        assert!(refused.contains("longer by 3s"), "{refused}");
        assert!(check("--duration 5 --signal stop").is_ok());
        assert!(check("--duration 2 --signal kill").is_ok());
        assert!(check("--duration 2 --signal stop --kill none").is_ok());
    }
}
