//! Commands that find another `/dev/kvm` than this machine's, or none: in a mount namespace of their own, which ends with them.

use super::kvm;
use std::process::Command;

/// What is to be found at `/dev/kvm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// Nothing.
    Missing,
    /// A device that this command's user may not open; the user is nobody.
    Forbidden,
    /// A device that opens and is no KVM.
    Foreign,
}

impl Kvm {
    /// For a shell in the namespace: prepares, and becomes the command.
    fn script(self) -> &'static str {
        match self {
            Self::Missing => {
                "mount -t tmpfs lockstep /mnt && mkdir /mnt/dev || exit 125
                 for node in null zero full random urandom tty; do
                     : >/mnt/dev/$node && mount --bind /dev/$node /mnt/dev/$node || exit 125
                 done
                 mount --rbind /mnt/dev /dev || exit 125
                 exec \"$@\""
            }
            Self::Forbidden => {
                "mount -t tmpfs lockstep /mnt && : >/mnt/kvm && chmod 000 /mnt/kvm && mount --bind /mnt/kvm /dev/kvm || exit 125
                 exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\""
            }
            Self::Foreign => {
                "mount --bind /dev/null /dev/kvm || exit 125
                 exec \"$@\""
            }
        }
    }
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command
}

/// Whether such namespaces can be made here; where they cannot, it says so, and the test is skipped.
#[must_use]
pub fn offered() -> bool {
    let made = unshare().arg("test -e /dev/kvm").output();
    let offered = made.is_ok_and(|made| made.status.success());
    if !offered {
        kvm::skip("it hides /dev/kvm in a mount namespace: that takes root, and a /dev/kvm to hide");
    }
    offered
}

/// `command` where `/dev/kvm` is as `kvm` says. Its environment and folder come along.
#[must_use]
pub fn with(kvm: Kvm, command: &Command) -> Command {
    let mut wrapped = unshare();
    wrapped
        .arg(kvm.script())
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}
