//! Console input: standard input, a byte at a time where it is a terminal.
//!
//! ```text
//!            wanted, and in the terminal's foreground
//!   left ----------------------------------------------> taken: bytes as they are typed, no echo
//!   alone <---------------------------------------------  |        Ctrl-C, Ctrl-Z and Ctrl-\ are signals
//!            Ctrl-Z, put into the background, or the end  |  the guest reads its console
//!                                                         v
//!                                                        taken: every key is a byte for the guest
//! ```
//!
//! While the guest does not read its console, the terminal keeps its signals: Ctrl-C still ends the
//! program, and Ctrl-Z stops it. From the moment on at which it does ([`guest_listens`]), these keys
//! are the guest's. Ctrl-A is this program's on every terminal ([`KEYS`]).
//!
//! The terminal is put back as it was found on every exit path, a panic and a signal included, and
//! before a stop; SIGKILL and a crash of the program leave it as it is. In the background nothing is
//! read from it and none of its settings is touched: the shell owns it, and would have the process
//! stopped. A backup leaves it alone until it goes live: what is typed before waits in the terminal.
//!
//! Its size stays here, as a 16550A has no register for it, until whoever types has it typed.

mod escape;
mod input;
mod terminal;

pub use escape::KEYS;
pub use input::read_input;
pub use terminal::{TerminalGuard, guest_listens, keep_stops, restore, want};
