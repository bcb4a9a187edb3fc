//! Asks KVM for the version of its interface and prints it: shows that the lab works, with nothing of ours in the way.
//! Built by `tests/lab/lab` with rustc alone. Exit status 1 and the system's own error where `/dev/kvm` does not answer.

use std::fs::OpenOptions;
use std::io::Error;
use std::os::fd::AsRawFd;

/// `KVM_GET_API_VERSION` of Linux's `include/uapi/linux/kvm.h`: `_IO(0xAE, 0x00)`.
const KVM_GET_API_VERSION: u64 = 0xAE00;

/// `KVM_API_VERSION`, the only one that any kernel since 2.6.22 has given.
const KVM_API_VERSION: i32 = 12;

unsafe extern "C" {
    fn ioctl(descriptor: i32, request: u64, ...) -> i32;
}

fn main() -> Result<(), Error> {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
    // SAFETY: the descriptor is open for the whole call, and this request takes no pointer.
    let version = unsafe { ioctl(kvm.as_raw_fd(), KVM_GET_API_VERSION, 0) };
    if version < 0 {
        return Err(Error::last_os_error());
    }
    println!("KVM_GET_API_VERSION: {version}");
    if version == KVM_API_VERSION { Ok(()) } else { Err(Error::other("unknown KVM interface version")) }
}
