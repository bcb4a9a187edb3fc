//! Pairs whose guest computes without exits, so that its interrupts enter at common points; each is
//! struck at a step of one. The guest counts and checks its own interrupts and memory, and its last
//! words are the verdict.
//!
//! ```text
//!   plan     which fault at which step, from a seed
//!   course   one round: the pair is struck, and the guest computes to its end
//!   judge    the words of both sides, and what went over the channel
//! ```

pub mod course;
pub mod judge;
pub mod plan;

pub use course::run;
pub use plan::{Plan, Strike};
