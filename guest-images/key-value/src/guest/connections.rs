//! All connections. The stack refuses what no socket listens for, so one is made to listen just
//! before a frame that asks for a connection is handed to it.
//!
//! A client that is not answered soon asks again, so both of its frames may be waiting here. The
//! stack hands a frame to the first socket that takes it. If one before the client's own socket
//! listened, the second frame would begin a second connection of the same client there, and
//! whatever the client sends on the first would be answered by a reset. So none listens while the
//! frame of a client that has a socket is handed over.

use super::PORT;
use super::connection::{Connection, Shared};
use alloc::vec::Vec;
use smoltcp::iface::SocketSet;
use smoltcp::socket::tcp::State;
use smoltcp::wire::IpEndpoint;

/// Sockets beyond the clients that are served: for those that are told so, and for the ends of old
/// ones.
const SPARE: usize = 16;

/// Every socket, used or not.
pub struct Connections {
    all: Vec<Connection>,
    most: usize,
}

impl Connections {
    /// None yet; `clients_max` will be served at a time.
    pub fn new(clients_max: usize) -> Self {
        Self {
            all: Vec::new(),
            most: clients_max + SPARE,
        }
    }

    /// Has a socket listen for `client`, which asks for a connection, if there is one to be had;
    /// none where the client has one already. `may_grow` allows a new one.
    pub fn listen(&mut self, sockets: &mut SocketSet<'static>, client: IpEndpoint, may_grow: bool) {
        if self.has_one(sockets, client) {
            self.listen_no_more(sockets);
            return;
        }
        if self.find(sockets, |state| state == State::Listen).is_some() {
            return;
        }
        let usable = self.find(sockets, |state| state == State::Closed).or_else(|| {
            (may_grow && self.all.len() < self.most).then(|| {
                self.all.push(Connection::new(sockets));
                self.all.len() - 1
            })
        });
        // Where all are in use, the end of an old connection gives way, then one that was never
        // confirmed.
        let usable = usable
            .or_else(|| self.find(sockets, |state| state == State::TimeWait))
            .or_else(|| self.find(sockets, |state| state == State::SynReceived));
        if let Some(connection) = usable.and_then(|index| self.all.get(index)) {
            let socket = connection.socket(sockets);
            socket.abort();
            // It is closed and the port is not 0: neither can be refused.
            let _ = socket.listen(PORT);
        }
    }

    /// True if a socket is connected with `client`, or is about to be.
    fn has_one(&self, sockets: &mut SocketSet<'static>, client: IpEndpoint) -> bool {
        self.all.iter().any(|connection| {
            let socket = connection.socket(sockets);
            let is_over = matches!(socket.state(), State::Closed | State::Listen | State::TimeWait);
            !is_over && socket.remote_endpoint() == Some(client)
        })
    }

    fn listen_no_more(&self, sockets: &mut SocketSet<'static>) {
        while let Some(index) = self.find(sockets, |state| state == State::Listen) {
            let Some(connection) = self.all.get(index) else {
                return;
            };
            connection.socket(sockets).abort();
        }
    }

    fn find(&self, sockets: &mut SocketSet<'static>, wanted: impl Fn(State) -> bool) -> Option<usize> {
        let fits =
            |connection: &Connection| !connection.has_session() && wanted(connection.socket(sockets).state());
        self.all.iter().position(fits)
    }

    /// Serves every client. True if there is more to do at once.
    pub fn serve(&mut self, sockets: &mut SocketSet<'static>, shared: &mut Shared<'_>) -> bool {
        self.all.iter_mut().fold(false, |more, connection| {
            let socket = connection.socket(sockets);
            connection.serve(socket, shared) || more
        })
    }
}
