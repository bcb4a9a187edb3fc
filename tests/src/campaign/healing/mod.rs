//! A machine that heals, under load, for rounds that strike it more than once.
//!
//! ```text
//!   bridge   the wires between a holder and its newcomers
//!   machine  its sides, and who holds it
//!   round    one round, around what a plan does to the machine
//!   wire     frames against the log that each newcomer was sent
//!   judge    of a round: clients, wires, announcements, claims
//! ```

pub mod bridge;
pub mod judge;
pub mod machine;
pub mod round;
pub mod wire;

pub use judge::Course;
pub use machine::Machine;
