//! Guest images: checking and loading an ELF64 file, and rewriting the instructions that would not
//! exit.
//!
//! The image is a value, bytes in memory: reading the file is its host's.

pub mod code;
pub mod error;
pub mod inspect;
pub mod linux;
pub mod load;
pub mod rewrite;
mod segments;
pub mod sites;
pub mod trap_ports;

pub use error::{IMAGE_ADDRESS_MIN, ImageError};
pub use load::{LoadedImage, load};
pub use sites::{Site, Sites, Trapped};
