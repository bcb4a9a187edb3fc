//! Command line, configuration, network attachments, control. Imported by nobody.

pub mod build;
pub mod cli;
pub mod commands;
pub mod configuration;
pub mod console;
pub mod demo;
pub mod descriptors;
pub mod doctor;
pub mod live;
pub mod machine;
pub mod network;
pub mod once_a_minute;
pub mod outlets;
pub mod pair;
pub mod qualification;
pub mod signals;
pub mod start;
pub mod status;
pub mod switch;
pub mod writing;
