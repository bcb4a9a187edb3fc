//! What all sessions share: the keyspace, its limits, the numbers for `INFO`.

use crate::append_only::AppendOnly;
use crate::store::Keyspace;

/// Where the time comes from. Both are asked only when a command needs them.
pub trait Clock {
    /// Nanoseconds since the machine started, never going back. Times to live are measured with it.
    fn monotonic_ns(&mut self) -> u64;

    /// Nanoseconds since 1970-01-01 00:00 UTC. Asked for `TIME` and for times to live that name a date.
    fn wall_ns(&mut self) -> u64;
}

/// How much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes the keyspace may hold, with what it costs to keep them; commands that might exceed it are refused.
    ///
    /// The heap should have twice as many, and what sessions and outputs take: when a list's room doubles, the old and
    /// the new exist together. Up to a third of a list of tiny elements is room (16 bytes each, beside 32 and more for
    /// the element), so that adds two thirds for a moment.
    pub memory_bytes_max: usize,
    /// Connections the server takes. Shown to clients; whoever accepts connections keeps to it.
    pub clients_max: usize,
}

/// The keys, and what is known of the server.
pub struct Database {
    pub(crate) keyspace: Keyspace,
    pub(crate) limits: Limits,
    pub(crate) clients_connected: usize,
    pub(crate) connections_received: u64,
    pub(crate) commands_processed: u64,
    pub(crate) append_only: Option<AppendOnly>,
    /// True while the append-only file is replayed: limits do not hold, and nothing is appended.
    pub(crate) is_replaying: bool,
    /// The clock when the server started, for `INFO`.
    pub(crate) started_ms: u64,
}

impl Database {
    /// An empty database.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            keyspace: Keyspace::new(),
            limits,
            clients_connected: 0,
            connections_received: 0,
            commands_processed: 0,
            append_only: None,
            is_replaying: false,
            started_ms: 0,
        }
    }

    /// From now on, what changes the keys is appended to this file. It was replayed into this database.
    pub fn append_to(&mut self, file: AppendOnly) {
        self.append_only = Some(file);
    }

    /// The append-only file, where there is one.
    pub fn append_only(&mut self) -> Option<&mut AppendOnly> {
        self.append_only.as_mut()
    }

    /// Says what the clock shows at the start of the server, where that is not 0.
    pub fn started_at(&mut self, monotonic_ms: u64) {
        self.started_ms = monotonic_ms;
    }

    /// Says that a client came, for `INFO`.
    pub fn client_connected(&mut self) {
        self.clients_connected = self.clients_connected.saturating_add(1);
        self.connections_received = self.connections_received.saturating_add(1);
    }

    /// Says that a client left.
    pub fn client_disconnected(&mut self) {
        self.clients_connected = self.clients_connected.saturating_sub(1);
    }

    /// Bytes the keyspace holds, with what it costs to keep them.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.keyspace.used_bytes()
    }

    /// Commands done since the start.
    #[must_use]
    pub fn commands_processed(&self) -> u64 {
        self.commands_processed
    }
}
