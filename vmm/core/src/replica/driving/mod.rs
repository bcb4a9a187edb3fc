//! Decisions that a replica loop takes by itself, without its sockets and threads: which source it
//! reads next, in which order it carries out the role machine's actions, which outputs leave
//! together or too late, and what it does with its connection.

pub mod carrying;
pub mod leaving;
pub mod received;
pub mod standing;
pub mod turns;

pub use carrying::{Carrying, Doing};
pub use leaving::Leaving;
pub use received::{Received, together};
pub use standing::Standing;
pub use turns::Turns;
