//! Stop points of the product, from outside: how a process is told of one, and that it has met it.

use std::fs;

/// Variable that tells a process its stop point, as the product names it.
pub const VARIABLE: &str = "LOCKSTEP_STOP_POINT";
/// Printed by a process that passes its stop point.
pub const REACHED: &str = "stop point reached";

/// True if a process stands still.
#[must_use]
pub fn is_stopped(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // proc(5): the state follows the name, which is in parentheses.
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('T'))
}
