//! Clients against a fake server over real sockets.

mod clients;
pub(super) mod store;
