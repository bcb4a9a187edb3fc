//! The command lines of the processes of a demonstration.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Mode;

/// Name of the machine in the shared directory.
const NAME: &str = "demo";

/// Memory of the key-value guest, in MiB.
const MEMORY_MIB: &str = "64";
/// Memory of Linux: what Debian's needs to boot, with room for the clients' keys.
const LINUX_MEMORY_MIB: &str = "256";
/// Text for its kernel: every byte on its console is an exit.
const LINUX_COMMAND_LINE: &str = "quiet";

/// The guest's address and port in the network of the switch; the port of the host is any free one.
const FORWARD: &str = "127.0.0.1:0:10.0.2.15:6379";

/// The guest, which serves RESP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Guest {
    /// The key-value guest.
    Image(PathBuf),
    /// Linux with a redis-server.
    Linux {
        /// Its kernel.
        kernel: PathBuf,
        /// Its initial ramdisk.
        initrd: PathBuf,
    },
}

impl Guest {
    fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::Image(image) => vec![image.into(), "--memory-mib".into(), MEMORY_MIB.into()],
            Self::Linux { kernel, initrd } => vec![
                "--kernel".into(),
                kernel.into(),
                "--initrd".into(),
                initrd.into(),
                "--command-line".into(),
                LINUX_COMMAND_LINE.into(),
                "--memory-mib".into(),
                LINUX_MEMORY_MIB.into(),
            ],
        }
    }
}

/// Arguments of every side.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    /// The guest.
    pub(super) guest: Guest,
    /// Silence after which a side gives up the other.
    pub(super) timeout_ms: u64,
    /// Bandwidth for a machine that is sent to a new backup.
    pub(super) transfer_mbit: u32,
    /// How a backup follows.
    pub(super) mode: Mode,
    /// Time between two checkpoints, unless it is that of every pair.
    pub(super) epoch_ms: Option<u64>,
}

/// Paths at which the processes meet.
#[derive(Clone, Debug)]
pub(super) struct Places {
    directory: PathBuf,
}

impl Places {
    /// All in `directory`.
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// A directory that all sides reach.
    pub(super) fn shared(&self) -> PathBuf {
        self.directory.join("shared")
    }

    /// Report of a process, by its name here.
    pub(super) fn report(&self, process: &str) -> PathBuf {
        self.directory.join(format!("{process}.report"))
    }

    /// File of what a process writes to standard error.
    pub(super) fn messages(&self, process: &str) -> PathBuf {
        self.directory.join(format!("{process}.messages"))
    }

    /// File of what the guest writes to its console.
    pub(super) fn console(&self, process: &str) -> PathBuf {
        self.directory.join(format!("{process}.console"))
    }

    fn switch_socket(&self) -> PathBuf {
        self.directory.join("switch")
    }

    /// `lockstep switch …`
    pub(super) fn switch(&self) -> Vec<OsString> {
        vec![
            "switch".into(),
            "--socket".into(),
            self.switch_socket().into(),
            "--forward".into(),
            FORWARD.into(),
        ]
    }

    /// `lockstep replica …`, the same for every side but for the report of `process`. The guest
    /// begins when its first backup is there; who joins later has nothing to wait for.
    pub(super) fn replica(&self, process: &str, sides: &Sides) -> Vec<OsString> {
        let mut attachment = OsString::from("switch:");
        attachment.push(self.switch_socket());
        let pairs: [(&str, OsString); 6] = [
            ("--name", NAME.into()),
            ("--network", attachment),
            ("--shared-directory", self.shared().into()),
            ("--report", self.report(process).into()),
            ("--timeout-ms", sides.timeout_ms.to_string().into()),
            ("--transfer-mbit", sides.transfer_mbit.to_string().into()),
        ];
        let mode = (sides.mode == Mode::Checkpoint).then(|| ("--mode", "checkpoint".into()));
        let epoch = sides
            .epoch_ms
            .map(|epoch_ms| ("--epoch-ms", epoch_ms.to_string().into()));
        let flags = pairs
            .into_iter()
            .chain(mode)
            .chain(epoch)
            .flat_map(|(flag, value)| [OsString::from(flag), value]);
        std::iter::once("replica".into())
            .chain(sides.guest.arguments())
            .chain(flags)
            .chain(["--wait-for-backup".into()])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn joined(arguments: &[OsString]) -> String {
        arguments.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn the_processes_meet_in_one_directory() {
        let places = Places::new(Path::new("/d"));
        let sides = Sides {
            guest: Guest::Image("/kv.elf".into()),
            timeout_ms: 200,
            transfer_mbit: 5,
            mode: Mode::Replay,
            epoch_ms: None,
        };
        assert_eq!(
            joined(&places.switch()),
            "switch --socket /d/switch --forward 127.0.0.1:0:10.0.2.15:6379"
        );
        assert_eq!(
            joined(&places.replica("replica-2", &sides)),
            "replica /kv.elf --memory-mib 64 --name demo --network switch:/d/switch --shared-directory /d/shared \
             --report /d/replica-2.report --timeout-ms 200 --transfer-mbit 5 --wait-for-backup"
        );
        let linux = Sides {
            guest: Guest::Linux {
                kernel: "/vmlinuz".into(),
                initrd: "/initrd".into(),
            },
            ..sides.clone()
        };
        let replica = joined(&places.replica("replica-2", &linux));
        let named =
            "replica --kernel /vmlinuz --initrd /initrd --command-line quiet --memory-mib 256 --name demo";
        assert!(replica.starts_with(named), "{replica}");
        let checkpoints = Sides {
            mode: Mode::Checkpoint,
            epoch_ms: Some(10),
            ..sides
        };
        let replica = joined(&places.replica("replica-2", &checkpoints));
        assert!(
            replica.ends_with(" --mode checkpoint --epoch-ms 10 --wait-for-backup"),
            "{replica}"
        );
    }
}
