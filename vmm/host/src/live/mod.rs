//! Surroundings of a live machine: time, randomness, arrivals, and orders of its operator.

mod common_points;
pub mod control;
mod epochs;
pub mod time;
pub mod world;

pub use control::{Control, Order};
pub use time::GuestTime;
pub use world::{Arrivals, Entering, World};
