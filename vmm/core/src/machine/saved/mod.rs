//! The saved machine: all that it takes to build it again elsewhere and run on
//! (docs/saved-state.md).
//!
//! ```text
//!   Machine::save    -> SavedMachine  (small: vCPU, devices, position, rewritten instructions)  --+
//!   pages::non_zero  -> Page, Page, … (memory, which may be sent apart from it)                 --+--> section, section, … (format)
//!
//!   sections -> SavedMachine, Loading::put … finish -> Memory -> vCPU over it -> Machine::restore
//! ```
//!
//! A machine is saved between two steps: at an execution point, before anything enters there, or
//! where a kick found it. A saved state comes from a file or a peer. Whatever it contains, reading
//! it neither panics nor allocates more than its own bounds, and a machine exists only if all of it
//! was accepted.

pub mod arriving;
mod error;
pub mod format;
pub mod pages;
pub mod stream;

pub use error::SavedError;
pub use pages::{Loading, Page};

use super::cpu::SavedCpu;
use super::devices::saved::SavedDevice;
use super::image::sites::{Site, Sites, Trapped};
use super::memory::MEMORY_BYTES_MAX;
use super::policy::Policy;
use serde::{Deserialize, Serialize};

/// Rewritten instructions of an image: far more than any has (Debian's kernel: about 160).
pub const SITES_MAX: usize = 1 << 16;
const REGISTER_MAX: u8 = 15;

/// Position of the machine in its execution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPosition {
    /// Exits so far.
    pub exits: u64,
    /// Instructions since the last one.
    pub instructions: u64,
    /// It waits for an interrupt.
    pub halted: bool,
    /// A kick found it where there is no execution point.
    pub between: bool,
    /// A digest waits for the end of the instruction that is being executed.
    pub digest_due: bool,
    /// The timers that have expired at this execution point: a bit for each timer of the board, the
    /// lowest for the first.
    pub expired: u64,
}

/// Settings of the machine's behaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPolicy {
    /// Exits between two digests; 0 for never.
    pub digest_interval_exits: u64,
    /// IRQ-window exits count as exits.
    pub window_exits: bool,
}

/// A rewritten instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSite {
    address: u64,
    trapped: SavedTrapped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SavedTrapped {
    Tsc,
    TscAndProcessor,
    Random {
        register: u8,
        size_bytes: u8,
    },
    Cpuid,
    /// Nothing was rewritten here: the image is a kernel, and this an IRETQ of it.
    InterruptReturn,
}

/// A machine without its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMachine {
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Position.
    pub position: SavedPosition,
    /// Policy.
    pub policy: SavedPolicy,
    /// The vCPU.
    pub cpu: SavedCpu,
    /// The devices, by name.
    pub devices: Vec<SavedDevice>,
    /// The rewritten instructions, by address.
    pub sites: Vec<SavedSite>,
}

impl From<Policy> for SavedPolicy {
    fn from(policy: Policy) -> Self {
        let Policy {
            digest_interval_exits,
            window_exits,
        } = policy;
        Self {
            digest_interval_exits,
            window_exits,
        }
    }
}

impl From<SavedPolicy> for Policy {
    fn from(saved: SavedPolicy) -> Self {
        let SavedPolicy {
            digest_interval_exits,
            window_exits,
        } = saved;
        Self {
            digest_interval_exits,
            window_exits,
        }
    }
}

/// The sites of an image in their saved form.
#[must_use]
pub fn save_sites(sites: &Sites) -> Vec<SavedSite> {
    let saved = |site: &Site| {
        let Site { address, trapped } = *site;
        let trapped = match trapped {
            Trapped::Tsc => SavedTrapped::Tsc,
            Trapped::TscAndProcessor => SavedTrapped::TscAndProcessor,
            Trapped::Random { register, size_bytes } => SavedTrapped::Random { register, size_bytes },
            Trapped::Cpuid => SavedTrapped::Cpuid,
        };
        SavedSite { address, trapped }
    };
    let interrupt_return = sites.interrupt_return().map(|address| SavedSite {
        address,
        trapped: SavedTrapped::InterruptReturn,
    });
    sites.iter().map(saved).chain(interrupt_return).collect()
}

/// Sites from their saved form.
///
/// # Errors
/// [`SavedError::Site`] for what the rewriter never makes.
pub fn restore_sites(saved: &[SavedSite]) -> Result<Sites, SavedError> {
    if let [
        SavedSite {
            address,
            trapped: SavedTrapped::InterruptReturn,
        },
    ] = *saved
    {
        return Ok(Sites::of_kernel(address));
    }
    let mut sites = Sites::default();
    let mut free_from = 0;
    for site in saved {
        let SavedSite { address, trapped } = *site;
        let trapped = match trapped {
            SavedTrapped::Tsc => Some(Trapped::Tsc),
            SavedTrapped::TscAndProcessor => Some(Trapped::TscAndProcessor),
            SavedTrapped::Random { register, size_bytes }
                if register <= REGISTER_MAX && matches!(size_bytes, 2 | 4 | 8) =>
            {
                Some(Trapped::Random { register, size_bytes })
            }
            SavedTrapped::Cpuid => Some(Trapped::Cpuid),
            SavedTrapped::Random { .. } | SavedTrapped::InterruptReturn => None,
        };
        let is_possible = (free_from..MEMORY_BYTES_MAX).contains(&address) && sites.len() < SITES_MAX;
        let trapped = trapped
            .filter(|_| is_possible)
            .ok_or(SavedError::Site { address })?;
        free_from = address + 1;
        sites.insert(Site { address, trapped });
    }
    Ok(sites)
}
