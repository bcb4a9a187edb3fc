//! KVM behind the machine's vCPU trait: the only module that knows its ioctls.
//!
//! No in-kernel interrupt controller, timer or clock is made: what a guest can see comes from user
//! space alone. Source: Documentation/virt/kvm/api.rst of the Linux kernel.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod clock;
pub mod cpu;
pub mod dirty;
mod extended;
mod hidden;
pub mod host;
pub mod kernel_file;
pub mod kick;
pub mod msr;
pub mod processor;
pub mod statistics;
pub mod vcpu;
pub mod vm;

pub use cpu::KvmCpu;
pub use dirty::{DirtyLog, Logging};
pub use host::{Host, HostError};
pub use kick::Kicker;
pub use vcpu::clock::ClockKind;
pub use vm::Vm;
