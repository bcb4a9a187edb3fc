//! The host's KVM: opened, and checked for what Lockstep needs.

use super::kernel_file::first_line;
use kvm_ioctls::{Cap, Kvm};
use std::path::Path;

/// Where KVM is.
pub const DEVICE: &str = "/dev/kvm";
/// The only version there is of it (Documentation/virt/kvm/api.rst, KVM_GET_API_VERSION).
pub const API_VERSION: i32 = 12;

/// Capabilities without which nothing runs, with the names of the kernel's documentation.
const REQUIRED: [(Cap, &str); 6] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
    (Cap::SetGuestDebug, "KVM_CAP_SET_GUEST_DEBUG"),
    (Cap::X86UserSpaceMsr, "KVM_CAP_X86_USER_SPACE_MSR"),
    (Cap::X86MsrFilter, "KVM_CAP_X86_MSR_FILTER"),
];

/// What the host lacks. Exit status 4.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No KVM device.
    #[error(
        "{DEVICE} does not exist: this machine offers no KVM. On bare metal load the module (modprobe kvm_intel or kvm_amd) \
         and enable virtualization in the firmware; in a virtual machine enable nested virtualization for it"
    )]
    Missing,
    /// No right to use it.
    #[error(
        "{DEVICE} may not be opened by this user: add it to the group that owns the device (usermod -aG kvm $USER as root, then log \
         in again), or run as root"
    )]
    Permission,
    /// Something else in its place.
    #[error(
        "{DEVICE} cannot be used: {why}. Load KVM's module (modprobe kvm_intel or kvm_amd), which makes the device"
    )]
    Unusable {
        /// The host's answer.
        why: String,
    },
    /// A KVM of another time.
    #[error(
        "{DEVICE} speaks API version {found}, not {API_VERSION}: Linux {kernel} is too old. Start 6.1 or later (on Debian: apt-get \
         install linux-image-amd64)"
    )]
    ApiVersion {
        /// What it said.
        found: i32,
        /// The running kernel's release.
        kernel: String,
    },
    /// A capability is not there.
    #[error(
        "this host's KVM lacks {name}: Linux {kernel} is too old, or built without it. Start 6.1 or later (on Debian: apt-get install \
         linux-image-amd64)"
    )]
    Capability {
        /// Its name in the kernel's documentation.
        name: &'static str,
        /// The running kernel's release.
        kernel: String,
    },
    /// An instruction clock was asked for that this host does not offer.
    #[error("this host cannot offer the instruction clock `{clock}`: {why}")]
    Clock {
        /// Its name.
        clock: String,
        /// What is missing.
        why: String,
    },
    /// The host was not found to do what was asked for.
    #[error("{user} needs {property}, which this host was not found to offer ({judgement}): {seen}")]
    Property {
        /// The property, as `lockstep doctor` names it.
        property: String,
        /// What needs it.
        user: String,
        /// What was found.
        judgement: &'static str,
        /// What was seen.
        seen: String,
    },
    /// An ioctl failed.
    #[error("the host's KVM failed to {action}: {why}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// The host's answer.
        why: String,
    },
}

impl HostError {
    /// No machine can be run on this host, whatever its settings.
    #[must_use]
    pub fn is_of_kvm_itself(&self) -> bool {
        match self {
            Self::Missing
            | Self::Permission
            | Self::Unusable { .. }
            | Self::ApiVersion { .. }
            | Self::Capability { .. } => true,
            Self::Clock { .. } | Self::Property { .. } | Self::Failed { .. } => false,
        }
    }

    pub(super) fn failed(action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |why| Self::Failed {
            action,
            why: why.to_string(),
        }
    }
}

/// An open KVM that has what is needed.
pub struct Host {
    pub(super) kvm: Kvm,
}

impl Host {
    /// Opens and checks it.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn open() -> Result<Self, HostError> {
        if !Path::new(DEVICE).exists() {
            return Err(HostError::Missing);
        }
        let kvm = Kvm::new().map_err(|why| match why.errno() {
            libc::EACCES | libc::EPERM => HostError::Permission,
            libc::ENOENT | libc::ENODEV | libc::ENXIO => HostError::Missing,
            _ => HostError::Unusable { why: why.to_string() },
        })?;
        check(kvm.get_api_version(), |capability| {
            kvm.check_extension(capability)
        })?;
        Ok(Self { kvm })
    }
}

/// Refuses a KVM that says `version` of itself, or has not what is needed.
fn check(version: i32, has: impl Fn(Cap) -> bool) -> Result<(), HostError> {
    if version < 0 {
        let why = "it does not answer KVM_GET_API_VERSION".to_owned();
        return Err(HostError::Unusable { why });
    }
    let kernel = || first_line("/proc/sys/kernel/osrelease");
    if version != API_VERSION {
        return Err(HostError::ApiVersion {
            found: version,
            kernel: kernel(),
        });
    }
    match REQUIRED.iter().find(|(capability, _)| !has(*capability)) {
        Some((_, name)) => Err(HostError::Capability {
            name,
            kernel: kernel(),
        }),
        None => Ok(()),
    }
}

/// The version the device speaks, if it can be opened.
#[must_use]
pub fn api_version() -> Option<i32> {
    Kvm::new().ok().map(|kvm| kvm.get_api_version())
}

/// The required capabilities, by the names of the kernel's documentation, and whether they are
/// there; none where the device cannot be opened.
#[must_use]
pub fn capabilities() -> Vec<(&'static str, bool)> {
    let Ok(kvm) = Kvm::new() else { return Vec::new() };
    REQUIRED
        .iter()
        .map(|(capability, name)| (*name, kvm.check_extension(*capability)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kvm_that_has_everything_is_taken() {
        assert_eq!(check(API_VERSION, |_| true), Ok(()));
    }

    #[test]
    fn each_missing_capability_is_named_with_the_way_out() {
        for (missing, name) in REQUIRED {
            let said = check(API_VERSION, |capability| capability as u32 != missing as u32)
                .unwrap_err()
                .to_string();
            assert!(
                said.contains(name) && said.contains("apt-get install linux-image"),
                "{said}"
            );
        }
    }

    #[test]
    fn an_old_kernel_is_named_by_its_version() {
        let error = check(10, |_| true).unwrap_err();
        assert!(
            matches!(error, HostError::ApiVersion { found: 10, .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("apt-get install linux-image"),
            "{error}"
        );
    }

    #[test]
    fn a_device_that_is_no_kvm_is_not_taken_for_one() {
        let error = check(-1, |_| true).unwrap_err();
        assert!(matches!(error, HostError::Unusable { .. }), "{error}");
        assert!(error.to_string().contains("modprobe"), "{error}");
    }
}
