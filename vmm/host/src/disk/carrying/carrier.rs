//! What carries requests out, as the thread of their disk sees it.

use super::bell::Bell;
use crate::disk::changes::Reached;
use crate::disk::orders::Command;
use crossbeam_channel::Receiver;
use lockstep_core::machine::disk::Request;
use lockstep_logging_channel::ReadData;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// Outcome of a request.
pub(in crate::disk) struct Carried {
    pub request: Request,
    pub outcome: io::Result<ReadData>,
}

/// What the thread of a disk has waited for.
pub(in crate::disk) enum Happened {
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
pub(in crate::disk) trait Carrier: Send {
    /// Begins to carry `request` out. It may overtake those that were begun before.
    fn begin(&mut self, request: Request);

    /// Clears the marks that are not needed any more, beside the requests: it may block.
    fn clear(&mut self, reached: Reached);

    /// Waits for the next order or outcome, until then at the latest.
    fn wait(&mut self, commands: &Receiver<Command>, until: Option<Instant>) -> Happened;

    /// The bell that wakes it for an order; without one the channel of orders does.
    fn bell(&self) -> Option<Arc<Bell>>;
}
