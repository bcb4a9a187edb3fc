//! Machines with a disk, on which their guest keeps an append-only file: struck, protected again,
//! ended, and begun once more from what is on the disk.
//!
//! ```text
//!   plan     which disk, which file, and which fault, from a seed
//!   images   images of the hosts on which sides are started
//!   course   one round: the fault, and the way back to protection
//!   ending   end of the round: the images, and the guest that begins from one of them
//!   judge    the content of the file against what clients were told
//! ```

pub mod course;
pub mod ending;
pub mod images;
pub mod judge;
pub mod plan;

pub use course::{run, run_with_disk};
pub use images::{Held, Images};
pub use plan::{Plan, Strike};
