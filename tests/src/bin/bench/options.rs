//! Wishes of the command line: nothing for everything, or the name of a part; `full`; settings
//! of the healing part as `name=1,2,3`.

/// The parts that can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// The lease on a full channel.
    Channel,
    /// A newcomer joins.
    Healing,
    /// Snapshots of a recording.
    Recording,
    /// Checkpoint mode beside replay.
    Checkpoint,
    /// Disks.
    Disks,
}

impl Only {
    fn named(name: &str) -> Option<Self> {
        match name {
            "channel" => Some(Self::Channel),
            "healing" => Some(Self::Healing),
            "recording" => Some(Self::Recording),
            "checkpoint" => Some(Self::Checkpoint),
            "disks" => Some(Self::Disks),
            _ => None,
        }
    }
}

/// Settings of the healing part.
#[derive(Clone, Debug)]
pub struct Healing {
    /// Guest memory.
    pub memory_mib: Vec<u64>,
    /// Pages that the guest writes a second.
    pub pages_a_second: Vec<u64>,
    /// Bandwidth of the transfer; 0 for what the channel takes.
    pub mbit_s: Vec<u64>,
    /// Rounds of each cell.
    pub rounds: u64,
    /// `--timeout-ms`; the limit of the lag is five times as much.
    pub timeout_ms: u64,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Options {
    /// One part, where one was named.
    pub only: Option<Only>,
    /// Settings of the healing part.
    pub healing: Healing,
    /// Rounds of an earlier build against this one.
    pub before_rounds: u64,
    /// Silence after which a pair parts, where it is not that which users get.
    pub timeout_ms: Option<u64>,
    /// Rounds of checkpoint mode beside replay.
    pub checkpoint_rounds: u64,
    /// Rounds of disks.
    pub disk_rounds: u64,
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    /// The argument that is not understood.
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let arguments: Vec<String> = arguments.collect();
        let full = arguments.iter().any(|argument| argument == "full");
        let mut options = Self {
            only: None,
            healing: if full { Healing::full() } else { Healing::quick() },
            before_rounds: 5,
            checkpoint_rounds: 3,
            disk_rounds: 3,
            timeout_ms: None,
        };
        for argument in arguments {
            let setting = argument.split_once('=');
            let understood = match (argument.as_str(), setting) {
                ("full", _) => Some(()),
                (_, Some((name, value))) => options.healing.set(name, value),
                (name, None) => Only::named(name).map(|only| options.only = Some(only)),
            };
            understood.ok_or_else(|| format!("`{argument}` is not understood"))?;
            if let Some(("rounds", _)) = setting {
                options.before_rounds = options.healing.rounds;
                options.checkpoint_rounds = options.healing.rounds;
                options.disk_rounds = options.healing.rounds;
            }
            if let Some(("timeout", _)) = setting {
                options.timeout_ms = Some(options.healing.timeout_ms);
            }
        }
        Ok(options)
    }
}

impl Healing {
    /// A few minutes: one round over a local channel.
    fn quick() -> Self {
        Self {
            memory_mib: vec![64, 256, 1024, 3072],
            pages_a_second: vec![0, 10_000, 100_000],
            mbit_s: vec![0],
            rounds: 1,
            timeout_ms: 200,
        }
    }

    /// Everything, three times, also at 1 Gbit/s.
    fn full() -> Self {
        Self {
            pages_a_second: vec![0, 1_000, 10_000, 100_000],
            mbit_s: vec![0, 1_000],
            rounds: 3,
            ..Self::quick()
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let numbers: Option<Vec<u64>> = value.split(',').map(|number| number.parse().ok()).collect();
        let numbers = numbers?;
        let first = numbers.first().copied()?;
        match name {
            "memory" => self.memory_mib = numbers,
            "pages" => self.pages_a_second = numbers,
            "mbit" => self.mbit_s = numbers,
            "rounds" => self.rounds = first,
            "timeout" => self.timeout_ms = first,
            _ => return None,
        }
        Some(())
    }
}
