//! The task of one attached machine: frames in from its socket, frames out to it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::core::Shared;
use super::port_id::PortId;
use lockstep_network::{FrameDecoder, FramingError};

/// Why a machine was detached without wanting to be.
#[derive(Debug, thiserror::Error)]
enum PortError {
    #[error("its socket broke")]
    Socket(#[from] io::Error),
    #[error("it sends no frames")]
    Framing(#[from] FramingError),
}

/// Serves the machine behind `stream` until it goes.
pub(super) async fn run(shared: Shared, stream: UnixStream) {
    let attached = shared.borrow_mut().fabric.attach();
    let Some(id) = attached else {
        tracing::warn!("a machine was turned away: every port is taken");
        return;
    };
    // A line only when it sends: a health check connects and closes.
    tracing::debug!(port = id.0, "connected");
    let (from_machine, to_machine) = stream.into_split();
    let outcome = tokio::select! {
        outcome = receive(&shared, id, from_machine) => outcome,
        outcome = send(&shared, id, to_machine) => outcome,
    };
    if let Err(error) = outcome {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(port = id.0, cause = source, "detaching a machine: {error}");
    }
    shared.borrow_mut().detach(id);
}

async fn receive(shared: &Shared, id: PortId, mut from_machine: OwnedReadHalf) -> Result<(), PortError> {
    let mut decoder = FrameDecoder::new();
    loop {
        let count = match from_machine.read(decoder.space()).await {
            Err(error) if is_ordinary_end(&error) => 0,
            outcome => outcome?,
        };
        if count == 0 {
            return Ok(decoder.finish()?);
        }
        decoder.filled(count);
        let mut core = shared.borrow_mut();
        core.frames_from(id, &mut decoder, Instant::now())?;
    }
}

async fn send(shared: &Shared, id: PortId, mut to_machine: OwnedWriteHalf) -> Result<(), PortError> {
    let sent = poll_fn(|context| poll_send(shared, id, Pin::new(&mut to_machine), context)).await;
    match sent {
        Err(error) if is_ordinary_end(&error) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Writes what waits, and waits for more; ready when the port is gone or the socket broke.
fn poll_send(
    shared: &Shared,
    id: PortId,
    mut to_machine: Pin<&mut OwnedWriteHalf>,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut core = shared.borrow_mut();
    loop {
        let Some(port) = core.fabric.port_mut(id) else {
            return Poll::Ready(Ok(()));
        };
        if port.queue.waiting_bytes() == 0 {
            port.queue.wake_at_push(context.waker());
            return Poll::Pending;
        }
        let count = ready!(to_machine.as_mut().poll_write(context, port.queue.waiting()))?;
        core.written(id, count);
    }
}

/// A machine that was killed ends like this, when frames for it were under way.
fn is_ordinary_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
