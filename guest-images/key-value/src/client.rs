//! What is known of a client.

use alloc::vec::Vec;

/// Who is at the other end of a session.
pub(crate) struct Client {
    /// The session's number.
    pub(crate) id: u64,
    /// What it calls itself; empty until it does.
    pub(crate) name: Vec<u8>,
}

impl Client {
    /// A client that said nothing yet.
    pub(crate) fn new(id: u64) -> Self {
        Self { id, name: Vec::new() }
    }
}
