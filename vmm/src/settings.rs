//! The settings: one structure for the TOML file and for the flags.
//!
//! Every setting is optional in both; a flag wins over the file, the file over the default.
//! [`Settings`] is what was said, [`Configuration`] is what holds.

mod choices;

use crate::status::CommandError;
pub use choices::{ClockChoice, Mode};
use lockstep_host::configuration::{self, Configuration, Pace, PairConfiguration};
use lockstep_host::disk::DiskSetting;
use lockstep_host::error::RunError;
use lockstep_host::pair::witness::WitnessAddress;
use lockstep_network::Attachment;
use lockstep_shared_disk::MachineName;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Heading of the options that only the sides of a pair use.
pub const PAIR_HEADING: &str = "Pair";

/// Default guest memory.
const MEMORY_MIB: u64 = 64;
/// The same of a kernel of Linux: one of Debian takes 60 MiB, and unpacks its initial ramdisk.
const KERNEL_MEMORY_MIB: u64 = 512;
/// Default silence after which a peer is given up.
pub(super) const TIMEOUT_MS: u64 = 200;
/// Default for the log that may be on its way to the backup and not replayed.
const WINDOW_MIB: u64 = 16;
/// Default for how far behind, in time, the backup may fall before the primary is slowed.
const LAG_MS_MAX: u64 = 1_000;
/// Default spacing of register and device digests.
const DIGEST_INTERVAL_EXITS: u64 = 4_096;
/// Default for how long what arrives waits for a guest that makes no exit.
const EVENT_LATENCY_MS: u64 = 10;
/// The longest time that it may be made to wait.
const EVENT_LATENCY_MS_MAX: u64 = 10_000;
/// Default for the time from one common point to the next, in checkpoint mode.
const EPOCH_MS: u64 = 20;
/// Bounds of it: a common point takes milliseconds, and what a guest says waits for one.
const EPOCH_MS_MIN: u64 = 5;
const EPOCH_MS_MAX: u64 = 10_000;
/// The longest configuration file: every setting in it once, the longest of them 4 KiB, in under 64
/// KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Locally administered address.
const MAC: &str = "52:54:00:4c:53:01";

/// Settings as the user said them, in a file or by flags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Guest memory in MiB [default: 64; with --kernel 512]
    #[arg(long, value_name = "MIB", help_heading = "Machine")]
    pub memory_mib: Option<u64>,
    /// Command line handed to the guest. A kernel gets it behind the parameters that it needs here,
    /// as `console=ttyS0` (docs/guests.md lists them); of a parameter that is there twice Linux
    /// takes the last
    #[arg(
        long,
        value_name = "TEXT",
        help_heading = "Machine",
        allow_hyphen_values = true
    )]
    pub command_line: Option<String>,
    /// Where frames go: switch:/path/to/socket, tap:INTERFACE or none [default: none]
    #[arg(long, value_name = "WHERE", help_heading = "Machine")]
    pub network: Option<String>,
    /// Ethernet address of the guest [default: 52:54:00:4c:53:01]
    #[arg(long, value_name = "ADDRESS", help_heading = "Machine")]
    pub mac: Option<String>,
    /// A disk: a raw or qcow2 image, which the guest finds as a virtio block device. May be given
    /// several times, at most 4. `read-only`: the guest cannot write to it. `serial`: what the
    /// guest reads as its serial number. `block`: bytes of its sectors. `shared`: the two sides of
    /// a pair have one image on storage that both reach; otherwise each has an image of its own at
    /// this path, and writes to both. `aio`: what carries its requests out; without it io_uring for
    /// a raw image where the kernel has it, and threads where not. `on-error`: what a side does
    /// where its host cannot carry requests out: `wait` until it can, or `give-way` to the other
    /// side of a pair, if that is there. The image is locked while the machine runs
    #[arg(
        long,
        value_name = "IMAGE[,shared][,read-only][,serial=TEXT][,block=512|4096][,aio=io_uring|threads][,on-error=wait|give-way]",
        help_heading = "Machine"
    )]
    pub disk: Option<Vec<String>>,
    /// Instruction clock: with one, events also enter between exits, at exact instructions; refused
    /// where it was not found exact on this host [default: auto; a replay takes the log's]
    #[arg(long, value_enum, value_name = "CLOCK", help_heading = "Machine")]
    pub clock: Option<ClockChoice>,
    /// Count IRQ-window exits, so that an interrupt that waits enters as soon as the guest allows
    /// it; refused where they were not found exact on this host [default: false; a replay takes the
    /// log's]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Machine")]
    pub window_exits: Option<bool>,
    /// Digest registers and devices every so many exits; 0 for never [default: 4096]
    #[arg(long, value_name = "EXITS", help_heading = "Machine")]
    pub digest_interval_exits: Option<u64>,
    /// Time that events may wait for a guest that computes without an exit, in milliseconds: a
    /// common point is then made for it, which sends what the guest has written to its backup. 0
    /// for as long as the guest likes, 10000 at most [default: 10]
    #[arg(long, value_name = "MS", help_heading = "Machine")]
    pub event_latency_ms: Option<u64>,
    /// How a backup follows: by replay; by checkpoints, for a guest that cannot be replayed; or by
    /// replay until five replays within an hour have differed from the log, and by checkpoints from
    /// then on. Both sides the same [default: replay]
    #[arg(long, value_enum, value_name = "MODE", help_heading = PAIR_HEADING)]
    pub mode: Option<Mode>,
    /// Time from one checkpoint to the next, for which the guest's output waits, in milliseconds: 5
    /// to 10000 [default: 20]
    #[arg(long, value_name = "MS", help_heading = PAIR_HEADING)]
    pub epoch_ms: Option<u64>,
    /// Name of the machine in the shared directory: its sides find each other by it, and a second
    /// machine of this name is never begun beside a living one. Letters, digits, `.`, `_` and `-`,
    /// at most 64 [default: default]
    #[arg(long, value_name = "NAME", help_heading = PAIR_HEADING)]
    pub name: Option<String>,
    /// Address at which this side can be joined: tcp:HOST:PORT or unix:/path/to/socket. Of a
    /// backup: address of its primary [default: a socket in the machine's folder of the shared
    /// directory, for sides on this host; for a backup, what the shared directory says of the
    /// holder]
    #[arg(long, value_name = "ADDRESS", help_heading = PAIR_HEADING)]
    pub channel: Option<String>,
    /// A replica that begins a machine waits for its backup before the guest runs [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = PAIR_HEADING)]
    pub wait_for_backup: Option<bool>,
    /// Bandwidth for a machine that is sent to a newcomer while it runs, in Mbit/s; 0 for what the
    /// channel takes [default: 0]
    #[arg(long, value_name = "MBIT", help_heading = PAIR_HEADING)]
    pub transfer_mbit: Option<u64>,
    /// Directory on storage that both sides reach: where the test-and-set is made
    #[arg(long, value_name = "DIRECTORY", help_heading = PAIR_HEADING)]
    pub shared_directory: Option<PathBuf>,
    /// Silence after which the peer is given up, in milliseconds [default: 200]
    #[arg(long, value_name = "MS", help_heading = PAIR_HEADING)]
    pub timeout_ms: Option<u64>,
    /// Log that may be unreplayed before the primary is slowed, in MiB, at most 16 [default: 16]
    #[arg(long, value_name = "MIB", help_heading = PAIR_HEADING)]
    pub window_mib: Option<u64>,
    /// Time the backup may be behind before the primary is slowed, in milliseconds [default: 1000]
    #[arg(long, value_name = "MS", help_heading = PAIR_HEADING)]
    pub lag_ms_max: Option<u64>,
    /// A station that clients reach too: a side that none of its witnesses answers waits before it
    /// claims, so that the other goes on. 10.0.2.2 is asked by ARP through the guest's network,
    /// tcp:HOST:PORT by a connection from this host (refused counts: somebody is there). May be
    /// given several times, at most 8; each side has its own
    #[arg(long, value_name = "ADDRESS", help_heading = PAIR_HEADING)]
    pub witness: Option<Vec<String>>,
    /// On a TAP, a backup that goes live repeats the guest's last acknowledgement on each
    /// connection, so that clients send again at once what died with the primary; those whose TCP
    /// does without SACK do [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = PAIR_HEADING)]
    pub ask_for_retransmission: Option<bool>,
    /// Append what happens to this replica, and its statistics, to this file as JSON lines
    #[arg(long, value_name = "FILE", help_heading = PAIR_HEADING)]
    pub report: Option<PathBuf>,
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// [`RunError::File`], [`CommandError::ConfigurationFile`] naming line and key.
    pub fn read(path: &Path) -> Result<Self, CommandError> {
        let text = lockstep_regular_file::read(path, FILE_BYTES_MAX)
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
            .map_err(|source| RunError::File {
                action: "read the configuration file",
                path: path.to_owned(),
                source,
            })?;
        toml::from_str(&text).map_err(|why| CommandError::ConfigurationFile {
            path: path.to_owned(),
            source: Box::new(why),
        })
    }

    /// `self` where it says something, `lower` elsewhere.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.or(lower.memory_mib),
            command_line: self.command_line.or(lower.command_line),
            network: self.network.or(lower.network),
            mac: self.mac.or(lower.mac),
            disk: self.disk.or(lower.disk),
            clock: self.clock.or(lower.clock),
            window_exits: self.window_exits.or(lower.window_exits),
            digest_interval_exits: self.digest_interval_exits.or(lower.digest_interval_exits),
            event_latency_ms: self.event_latency_ms.or(lower.event_latency_ms),
            mode: self.mode.or(lower.mode),
            epoch_ms: self.epoch_ms.or(lower.epoch_ms),
            name: self.name.or(lower.name),
            channel: self.channel.or(lower.channel),
            wait_for_backup: self.wait_for_backup.or(lower.wait_for_backup),
            transfer_mbit: self.transfer_mbit.or(lower.transfer_mbit),
            shared_directory: self.shared_directory.or(lower.shared_directory),
            timeout_ms: self.timeout_ms.or(lower.timeout_ms),
            window_mib: self.window_mib.or(lower.window_mib),
            lag_ms_max: self.lag_ms_max.or(lower.lag_ms_max),
            witness: self.witness.or(lower.witness),
            ask_for_retransmission: self.ask_for_retransmission.or(lower.ask_for_retransmission),
            report: self.report.or(lower.report),
        }
    }

    /// Defaults of kernels, where they differ from those of all guests.
    #[must_use]
    pub fn of_kernels() -> Self {
        Self {
            memory_mib: Some(KERNEL_MEMORY_MIB),
            ..Self::default()
        }
    }

    /// The defaults.
    #[must_use]
    pub fn defaults() -> Self {
        Self {
            memory_mib: Some(MEMORY_MIB),
            command_line: Some(String::new()),
            network: Some("none".to_owned()),
            mac: Some(MAC.to_owned()),
            disk: Some(Vec::new()),
            clock: Some(ClockChoice::Auto),
            window_exits: None,
            digest_interval_exits: Some(DIGEST_INTERVAL_EXITS),
            event_latency_ms: Some(EVENT_LATENCY_MS),
            mode: Some(Mode::Replay),
            epoch_ms: Some(EPOCH_MS),
            name: Some(MachineName::default().to_string()),
            channel: None,
            wait_for_backup: Some(false),
            transfer_mbit: Some(0),
            shared_directory: None,
            timeout_ms: Some(TIMEOUT_MS),
            window_mib: Some(WINDOW_MIB),
            lag_ms_max: Some(LAG_MS_MAX),
            witness: Some(Vec::new()),
            ask_for_retransmission: Some(true),
            report: None,
        }
    }

    /// The settings as a file.
    ///
    /// # Errors
    /// They cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, CommandError> {
        toml::to_string_pretty(self).map_err(|why| CommandError::setting("--print-config", why.to_string()))
    }

    /// The configuration that holds: these settings over the defaults.
    ///
    /// # Errors
    /// [`RunError::Setting`] naming the first that is wrong.
    pub fn resolve(self) -> Result<Configuration, CommandError> {
        let all = self.over(Self::defaults());
        let network = all.network.unwrap_or_default();
        let clock = all.clock.unwrap_or_default();
        let has_clock = matches!(clock, ClockChoice::Step | ClockChoice::Statistic);
        if has_clock && all.window_exits == Some(true) {
            let why = format!(
                "a window and a stop of the clock `{clock}` may meet in either order: use --clock none"
            );
            return Err(CommandError::setting("window-exits", why));
        }
        let mode = configuration::Mode::from(all.mode.unwrap_or_default());
        let epoch = epoch(mode, all.epoch_ms.unwrap_or(EPOCH_MS))?;
        if epoch.is_some() && has_clock {
            let why = format!(
                "{mode} makes no use of an instruction clock, and `{clock}` costs speed: leave it out"
            );
            return Err(CommandError::setting("mode", why));
        }
        let network: Attachment = network
            .parse()
            .map_err(|why| CommandError::setting("network", format!("{why}")))?;
        let timeout_ms = all.timeout_ms.unwrap_or(TIMEOUT_MS);
        let witnesses = WitnessAddress::all(&all.witness.unwrap_or_default(), &network, timeout_ms)?;
        Ok(Configuration {
            memory_bytes: mib_to_bytes("memory-mib", all.memory_mib.unwrap_or(MEMORY_MIB))?,
            command_line: all.command_line.unwrap_or_default(),
            network,
            mac: parse_mac(&all.mac.unwrap_or_default())?,
            disks: DiskSetting::all(&all.disk.unwrap_or_default())?,
            clock: clock.kind(),
            window_exits: all.window_exits,
            requalify: false,
            digest_interval_exits: all.digest_interval_exits.unwrap_or(DIGEST_INTERVAL_EXITS),
            event_latency: event_latency(all.event_latency_ms.unwrap_or(EVENT_LATENCY_MS))?,
            mode,
            epoch,
            pair: PairConfiguration {
                name: machine_name(&all.name.unwrap_or_default())?,
                channel: all.channel,
                wait_for_backup: all.wait_for_backup.unwrap_or(false),
                pace: Pace {
                    bytes_per_second: bytes_per_second(all.transfer_mbit.unwrap_or(0))?,
                },
                shared_directory: all.shared_directory,
                timeout_ms,
                witnesses,
                window_bytes: mib_to_bytes("window-mib", all.window_mib.unwrap_or(WINDOW_MIB))?,
                lag_ms_max: all.lag_ms_max.unwrap_or(LAG_MS_MAX),
                ask_for_retransmission: all.ask_for_retransmission.unwrap_or(true),
                report: all.report,
            },
        })
    }
}

fn event_latency(milliseconds: u64) -> Result<Option<Duration>, CommandError> {
    if milliseconds > EVENT_LATENCY_MS_MAX {
        let why = format!(
            "{milliseconds} is more than {EVENT_LATENCY_MS_MAX}; 0 is for as long as the guest likes"
        );
        return Err(CommandError::setting("event-latency-ms", why));
    }
    Ok((milliseconds > 0).then(|| Duration::from_millis(milliseconds)))
}

/// The time from one common point to the next in checkpoint mode.
fn epoch(mode: configuration::Mode, milliseconds: u64) -> Result<Option<Duration>, CommandError> {
    if !(EPOCH_MS_MIN..=EPOCH_MS_MAX).contains(&milliseconds) {
        let why = format!("{milliseconds} is not from {EPOCH_MS_MIN} to {EPOCH_MS_MAX}");
        return Err(CommandError::setting("epoch-ms", why));
    }
    Ok(mode
        .has_checkpoints()
        .then(|| Duration::from_millis(milliseconds)))
}

fn machine_name(text: &str) -> Result<MachineName, CommandError> {
    text.parse()
        .map_err(|why| CommandError::setting("name", format!("{why}")))
}

/// Bytes a second for so many Mbit/s; none where there is no bound.
fn bytes_per_second(mbit: u64) -> Result<Option<u64>, CommandError> {
    let bytes = mbit.checked_mul(1_000_000 / 8).ok_or_else(|| {
        CommandError::setting(
            "transfer-mbit",
            format!("{mbit} Mbit/s is more than can be counted"),
        )
    })?;
    Ok((bytes > 0).then_some(bytes))
}

fn mib_to_bytes(name: &str, mib: u64) -> Result<u64, CommandError> {
    mib.checked_mul(1 << 20)
        .ok_or_else(|| CommandError::setting(name, format!("{mib} MiB is more than can be counted")))
}

fn parse_mac(text: &str) -> Result<[u8; 6], CommandError> {
    let wrong = || {
        CommandError::setting(
            "mac",
            format!("`{text}` is not the address of one station, like {MAC}"),
        )
    };
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = |part: &str| {
        u8::from_str_radix(part, 16)
            .ok()
            .filter(|_| is_byte(part))
            .ok_or_else(wrong)
    };
    let bytes: Vec<u8> = text.split(':').map(byte).collect::<Result<_, _>>()?;
    let mac: [u8; 6] = bytes.try_into().map_err(|_| wrong())?;
    let [first, ..] = mac;
    let is_group = first & 1 != 0;
    if is_group || mac == [0; 6] {
        Err(wrong())
    } else {
        Ok(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file: Settings = toml::from_str("memory_mib = 16\ntimeout_ms = 150").unwrap();
        let flags = Settings {
            memory_mib: Some(32),
            ..Settings::default()
        };
        let configuration = flags.over(file).resolve().unwrap();
        assert_eq!(configuration.memory_bytes, 32 << 20);
        assert_eq!(configuration.pair.timeout_ms, 150);
        assert_eq!(configuration.pair.lag_ms_max, LAG_MS_MAX);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<Settings>("memroy_mib = 16").unwrap_err();
        assert!(error.to_string().contains("memroy_mib"), "{error}");
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let text = Settings::defaults().to_toml().unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), Settings::defaults());
    }

    #[test]
    fn windows_and_a_clock_are_refused_together() {
        let with = |clock| Settings {
            clock: Some(clock),
            window_exits: Some(true),
            ..Settings::default()
        };
        for clock in [ClockChoice::Step, ClockChoice::Statistic] {
            let why = with(clock).resolve().unwrap_err().to_string();
            assert!(
                why.contains("window-exits") && why.contains(&clock.to_string()),
                "{why}"
            );
        }
        for clock in [ClockChoice::Auto, ClockChoice::None] {
            assert_eq!(with(clock).resolve().unwrap().window_exits, Some(true));
        }
    }

    #[test]
    fn a_mode_has_epochs_or_none_and_their_length_has_bounds() {
        let with = |mode, epoch_ms, clock| Settings {
            mode,
            epoch_ms,
            clock,
            ..Settings::default()
        };
        let epoch = |settings: Settings| settings.resolve().unwrap().epoch;
        assert_eq!(epoch(with(None, Some(50), None)), None);
        let checkpoints = Some(Mode::Checkpoint);
        assert_eq!(
            epoch(with(checkpoints, None, None)),
            Some(Duration::from_millis(EPOCH_MS))
        );
        let falls_back = with(Some(Mode::ReplayThenCheckpoint), Some(50), None);
        assert_eq!(epoch(falls_back), Some(Duration::from_millis(50)));
        let file = toml::from_str::<Settings>("mode = \"replay-then-checkpoint\"").unwrap();
        assert_eq!(file.mode, Some(Mode::ReplayThenCheckpoint));
        for (epoch_ms, clock, name) in [
            (Some(4), None, "epoch-ms"),
            (Some(10_001), None, "epoch-ms"),
            (None, Some(ClockChoice::Step), "mode"),
        ] {
            for mode in [checkpoints, Some(Mode::ReplayThenCheckpoint)] {
                let why = with(mode, epoch_ms, clock).resolve().unwrap_err();
                assert!(why.to_string().contains(name), "{why}");
            }
        }
    }

    #[test]
    fn a_group_address_is_refused() {
        assert!(parse_mac("53:54:00:4c:53:01").is_err());
        assert!(parse_mac("00:00:00:00:00:00").is_err());
        assert!(parse_mac("52:54:00:4c:53").is_err());
        assert!(parse_mac("+2:54:00:4c:53:01").is_err());
        assert_eq!(
            parse_mac("52:54:00:4c:53:01").unwrap(),
            [0x52, 0x54, 0, 0x4c, 0x53, 1]
        );
    }
}
