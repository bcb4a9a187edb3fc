//! What the model guest does, and how far it is.

use super::requests::Request;

/// What the guest does at one exit.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// On the way there: it computes for so many steps.
    Stretch(u64),
    AskTime,
    AskTsc,
    AskWall,
    AskRandom,
    Compute,
    Reply(Request, usize),
    /// Writes a line to the console.
    Note,
    Tick,
    PowerOff,
    /// Asks its disk for something.
    Disk,
}

#[derive(Clone, Copy, Debug)]
pub enum Phase {
    Arrivals {
        entered: bool,
    },
    /// `between`: a kick has found it there.
    Run {
        between: bool,
    },
    Work(Work),
    Digests,
    Ended,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The guest has passed an exit.
    Exit,
    /// It has made a common point, which counts as one.
    CommonPoint,
    /// It was put to a common point of the guest that it follows.
    Put,
    /// It is on its way to the next.
    Between,
    /// It has computed for a step.
    Step,
    /// It has powered off.
    Ended,
}
