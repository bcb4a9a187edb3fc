//! Decisions that a replica loop takes by itself, without its sockets and threads: which source it
//! reads next, in which order the role machine is told of its vCPU, in which order its actions are
//! carried out, which outputs leave together or too late, and what becomes of the connection.

pub mod carrying;
pub mod delivery;
pub mod leaving;
pub mod received;
pub mod standing;
pub mod telling;
pub mod turns;

pub use carrying::{Carrying, Doing};
pub use delivery::Delivery;
pub use leaving::Leaving;
pub use received::{Received, together};
pub use standing::Standing;
pub use telling::Hearing;
pub use turns::Turns;
