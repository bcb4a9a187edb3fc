//! Ways in which the requests of a disk are carried out. All have the same shape: [`Carrier`].
//!
//! | module | requests are carried out |
//! | --- | --- |
//! | [`threads`] | by threads, with calls that block |

pub(super) mod threads;

use super::changes::Reached;
use super::executor::Command;
use crossbeam_channel::Receiver;
use lockstep_core::machine::disk::Request;
use lockstep_logging_channel::ReadData;
use std::io;
use std::time::Instant;

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
}
