//! Output while the demonstration runs: lines on standard output, and beside them one on a
//! terminal that is rewritten.

use std::time::{Duration, Instant};

use super::control::{Control, Phase};
use lockstep_process::writing::standard;

/// Between two rewritings.
const INTERVAL: Duration = Duration::from_millis(200);

/// A line of standard output comes after the line of progress was emptied: they are written by two
/// threads. A terminal that takes nothing holds the demonstration up by so much.
const EMPTIED_LIMIT: Duration = Duration::from_millis(100);

/// Columns of a terminal that does not say.
const COLUMNS: u16 = 80;

/// Rewrites the line for ever; dropped, it leaves the terminal with an empty one.
pub(super) async fn show(control: &Control) {
    if !standard::error_is_terminal() {
        return std::future::pending().await;
    }
    let _cleared = Cleared;
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Some(phase) = control.phase() {
            write(&line(&phase, control.acknowledged(), columns()));
        }
    }
}

/// Says what is being waited for, on a terminal.
pub(super) fn note(text: &str) {
    if standard::error_is_terminal() {
        write(&cut(text, columns()));
    }
}

/// Empties the line, on a terminal.
pub(super) fn clear() {
    if standard::error_is_terminal() {
        write("");
        standard::messages().wait_until_written(Instant::now() + EMPTIED_LIMIT);
    }
}

/// A line on standard output. Who closed it still gets the exit status.
pub(super) fn say(line: &str) {
    standard::console().push(format!("{line}\n").as_bytes());
}

struct Cleared;

impl Drop for Cleared {
    fn drop(&mut self) {
        clear();
    }
}

fn line(phase: &Phase, acknowledged: u64, columns: usize) -> String {
    let text = match phase {
        Phase::Load { what, since, of } => format!(
            "{what}: {:.1} of {:.1} s; {acknowledged} writes acknowledged",
            since.elapsed().as_secs_f64(),
            of.as_secs_f64(),
        ),
        Phase::Step(what) => format!("{what}; {acknowledged} writes acknowledged"),
    };
    cut(&text, columns)
}

/// A line that is longer than the terminal is wide goes on in the next, and is not rewritten.
fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns.saturating_sub(1)).collect()
}

fn columns() -> usize {
    terminal_size::terminal_size()
        .map_or(COLUMNS, |(width, _)| width.0)
        .into()
}

fn write(text: &str) {
    standard::messages().rewrite(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_never_fills_the_terminal() {
        let phase = Phase::Step("new backup starts".into());
        assert_eq!(line(&phase, 7, 80), "new backup starts; 7 writes acknowledged");
        assert_eq!(line(&phase, 7, 10), "new backu");
        assert_eq!(line(&phase, 7, 0), "");
    }
}
