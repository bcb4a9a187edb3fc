//! Command line, configuration, network attachments, control. Imported by nobody.

pub mod live;
pub mod network;
