//! Chains: one machine with a name, healed and struck again, at least ten generations deep, with
//! clients whose connections last as long as the chain.
//!
//! ```text
//!   plan     what happens in each link, from a seed
//!   course   one round: a newcomer joins in some trouble, is armed, a side is lost; and again
//! ```

pub mod course;
pub mod plan;

pub use course::run;
pub use plan::Plan;
