//! Recorder, replayer, roles, output gate and going live. Knows no KVM ioctl, socket, thread or clock.

pub mod divergence;
pub mod gate;
pub mod role;

pub use divergence::Divergence;
pub use gate::Gate;
