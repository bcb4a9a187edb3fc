//! Switchovers under load, each with a fault at one of its steps.
//!
//! ```text
//!   plan     which fault at which step, from a seed
//!   course   one round: the machine is switched over and struck, heals, and is switched over again
//! ```

pub mod course;
pub mod plan;

pub use course::run;
pub use plan::{Plan, Strike};
