//! Heartbeats: when the next is due, and what it says.

use lockstep_logging_channel::Sequence;
use lockstep_logging_channel::message::{Heartbeat, Message};

use super::Config;

/// Known state of the connection to the peer.
#[derive(Debug)]
pub(super) struct Link {
    heartbeat_ns: u64,
    /// When the next heartbeat is due.
    pub due_at_ns: u64,
    /// Time on the peer's clock that its newest heartbeat reported.
    pub peer_sent_at_ns: u64,
    /// When this side sent its newest heartbeat.
    pub sent_at_ns: u64,
}

impl Link {
    pub fn new(config: &Config, now_ns: u64) -> Self {
        Self {
            heartbeat_ns: config.heartbeat_ns(),
            due_at_ns: now_ns,
            peer_sent_at_ns: 0,
            sent_at_ns: 0,
        }
    }

    /// The heartbeat to send now, whether it is due or not.
    pub fn heartbeat(&mut self, now_ns: u64, exits: u64, released: Sequence) -> Message {
        self.due_at_ns = now_ns + self.heartbeat_ns;
        self.sent_at_ns = now_ns;
        let echo_ns = self.peer_sent_at_ns;
        Message::Heartbeat(Heartbeat {
            sent_at_ns: now_ns,
            echo_ns,
            exits,
            released,
        })
    }
}
