//! Chains: one machine with a name, healed and struck again, at least ten generations deep, with
//! clients whose connections last as long as the chain.
//!
//! ```text
//!   plan     what happens in each link, from a seed
//!   bridge   the wires between a holder and its newcomers
//!   course   one round: a newcomer joins in some trouble, is armed, a side is lost; and again
//!   wire     frames against the log that each newcomer was sent
//!   judge    of a round: clients, wires, announcements, claims
//! ```

pub mod bridge;
pub mod course;
pub mod judge;
pub mod plan;
pub mod wire;

pub use course::run;
pub use plan::Plan;
