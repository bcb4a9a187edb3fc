//! Reasons why a process has no io_uring.

use std::io;

/// Reason why there is no io_uring here.
#[derive(Debug, thiserror::Error)]
pub enum NoRing {
    /// The system call does not exist.
    #[error("the kernel was built without io_uring, or a filter of system calls hides it")]
    Absent,
    /// The administrator does not want it.
    #[error("sysctl kernel.io_uring_disabled is {0}: io_uring is kept from this process")]
    Disabled(String),
    /// seccomp, as containers have it.
    #[error("a filter of system calls (seccomp) refuses io_uring")]
    Filtered,
    /// It cannot be waited for with a limit.
    #[error("the kernel is older than Linux 5.11, whose io_uring is the first that will do")]
    Old,
    /// Something else.
    #[error("the kernel gives no io_uring: {0}")]
    Other(io::Error),
}

impl From<io::Error> for NoRing {
    fn from(why: io::Error) -> Self {
        match why.raw_os_error() {
            Some(libc::ENOSYS) => Self::Absent,
            Some(libc::EPERM | libc::EACCES) => match disabled() {
                Some(value) => Self::Disabled(value),
                None => Self::Filtered,
            },
            _ => Self::Other(why),
        }
    }
}

/// Value of the setting that keeps io_uring from processes, where it is not 0.
fn disabled() -> Option<String> {
    let value = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    let value = value.trim();
    (value != "0").then(|| value.to_owned())
}
