//! Tests of what a user sees: real processes, real virtual machines, real TCP connections.
//! Everything here goes through the command line and the files and sockets it documents.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod append_only;
mod assembled;
mod bad_guests;
mod bad_input;
mod bitmap_errors;
mod bitmaps;
mod checkpoint_disks;
mod checkpoints;
mod clocks;
mod command_line;
mod damaged_logs;
mod debian;
mod demo;
mod disk_errors;
mod disk_images;
mod disk_snapshots;
mod disks;
mod divergence;
mod diverging;
mod doctor;
mod failover;
mod floods;
mod full_disk;
mod hanging_storage;
mod healing;
mod host;
mod identity;
mod inspect;
mod inspect_disks;
mod job_control;
mod keys;
mod killed_disks;
mod lab;
mod linux;
mod linux_disk;
mod linux_disk_programs;
mod linux_nginx;
mod linux_postgresql;
mod linux_recorded;
mod linux_redis;
mod linux_restarts;
mod linux_ssh;
mod linux_unusual;
mod mirrored_disks;
mod network;
mod output_rule;
mod qualification;
mod record_replay;
mod recordings;
mod redis_tools;
mod refusal;
mod shared_disks;
mod shortest_timer;
mod signals;
mod slow_channel;
mod snapshots;
mod steady;
mod stopping;
mod storage;
mod strangers;
mod switchover;
mod terminal;
mod web;
mod witness;
mod writing;
