//! Ways in which the requests of a disk are carried out. All have the same shape: [`Carrier`].
//!
//! | module | requests are carried out |
//! | --- | --- |
//! | [`threads`] | by threads, with calls that block |
//! | [`ring`] | by io_uring, and by threads what that does no better |

pub(super) mod bell;
pub mod ring;
#[cfg(test)]
mod tests;
pub(super) mod threads;

use super::changes::Reached;
use super::executor::Command;
use super::setting::Aio;
use super::target::Target;
use crate::error::RunError;
use bell::Bell;
use crossbeam_channel::Receiver;
use lockstep_core::machine::disk::Request;
use lockstep_logging_channel::ReadData;
use ring::Ring;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use threads::{Threads, WORKERS};

/// Outcome of a request.
pub(super) struct Carried {
    pub request: Request,
    pub outcome: io::Result<ReadData>,
}

/// What the thread of a disk has waited for.
pub(super) enum Happened {
    /// It is given an order.
    Command(Command),
    /// A request was carried out, or failed.
    Carried(Carried),
    /// It is time.
    Time,
    /// Nobody can give an order any more.
    Abandoned,
}

/// What carries requests out, and wakes the thread of their disk.
pub(super) trait Carrier: Send {
    /// Begins to carry `request` out. It may overtake those that were begun before.
    fn begin(&mut self, request: Request);

    /// Clears the marks that are not needed any more, beside the requests: it may block.
    fn clear(&mut self, reached: Reached);

    /// Waits for the next order or outcome, until then at the latest.
    fn wait(&mut self, commands: &Receiver<Command>, until: Option<Instant>) -> Happened;

    /// The bell that wakes it for an order; without one the channel of orders does.
    fn bell(&self) -> Option<Arc<Bell>>;
}

/// Starts what is to carry out the requests of the disk `name`, as its setting says: without one
/// io_uring, if it can be used here, and threads where not. Says which it is, and why.
///
/// # Errors
/// [`RunError`]: io_uring was asked for and cannot be used, or the host starts no thread.
pub(super) fn start(
    name: &str,
    thread: &str,
    aio: Option<Aio>,
    target: &Target,
) -> Result<Box<dyn Carrier>, RunError> {
    let why = match aio {
        Some(Aio::Threads) => "as its setting says".to_owned(),
        _ if !target.storage.is_raw() && aio.is_none() => "its bytes are not in a raw image".to_owned(),
        _ if !target.storage.is_raw() => {
            let why =
                format!("{name}: io_uring is for raw images, and its bytes are elsewhere; leave aio out");
            return Err(RunError::setting("disk", why));
        }
        _ => match Ring::start(thread, target) {
            Ok(ring) => {
                tracing::info!("{name}: io_uring carries its requests out");
                return Ok(Box::new(ring));
            }
            Err(source) if aio.is_some() => {
                let name = name.to_owned();
                return Err(RunError::NoIoUring { name, source });
            }
            Err(why) => why.to_string(),
        },
    };
    let starts = RunError::other("cannot start the threads of a disk");
    let threads = Threads::start(thread, target).map_err(starts)?;
    tracing::info!("{name}: {WORKERS} threads carry its requests out: {why}");
    Ok(Box::new(threads))
}
