//! The last of what a replica's guest has written to the console.

use crate::outside::Signals;
use lockstep_process::writing::standard;
use std::time::{Duration, Instant};

/// Time for the reader of the console to take the rest, where a replica ends by itself.
const CONSOLE_LIMIT: Duration = Duration::from_secs(2);

/// Waits, with a bound, until standard output has everything; what it does not take then is
/// dropped, and counted in the summary.
pub async fn written(signals: &mut Signals) {
    let limit = if standard::is_hurried() {
        standard::last_text_deadline()
    } else {
        Instant::now() + CONSOLE_LIMIT
    };
    tokio::select! {
        () = standard::console().written() => {}
        () = tokio::time::sleep_until(limit.into()) => {}
        () = signals.received() => {}
    }
    standard::give_up_console();
}
