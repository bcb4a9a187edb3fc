//! Bytes between a client's TCP connection and one to the guest.
//!
//! Nothing is copied twice: bytes are read from the client into the send buffer of smoltcp, and
//! written to the client from its receive buffer. A full buffer stops the reading on its other
//! side, which is the backpressure. What ends is passed on as it ended:
//!
//! | from | to the other side |
//! | --- | --- |
//! | end of stream of the client | FIN to the guest, after everything sent |
//! | FIN of the guest | end of stream to the client, after everything received |
//! | reset or error of the client | reset to the guest |
//! | reset of the guest, or its silence | reset to the client |

use std::future::poll_fn;
use std::io;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use smoltcp::socket::tcp::{ConnectError, Socket, State};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::core::Shared;

/// A connection to a guest; dropping it ends it, with a reset where it is not over.
pub(super) struct GuestConnection {
    shared: Shared,
    port: u16,
}

impl Drop for GuestConnection {
    fn drop(&mut self) {
        self.shared.borrow_mut().close(self.port, Instant::now());
    }
}

impl GuestConnection {
    /// Begins to connect to `guest`.
    pub(super) fn open(shared: &Shared, guest: SocketAddrV4) -> Result<Self, ConnectError> {
        let port = shared.borrow_mut().connect(guest)?;
        Ok(Self {
            shared: Shared::clone(shared),
            port,
        })
    }

    /// True when the guest has accepted, false when it has refused.
    pub(super) async fn accepted(&self) -> bool {
        poll_fn(|context| {
            let mut core = self.shared.borrow_mut();
            core.emit(self.port, Instant::now());
            let Some(connection) = core.connection(self.port) else {
                return Poll::Ready(false);
            };
            connection.wake_with(context.waker());
            match connection.socket().state() {
                State::SynSent | State::SynReceived => Poll::Pending,
                State::Closed => Poll::Ready(false),
                _ => Poll::Ready(true),
            }
        })
        .await
    }

    /// Moves bytes until both sides are done, or one broke.
    pub(super) async fn relay(self, client: TcpStream) {
        let mut ends = Ends {
            client,
            client_done: false,
            guest_done: false,
            client_told: false,
        };
        let end = poll_fn(|context| self.poll(&mut ends, context)).await;
        drop(self);
        let delivered = match end {
            End::Finished(rest) => ends.client.write_all(&rest).await,
            End::Broken => Err(io::ErrorKind::ConnectionReset.into()),
        };
        if delivered.is_err() {
            // The client is told by a reset, as the guest told us.
            let _ = ends.client.set_zero_linger();
        }
    }

    fn poll(&self, ends: &mut Ends, context: &mut Context<'_>) -> Poll<End> {
        let mut core = self.shared.borrow_mut();
        let Some(connection) = core.connection(self.port) else {
            return Poll::Ready(End::Broken);
        };
        connection.wake_with(context.waker());
        let socket = connection.socket();
        if ends.pump(socket, context).is_err() {
            // Dropping the connection resets it.
            return Poll::Ready(End::Broken);
        }
        let end = match socket.state() {
            State::Closed | State::TimeWait if ends.client_done && ends.guest_done => {
                Some(End::Finished(take_received(socket)))
            }
            State::Closed => Some(End::Broken),
            _ => None,
        };
        core.emit(self.port, Instant::now());
        end.map_or(Poll::Pending, Poll::Ready)
    }
}

/// How a relayed connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// In good order; this is left to be written to the client.
    Finished(Vec<u8>),
    /// By a reset, or in silence.
    Broken,
}

/// What a connection that is over has received and nobody took.
fn take_received(socket: &mut Socket<'_>) -> Vec<u8> {
    let mut received = vec![0; socket.recv_queue()];
    let count = socket.recv_slice(&mut received).unwrap_or(0);
    received.truncate(count);
    received
}

struct Ends {
    client: TcpStream,
    /// The client has sent everything, and the guest was told.
    client_done: bool,
    /// The guest has sent everything.
    guest_done: bool,
    /// The client was told that, having got everything.
    client_told: bool,
}

impl Ends {
    /// Moves what can be moved. An error is one of the client's connection.
    fn pump(&mut self, socket: &mut Socket<'_>, context: &mut Context<'_>) -> io::Result<()> {
        while !self.client_done && socket.can_send() && self.read_client(socket, context)? {}
        while socket.can_recv() && self.write_client(socket, context)? {}
        self.guest_done |= matches!(
            socket.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        if self.guest_done && !socket.can_recv() && !self.client_told {
            self.client_told = true;
            // Shutting a TCP socket down never waits.
            let _ = Pin::new(&mut self.client).poll_shutdown(context)?;
        }
        Ok(())
    }

    /// One read from the client into the send buffer; whether there may be more.
    fn read_client(&mut self, socket: &mut Socket<'_>, context: &mut Context<'_>) -> io::Result<bool> {
        let client = Pin::new(&mut self.client);
        let read = socket.send(|room| {
            let mut room = ReadBuf::new(room);
            match client.poll_read(context, &mut room) {
                Poll::Ready(outcome) => (room.filled().len(), Some(outcome.map(|()| room.filled().len()))),
                Poll::Pending => (0, None),
            }
        });
        match read {
            Ok(Some(Ok(0))) => {
                self.client_done = true;
                socket.close();
                Ok(false)
            }
            Ok(Some(outcome)) => outcome.map(|_| true),
            Ok(None) | Err(_) => Ok(false),
        }
    }

    /// One write to the client from the receive buffer; whether it may take more.
    fn write_client(&mut self, socket: &mut Socket<'_>, context: &mut Context<'_>) -> io::Result<bool> {
        let client = Pin::new(&mut self.client);
        let written = socket.recv(|bytes| match client.poll_write(context, bytes) {
            Poll::Ready(Ok(count)) => (count, Some(Ok(()))),
            Poll::Ready(Err(error)) => (0, Some(Err(error))),
            Poll::Pending => (0, None),
        });
        match written {
            Ok(Some(outcome)) => outcome.map(|()| true),
            Ok(None) | Err(_) => Ok(false),
        }
    }
}
