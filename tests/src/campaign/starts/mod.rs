//! Starts: the same machine is started again and again, by two or three hands, in any order and at
//! any moment, on one switch or two, and killed between any two steps. It is never two machines,
//! and comes back as one.
//!
//! ```text
//!   plan     who starts what when, and where it dies, from a seed
//!   counter  a client behind each switch, which counts
//!   course   one round
//!   judge    of a round: claims, frames, and what clients counted
//! ```

pub mod counter;
pub mod course;
pub mod judge;
pub mod plan;

pub use course::run;
pub use plan::Plan;
