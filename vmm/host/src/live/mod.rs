//! What a live machine meets: time, randomness, arrivals, and the will of its operator.

pub mod control;
pub mod time;
pub mod world;

pub use control::{Control, Order};
pub use time::GuestTime;
pub use world::{Arrivals, World};
