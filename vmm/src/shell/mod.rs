//! Command line, configuration, network attachments, control. Imported by nobody.

pub mod network;
pub mod switch;
