//! The command lines of the processes of a demonstration.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Memory of the guest, in MiB.
const MEMORY_MIB: &str = "64";

/// The guest's address and port in the network of the switch; the port of the host is any free one.
const FORWARD: &str = "127.0.0.1:0:10.0.2.15:6379";

/// Where the processes meet.
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

    /// A directory both replicas reach.
    pub(super) fn shared(&self) -> PathBuf {
        self.directory.join("shared")
    }

    /// Report of a replica, by its role.
    pub(super) fn report(&self, role: &str) -> PathBuf {
        self.directory.join(format!("{role}.report"))
    }

    /// What a process writes to standard error.
    pub(super) fn messages(&self, process: &str) -> PathBuf {
        self.directory.join(format!("{process}.messages"))
    }

    /// What the guest writes to its console.
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

    /// `lockstep primary …` or `lockstep backup …`
    pub(super) fn replica(&self, role: &str, image: &Path, timeout_ms: u64) -> Vec<OsString> {
        let after = |prefix: &str, path: &Path| {
            let mut text = OsString::from(prefix);
            text.push(path);
            text
        };
        let pairs: [(&str, OsString); 6] = [
            ("--memory-mib", MEMORY_MIB.into()),
            ("--network", after("switch:", &self.switch_socket())),
            ("--channel", after("unix:", &self.directory.join("channel"))),
            ("--shared-directory", self.shared().into()),
            ("--report", self.report(role).into()),
            ("--timeout-ms", timeout_ms.to_string().into()),
        ];
        let flags = pairs
            .into_iter()
            .flat_map(|(flag, value)| [OsString::from(flag), value]);
        [OsStr::new(role).to_owned(), image.into()]
            .into_iter()
            .chain(flags)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(arguments: &[OsString]) -> String {
        arguments.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn the_processes_meet_in_one_directory() {
        let places = Places::new(Path::new("/d"));
        assert_eq!(
            joined(&places.switch()),
            "switch --socket /d/switch --forward 127.0.0.1:0:10.0.2.15:6379"
        );
        assert_eq!(
            joined(&places.replica("backup", Path::new("/kv.elf"), 200)),
            "backup /kv.elf --memory-mib 64 --network switch:/d/switch --channel unix:/d/channel \
             --shared-directory /d/shared --report /d/backup.report --timeout-ms 200"
        );
    }
}
