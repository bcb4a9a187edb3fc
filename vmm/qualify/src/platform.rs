//! The host itself: its KVM's kind, version and capabilities, and whether it counts guest
//! instructions.

#![allow(unsafe_code, reason = "a system call that the C library does not wrap")]

use super::finding::{Finding, Judgement, Property};
use lockstep_kvm::host::{self, Host};
use lockstep_kvm::kernel_file::{UNKNOWN, first_line};
use std::io;
use std::path::Path;

/// Modules of KVM's kinds, as `/sys/module` has them.
const KINDS: [(&str, &str); 3] = [
    ("kvm_intel", "VMX"),
    ("kvm_amd", "SVM"),
    ("kvm_pvm", "software-assisted"),
];

/// What can be seen of a host without running a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The kernel's release.
    pub kernel: String,
    /// KVM's module.
    pub module: String,
    /// What the module stands for.
    pub kind: String,
    /// Why KVM cannot be used, if it cannot.
    pub refused: Option<String>,
    /// API version, where the device could be opened.
    pub api_version: Option<i32>,
    /// Required capabilities, and whether they are there.
    pub capabilities: Vec<(&'static str, bool)>,
    /// Why guest instructions cannot be counted, if they cannot.
    pub counter_refused: Option<String>,
}

impl Platform {
    /// This host.
    #[must_use]
    pub fn observe() -> Self {
        let (module, kind) = module();
        Self {
            kernel: first_line("/proc/sys/kernel/osrelease"),
            module: module.to_owned(),
            kind: kind.to_owned(),
            refused: Host::open().err().map(|why| why.to_string()),
            api_version: host::api_version(),
            capabilities: host::capabilities(),
            counter_refused: open_counter().err().map(|why| why.to_string()),
        }
    }

    /// What was seen comes to.
    #[must_use]
    pub fn judge(&self) -> Vec<Finding> {
        vec![
            self.judge_access(),
            self.judge_version(),
            self.judge_capabilities(),
            self.judge_counter(),
        ]
    }

    fn judge_access(&self) -> Finding {
        let opened = self.api_version.is_some();
        let refused = || self.refused.clone().unwrap_or_default();
        Finding {
            property: Property::Access,
            judgement: if opened { Judgement::Yes } else { Judgement::No },
            tried: format!("opening {}", host::DEVICE),
            seen: if opened {
                "open for reading and writing".to_owned()
            } else {
                refused()
            },
            follows: if opened {
                "virtual machines can be made".to_owned()
            } else {
                "nothing runs here".to_owned()
            },
        }
    }

    fn judge_version(&self) -> Finding {
        let right = self.api_version == Some(host::API_VERSION);
        let version = self
            .api_version
            .map_or_else(|| "none".to_owned(), |version| version.to_string());
        Finding {
            property: Property::Version,
            judgement: if right { Judgement::Yes } else { Judgement::No },
            tried: "KVM_GET_API_VERSION, /sys/module".to_owned(),
            seen: format!(
                "version {version}, {} ({}), Linux {}",
                self.module, self.kind, self.kernel
            ),
            follows: match right {
                true => "the interface is the one this program speaks".to_owned(),
                false => format!("version {} is needed", host::API_VERSION),
            },
        }
    }

    fn judge_capabilities(&self) -> Finding {
        let missing: Vec<_> = self
            .capabilities
            .iter()
            .filter(|(_, there)| !there)
            .map(|(name, _)| *name)
            .collect();
        let complete = missing.is_empty() && !self.capabilities.is_empty();
        Finding {
            property: Property::Capabilities,
            judgement: if complete { Judgement::Yes } else { Judgement::No },
            tried: format!("KVM_CHECK_EXTENSION, {} times", self.capabilities.len()),
            seen: match (complete, self.capabilities.is_empty()) {
                (true, _) => "all are there".to_owned(),
                (_, true) => "none could be asked for".to_owned(),
                _ => format!("missing: {}", missing.join(", ")),
            },
            follows: match complete {
                true => "nothing is missing".to_owned(),
                false => "a newer kernel (6.1 or later) is needed".to_owned(),
            },
        }
    }

    fn judge_counter(&self) -> Finding {
        Finding {
            property: Property::PerformanceCounter,
            judgement: if self.counter_refused.is_none() {
                Judgement::Yes
            } else {
                Judgement::No
            },
            tried: "perf_event_open for retired instructions of guests".to_owned(),
            seen: self
                .counter_refused
                .clone()
                .unwrap_or_else(|| "it opens".to_owned()),
            follows: match self.counter_refused {
                None => "a clock by this counter is possible; there is none yet".to_owned(),
                Some(_) => "no clock by a counter; the others do without".to_owned(),
            },
        }
    }
}

/// KVM's module, and what it stands for.
#[must_use]
pub fn module() -> (&'static str, &'static str) {
    KINDS
        .into_iter()
        .find(|(module, _)| Path::new("/sys/module").join(module).exists())
        .unwrap_or((UNKNOWN, UNKNOWN))
}

/// Size of `struct perf_event_attr` in its second version, which every kernel that matters takes
/// (perf_event_open(2)).
const ATTRIBUTE_BYTES: usize = 72;
/// PERF_COUNT_HW_INSTRUCTIONS.
const INSTRUCTIONS: u64 = 1;
/// Flags of the attribute: disabled, exclude_hv, exclude_host.
const FLAGS: u64 = 1 | 1 << 6 | 1 << 19;

/// Opens, and closes, a counter of this thread's guest instructions.
fn open_counter() -> io::Result<()> {
    let mut attribute = [0_u64; ATTRIBUTE_BYTES / 8];
    // Type 0 is hardware; the size is the second half of the first word.
    let [first, config, _, _, _, flags, ..] = &mut attribute;
    (*first, *config, *flags) = ((ATTRIBUTE_BYTES as u64) << 32, INSTRUCTIONS, FLAGS);
    let (this_thread, any_cpu, no_group, no_flags) = (0, -1, -1, 0_u64);
    // SAFETY: the attribute lives across the call and is as long as it says.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attribute.as_ptr(),
            this_thread,
            any_cpu,
            no_group,
            no_flags,
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { libc::close(descriptor as libc::c_int) };
    Ok(())
}
