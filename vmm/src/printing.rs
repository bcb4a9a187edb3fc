//! Standard output of commands that print and do nothing else.

use crate::status::{CommandError, Status};
use lockstep_process::writing::standard::Printer;
use std::io;

/// Prints `text` to standard output, and gives `status` if that went well.
///
/// # Errors
/// [`CommandError::Output`]: see [`printed`].
pub fn print_text(text: &str, status: Status) -> Result<Status, CommandError> {
    printed(io::Write::write_all(&mut Printer::new(), text.as_bytes()), status)
}

/// Status that follows from printing. A reader that closes its end of a pipe has seen enough: that
/// changes nothing.
///
/// # Errors
/// [`CommandError::Output`]: standard output takes no more for any other reason.
pub fn printed(outcome: io::Result<()>, status: Status) -> Result<Status, CommandError> {
    match outcome {
        Ok(()) => Ok(status),
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(status),
        Err(why) => Err(CommandError::Output(why)),
    }
}
