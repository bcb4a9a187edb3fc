//! What is said while the demonstration runs: a line that is rewritten on a terminal, and nothing elsewhere.

use std::time::{Duration, Instant};

use super::control::Control;
use lockstep_process::writing::standard;

/// Between two rewritings.
const INTERVAL: Duration = Duration::from_millis(200);

/// Rewrites the line for ever; dropped, it leaves the terminal with an empty one.
pub(super) async fn show(control: &Control, duration: Duration) {
    if !standard::error_is_terminal() {
        return std::future::pending().await;
    }
    let _cleared = Cleared;
    let start = Instant::now();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let lost = if control.lost_at_ns().is_some() {
            ", a replica is lost"
        } else {
            ""
        };
        write(&format!(
            "{:.1} of {:.1} s: {} writes acknowledged{lost}",
            start.elapsed().as_secs_f64(),
            duration.as_secs_f64(),
            control.acknowledged()
        ));
    }
}

/// Says what is being waited for, on a terminal.
pub(super) fn note(text: &str) {
    if standard::error_is_terminal() {
        write(text);
    }
}

/// Empties the line, on a terminal.
pub(super) fn clear() {
    note("");
}

struct Cleared;

impl Drop for Cleared {
    fn drop(&mut self) {
        clear();
    }
}

fn write(text: &str) {
    // Carriage return, then "erase in line" (ECMA-48).
    standard::messages().push(format!("\r\x1b[K{text}").as_bytes());
}
