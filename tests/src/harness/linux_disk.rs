//! Debian guests whose root is on a disk, made by `guest-images/debian/build`: the files of an
//! initrd in a file system.

use super::linux::{client, file};
use super::process::run;
use super::{Linux, Scratch, lockstep};
use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes that are looked at together when an image is copied: zeroes become holes.
const BLOCK_BYTES: usize = 64 << 10;

/// An image with the root of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    name: &'static str,
    system: System,
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Ext4,
    Xfs,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl Root {
    /// busybox.
    pub const SHELL: Self = Self::ext4("shell");
    /// busybox on xfs.
    pub const SHELL_XFS: Self = Self {
        name: "shell",
        system: System::Xfs,
    };
    /// Debian's `SQLite`, and a program that makes transactions.
    pub const SQLITE: Self = Self::ext4("sqlite");
    /// Debian's fio, which writes and verifies.
    pub const FIO: Self = Self::ext4("fio");
    /// Debian's PostgreSQL.
    pub const POSTGRESQL: Self = Self::ext4("postgresql");

    const fn ext4(name: &'static str) -> Self {
        Self {
            name,
            system: System::Ext4,
        }
    }

    /// Memory that it gets, in MiB.
    #[must_use]
    pub fn memory_mib(self) -> &'static str {
        match self.name {
            "postgresql" => Linux::Postgresql.memory_mib(),
            // It maps libraries of Ceph's, for which 128 MiB were too little.
            "fio" => "384",
            // Less memory is sooner sent to a side that joins.
            _ => "128",
        }
    }

    /// A copy of its image, called `name`, in `scratch`.
    ///
    /// # Panics
    /// It has not been built, or there is no room.
    #[must_use]
    pub fn image(self, scratch: &Scratch, name: &str) -> PathBuf {
        let built = format!("{}.{}", self.name, self.system.name());
        let copy = scratch.join(name);
        let to = File::create_new(&copy).unwrap();
        match File::open(file(&built)) {
            Ok(from) => copy_with_holes(from, to),
            // In the lab, where files are in memory, it is compressed.
            Err(_) => {
                let packed = file(&format!("{built}.gz"));
                let from = File::open(&packed)
                    .unwrap_or_else(|why| panic!("{}: {why}: `make guests-debian`", packed.display()));
                copy_with_holes(GzDecoder::new(from), to);
            }
        }
        copy
    }

    /// The command `verb` for a machine with `disk` as its first one, and with this text for its
    /// kernel.
    #[must_use]
    pub fn command(self, verb: &str, disk: &Path, command_line: &str) -> Command {
        let mut command = lockstep();
        command.arg(verb).args(["--memory-mib", self.memory_mib()]);
        command.arg("--kernel").arg(file("vmlinuz"));
        command.arg("--initrd").arg(file("root.initrd"));
        command.arg("--disk").arg(disk);
        let system = self.system.name();
        command.arg(format!(
            "--command-line=quiet root=/dev/vda rootfstype={system} {command_line}"
        ));
        command
    }

    /// Checks the file system of an image that nobody uses, and changes nothing.
    ///
    /// # Panics
    /// It is not clean.
    pub fn check(self, image: &Path) {
        let mut command = match self.system {
            System::Ext4 => client("e2fsck"),
            System::Xfs => client("xfs_repair"),
        };
        command.arg(match self.system {
            System::Ext4 => "-fn",
            System::Xfs => "-n",
        });
        let _ = run(command.arg(image)).expect_code(0);
    }
}

fn copy_with_holes(mut from: impl Read, mut to: File) {
    let mut size = 0;
    loop {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let bytes = from
            .by_ref()
            .take(BLOCK_BYTES as u64)
            .read_to_end(&mut block)
            .unwrap();
        if bytes == 0 {
            return to.set_len(size).unwrap();
        }
        if block.iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(size)).unwrap();
            to.write_all(&block).unwrap();
        }
        size += bytes as u64;
    }
}
