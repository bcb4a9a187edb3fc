//! The table of rewritten instructions: what stood where.

use super::trap_ports::{KernelTrap, TRAP_SIZE_BYTES};
use std::collections::BTreeMap;

/// The port that rewritten instructions read.
pub const TRAP_PORT: u8 = 0xe0;

/// An instruction whose result comes from outside, or must be the same on every host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trapped {
    /// RDTSC.
    Tsc,
    /// RDTSCP.
    TscAndProcessor,
    /// RDRAND or RDSEED into general register `register` (0 = RAX, as encoded) of `size_bytes` (2,
    /// 4 or 8).
    Random {
        /// Register number, 0 to 15.
        register: u8,
        /// Operand size.
        size_bytes: u8,
    },
    /// CPUID.
    Cpuid,
}

/// One rewritten instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Address at which the original instruction began, virtual and physical.
    pub address: u64,
    /// The original instruction.
    pub trapped: Trapped,
}

/// All rewritten instructions of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sites {
    by_return_address: BTreeMap<u64, Site>,
    /// Address of an IRETQ of the kernel, where the image is one: its traps are told by their
    /// ports.
    interrupt_return: Option<u64>,
}

/// Bytes of the `IN EAX, imm8` that replaces the start of an instruction.
pub const TRAP_BYTES: u64 = 2;

impl Sites {
    /// Those of a kernel, which has an IRETQ at `interrupt_return`.
    #[must_use]
    pub fn of_kernel(interrupt_return: u64) -> Self {
        Self {
            interrupt_return: Some(interrupt_return),
            ..Self::default()
        }
    }

    /// Address of a kernel's IRETQ.
    #[must_use]
    pub fn interrupt_return(&self) -> Option<u64> {
        self.interrupt_return
    }

    /// The trap that a write of this port is, and the address of an IRETQ, where a kernel makes it.
    #[must_use]
    pub fn kernel_trap(&self, port: u16, size_bytes: u8) -> Option<(KernelTrap, u64)> {
        let interrupt_return = self.interrupt_return?;
        let trap = KernelTrap::at(port).filter(|_| size_bytes == TRAP_SIZE_BYTES)?;
        Some((trap, interrupt_return))
    }

    /// Adds a site.
    pub fn insert(&mut self, site: Site) {
        self.by_return_address.insert(site.address + TRAP_BYTES, site);
    }

    /// The site whose trap ends at `rip`.
    #[must_use]
    pub fn ending_at(&self, rip: u64) -> Option<&Site> {
        self.by_return_address.get(&rip)
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Site> {
        self.by_return_address.values()
    }

    /// Number of sites.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_return_address.len()
    }

    /// True where there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_return_address.is_empty()
    }
}
