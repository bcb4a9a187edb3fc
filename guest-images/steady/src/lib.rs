//! A computation that makes no exit, and the result it must have: everything that needs no machine.
//!
//! ```text
//!   Work ─► compute.s: passes over pages, vector, x87 and general registers live ─► Work
//!                 ▲ left when ATTENTION is set                                       │
//!   passes, as a number ─► affine maps, composed ─► the same values, or a difference ┘
//! ```
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod affine;
pub mod echo;
pub mod statistics;
mod work;

pub use work::{ATTENTION, Difference, PAGE_BYTES, STACK, Work};
