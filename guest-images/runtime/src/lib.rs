//! What every guest stands on: a ring-0 shim in assembly and the program's side of the machine in ring 3.
//!
//! ```text
//!   loader -> guest_entry (ring 0) -> start (ring 3) -> the guest's main -> power off with its status
//!                                        |  ^
//!                   a ring-0 routine by  v  |  IRETQ
//!                     its address        shim: HLT, runs of port and device accesses
//! ```
//!
//! Ring 3 runs natively on every kind of KVM, ring 0 is emulated on some: so everything is in ring 3 but
//! what must not be. Both rings share all memory, and every port is open to ring 3. Interrupts are off
//! unless a guest turns them on. The convention with the machine is `docs/guest-interface.md`.
//!
//! Without the feature `image` only the pure parts are here.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod command_line;
pub mod digest;
pub mod requests;
pub mod tables;
pub mod virtqueue;

#[cfg(feature = "image")]
mod boot;
#[cfg(feature = "image")]
pub mod clock;
#[cfg(feature = "image")]
pub mod console;
#[cfg(feature = "image")]
pub mod disk;
#[cfg(feature = "image")]
pub mod interrupts;
#[cfg(feature = "image")]
pub mod memory;
#[cfg(feature = "image")]
mod mmio;
#[cfg(feature = "image")]
pub mod network;
#[cfg(feature = "image")]
pub mod port;
#[cfg(feature = "image")]
pub mod power;
#[cfg(feature = "image")]
pub mod ring0;
#[cfg(feature = "image")]
pub mod timer;

#[cfg(feature = "image")]
pub use boot::Machine;

/// Names the guest's program: a `fn(&Machine) -> u32`, run in ring 3 with interrupts off. What it returns
/// is the guest's exit status.
#[macro_export]
macro_rules! guest {
    ($main:path) => {
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "Rust" fn guest_main(machine: &$crate::Machine) -> u32 {
            $main(machine)
        }
    };
}
