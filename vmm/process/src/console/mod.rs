//! Console input: standard input, a byte at a time where it is a terminal.
//!
//! ```text
//!            wanted, and in the terminal's foreground
//!   left ----------------------------------------------> taken: bytes as they are typed, no echo
//!   alone <---------------------------------------------
//!            Ctrl-Z, put into the background, or the end
//! ```
//!
//! A terminal that is taken keeps its signals: Ctrl-C still ends the program, and Ctrl-Z stops it.
//! It is put back as it was found on every exit path, a panic included, and before a stop. In the
//! background nothing is read from it and none of its settings is touched: the shell owns it, and
//! would have the process stopped. A backup leaves it alone until it goes live: what is typed
//! before waits in the terminal.

mod input;
mod terminal;

pub use input::read_input;
pub use terminal::{TerminalGuard, keep_stops, restore, want};
