//! What is said while the demonstration runs: a line that is rewritten on a terminal, and nothing elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::control::Control;

/// Between two rewritings.
const INTERVAL: Duration = Duration::from_millis(200);

/// Rewrites the line for ever; dropped, it leaves the terminal with an empty one.
pub(super) async fn show(control: &Control, duration: Duration) {
    if !std::io::stderr().is_terminal() {
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
    if std::io::stderr().is_terminal() {
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
    // Carriage return, then "erase in line" (ECMA-48). Who closed standard error sees nothing.
    let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
}
