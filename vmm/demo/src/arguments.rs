//! What a demonstration is told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::DemoError;

/// Silence after which a replica gives up the other, in milliseconds, unless it is told otherwise:
/// that of every pair.
pub const TIMEOUT_MS: u64 = 200;

/// Which replica is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kill {
    /// The one that runs the guest.
    Primary,
    /// The one that follows it.
    Backup,
    /// None: the pair runs undisturbed.
    None,
}

/// How it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KillSignal {
    /// SIGKILL: it is gone.
    Kill,
    /// SIGSTOP: it falls silent, and is woken in the middle of what remains.
    Stop,
}

/// Arguments of `lockstep demo`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct DemoArguments {
    /// Which replica to lose
    #[arg(long, value_enum, default_value_t = Kill::Primary)]
    pub kill: Kill,

    /// How to lose it: kill it, or stop it and wake it again later
    #[arg(long, value_enum, default_value_t = KillSignal::Kill)]
    pub signal: KillSignal,

    /// Time under load before that, in seconds, or with a unit as in 500ms
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = parse_time)]
    pub after: Duration,

    /// Time under load in all
    #[arg(long, value_name = "TIME", default_value = "6", value_parser = parse_time)]
    pub duration: Duration,

    /// Concurrent clients, each on a TCP connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub clients: u16,

    /// Silence, in milliseconds, after which a replica gives up the other: more on a host that is busy
    #[arg(long, value_name = "MILLISECONDS", default_value_t = TIMEOUT_MS,
        value_parser = clap::value_parser!(u64).range(50..=2000))]
    pub timeout_ms: u64,

    /// Makes the clients' requests; the same seed asks the same [default: random, printed]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Print the result as one JSON object on the last line
    #[arg(long)]
    pub json: bool,

    /// The key-value guest [default: guest-images/build/key-value.elf, looked for beside the executable and here]
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,

    /// Keep the directory with the reports and messages of the processes, and say where it is
    #[arg(long)]
    pub keep: bool,
}

/// Longest times that make sense here: a day.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 0.001),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (text, 1.0),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * unit);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| *time <= TIME_MAX)
        .ok_or_else(|| "write a time up to a day, in seconds or with a unit: 2, 2.5s or 500ms".to_owned())
}

impl DemoArguments {
    /// Refuses times that contradict each other.
    ///
    /// # Errors
    /// [`DemoError::Times`], [`DemoError::StopTooShort`].
    pub fn check(&self) -> Result<(), DemoError> {
        if self.kill != Kill::None && self.after >= self.duration {
            return Err(DemoError::Times {
                after: self.after,
                duration: self.duration,
            });
        }
        if self.kill != Kill::None && self.signal == KillSignal::Stop {
            // It is woken halfway through the rest. Twice the timeout: noticing takes up to one, claiming comes after.
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
    fn alone_it_kills_the_primary_under_eight_clients() {
        let arguments = parsed("demo").unwrap();
        assert_eq!(
            (arguments.kill, arguments.signal, arguments.clients),
            (Kill::Primary, KillSignal::Kill, 8)
        );
        assert_eq!(
            (arguments.after, arguments.duration),
            (Duration::from_secs(2), Duration::from_secs(6))
        );
        assert!(arguments.check().is_ok());
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
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(matches!(
            parsed("demo --after 7").unwrap().check(),
            Err(DemoError::Times { .. })
        ));
        assert!(parsed("demo --after 7 --kill none").unwrap().check().is_ok());
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
