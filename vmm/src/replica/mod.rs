//! Recorder, replayer, roles, output gate and going live. Knows no KVM ioctl, socket, thread or clock.

pub mod divergence;

pub use divergence::Divergence;
