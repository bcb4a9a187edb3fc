//! The log as a file: records one after the other, nothing before, between or after them.

mod reader;
mod writer;

pub use reader::LogReader;
pub use writer::{Existing, LogWriter};
