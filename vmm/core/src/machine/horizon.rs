//! Limit of a run.

/// Limit up to which the machine may run before it must ask for arrivals again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Horizon {
    /// To the next exit.
    Exit,
    /// To the next exit, or to wherever a kick finds it stoppable at an exact instruction.
    Kick,
    /// To this many instructions after the last exit, or the next exit if that comes first.
    Instructions(u64),
    /// Nowhere: a common point comes next, and is met with [`Door::meet`](super::door::Door::meet).
    CommonPoint,
}
