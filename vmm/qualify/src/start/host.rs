//! The host, boot and program that a finding belongs to.

use crate::platform::module;
use lockstep_kvm::host;
use lockstep_kvm::kernel_file::{UNKNOWN, first_line};
use lockstep_kvm::processor::processor;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;

/// Everything that findings hold for. Where any of it is another, they are measured anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// This version of Lockstep.
    pub version: String,
    /// This program's file: its length, and when it was changed.
    pub program: String,
    /// The boot, as the kernel names it.
    pub boot: String,
    /// The kernel's release.
    pub kernel: String,
    /// KVM's module, API version and capabilities.
    pub kvm: String,
    /// The processor.
    pub processor: String,
}

impl Identity {
    /// The identity of this host and program. None where the kernel does not say which boot this
    /// is.
    #[must_use]
    pub fn here() -> Option<Self> {
        let boot = first_line("/proc/sys/kernel/random/boot_id");
        let program = std::fs::metadata("/proc/self/exe").ok()?;
        let known = boot != UNKNOWN;
        let kvm = format!(
            "{} {:?} {:?}",
            module().0,
            host::api_version(),
            host::capabilities()
        );
        known.then(|| Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            program: format!("{} {} {}", program.len(), program.mtime(), program.mtime_nsec()),
            boot,
            kernel: first_line("/proc/sys/kernel/osrelease"),
            kvm,
            processor: processor(),
        })
    }
}
