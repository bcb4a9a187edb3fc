//! Guests whose replay differs on purpose, under load: the side that has diverged joins again, and
//! is struck, or the other one, while it does and once it is armed.
//!
//! ```text
//!   plan     which part of the state differs, and which fault comes at which step, from a seed
//!   course   one round: the guest diverges, the pair is struck, and is protected again
//! ```

pub mod course;
pub mod plan;

pub use course::run;
pub use plan::{Plan, Strike};
