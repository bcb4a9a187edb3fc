//! One TCP socket and the session on it.
//!
//! ```text
//!   closed -> listening -> open -> closing -> closed: the socket and its buffers wait for the next client
//! ```

use super::limits::Division;
use crate::{Clock, Database, Next, Session};
use alloc::vec;
use alloc::vec::Vec;
use lockstep_guest_runtime::memory;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration;

/// A request of the usual kind, or a good part of a long one.
const RECEIVE_BYTES: usize = 8 << 10;
/// Some ten segments on their way.
const SEND_BYTES: usize = 16 << 10;
/// What a connection costs while nothing is under way: its buffers, and 2 KiB for socket and session.
pub const COST_BYTES: usize = RECEIVE_BYTES + SEND_BYTES + (2 << 10);
/// A longer output buffer is given back once it is empty.
const OUTPUT_BYTES_KEPT: usize = 16 << 10;

/// A client that owes an acknowledgement and says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(60);

const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// What all connections work on.
pub struct Shared<'a> {
    /// The keys.
    pub database: &'a mut Database,
    /// The time.
    pub clock: &'a mut dyn Clock,
    /// The heap.
    pub division: Division,
    /// Numbers given to sessions so far.
    pub sessions: &'a mut u64,
    /// Clients being served.
    pub clients: &'a mut usize,
}

/// A socket, and the session while there is a client.
pub struct Connection {
    handle: SocketHandle,
    session: Option<Session>,
    output: Vec<u8>,
    sent: usize,
    closing: bool,
}

impl Connection {
    /// A connection to nobody, with a socket of its own.
    pub fn new(sockets: &mut SocketSet<'_>) -> Self {
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; RECEIVE_BYTES]),
            SocketBuffer::new(vec![0; SEND_BYTES]),
        );
        // A reply carries the acknowledgement, and waits for nothing.
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        Self {
            handle: sockets.add(socket),
            session: None,
            output: Vec::new(),
            sent: 0,
            closing: false,
        }
    }

    /// Its socket.
    pub fn socket<'s>(&self, sockets: &'s mut SocketSet<'static>) -> &'s mut Socket<'static> {
        sockets.get_mut(self.handle)
    }

    /// Whether a client is, or was until the next [`Connection::serve`], being served.
    pub fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// Does what there is to do. True if there is more to do at once.
    pub fn serve(&mut self, socket: &mut Socket<'static>, shared: &mut Shared<'_>) -> bool {
        let more = match socket.state() {
            State::Closed | State::Listen | State::SynReceived | State::TimeWait => {
                self.forget(shared);
                false
            }
            _ => self.work(socket, shared),
        };
        // The stack counts from the last segment, so a client that merely has nothing to say must not be timed.
        let owed = socket.state() != State::Established || socket.send_queue() > 0;
        socket.set_timeout(owed.then_some(PATIENCE));
        more
    }

    fn work(&mut self, socket: &mut Socket<'static>, shared: &mut Shared<'_>) -> bool {
        if !self.closing && self.session.is_none() {
            self.welcome(shared);
        }
        self.exchange(socket, shared);
        let all_sent = self.output.is_empty();
        if all_sent && (self.closing || !socket.may_recv() && !socket.can_recv()) {
            socket.close();
        }
        all_sent && !self.closing && socket.can_recv()
    }

    /// Takes requests and gives replies, as long as both are possible.
    fn exchange(&mut self, socket: &mut Socket<'static>, shared: &mut Shared<'_>) {
        self.send(socket);
        while self.output.is_empty() && !self.closing {
            let Some(session) = &mut self.session else { return };
            let before_bytes = memory::allocated_bytes();
            let next = if session.has_pending() {
                session.receive(shared.database, shared.clock, &[], &mut self.output)
            } else if socket.can_recv() {
                let output = &mut self.output;
                let received = socket.recv(|input| {
                    (
                        input.len(),
                        session.receive(shared.database, shared.clock, input, output),
                    )
                });
                received.unwrap_or(Next::Close)
            } else {
                return;
            };
            self.closing |= next == Next::Close;
            if memory::allocated_bytes() > before_bytes && shared.division.is_used_up() {
                self.give_up(socket);
            }
            self.send(socket);
        }
    }

    /// Moves output to the socket.
    fn send(&mut self, socket: &mut Socket<'static>) {
        let waiting = self.output.get(self.sent..).unwrap_or_default();
        if waiting.is_empty() {
            return;
        }
        match socket.send_slice(waiting) {
            Ok(bytes) => self.sent += bytes,
            // Nobody is there any more to send to.
            Err(_) => self.sent = self.output.len(),
        }
        if self.sent == self.output.len() {
            self.sent = 0;
            self.output.clear();
            self.output.shrink_to(OUTPUT_BYTES_KEPT);
        }
    }

    fn welcome(&mut self, shared: &mut Shared<'_>) {
        if *shared.clients >= shared.division.database.clients_max {
            self.output.extend_from_slice(TOO_MANY);
            self.closing = true;
            return;
        }
        *shared.clients += 1;
        *shared.sessions += 1;
        shared.database.client_connected();
        self.session = Some(Session::new(*shared.sessions));
    }

    /// Ends a connection for want of memory, with all it holds.
    fn give_up(&mut self, socket: &mut Socket<'static>) {
        self.output = Vec::new();
        self.sent = 0;
        self.closing = true;
        socket.abort();
    }

    /// Makes ready for the next client.
    fn forget(&mut self, shared: &mut Shared<'_>) {
        if self.session.take().is_some() {
            *shared.clients = shared.clients.saturating_sub(1);
            shared.database.client_disconnected();
        }
        self.output.clear();
        self.output.shrink_to(OUTPUT_BYTES_KEPT);
        self.sent = 0;
        self.closing = false;
    }
}
