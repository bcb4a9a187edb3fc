//! A switch from its start to its end.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};

use super::capture::Capture;
use super::core::{Core, Shared};
use super::host::CONNECTIONS_MAX;
use super::listener;
use super::{SwitchArguments, SwitchError, forward, port};
use lockstep_process::descriptors;
use lockstep_process::signals::Signals;
use lockstep_process::writing::standard;

/// Between two attempts to accept, where the process has no descriptor left.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Allocations from this size are mapped on their own: the buffers of connections, which have 64
/// KiB, and few others.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 32 << 10;

/// A switch that is ready. As text it is the line that `lockstep switch` prints to standard output
/// then: `ready socket=PATH`, and ` forward=HOST->GUEST` for each forward, with the port that was
/// taken where port 0 was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where machines attach.
    pub socket: PathBuf,
    /// Host address and guest address of each forward, in the order given.
    pub forwards: Vec<(SocketAddrV4, SocketAddrV4)>,
}

impl fmt::Display for Ready {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ready socket={}", self.socket.display())?;
        self.forwards
            .iter()
            .try_for_each(|(host, guest)| write!(formatter, " forward={host}->{guest}"))
    }
}

/// Runs a switch until a signal ends it; prints a line when it is ready (see [`Ready`]).
///
/// # Errors
/// Where it cannot start: the text names the socket, port or file, and says what to do.
pub fn run(arguments: &SwitchArguments) -> Result<(), SwitchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| SwitchError::Runtime { source })?;
    // A connection takes one, and the usual limit of 1024 is too low. Where it cannot be raised,
    // accepting waits.
    descriptors::raise(2 * CONNECTIONS_MAX as u64);
    return_buffers();
    runtime.block_on(async {
        let mut signals = Signals::listen();
        serve(arguments, print_ready, signals.received()).await
    })
}

/// Runs a switch until `stop` is done; calls `ready` once machines and clients can connect. Needs a
/// runtime with one thread.
///
/// # Errors
/// As [`run`].
pub async fn serve(
    arguments: &SwitchArguments,
    ready: impl FnOnce(&Ready),
    stop: impl Future<Output = ()>,
) -> Result<(), SwitchError> {
    check_forwards(arguments)?;
    let capture = arguments.pcap.as_deref().map(Capture::create).transpose()?;
    let mut forwards = Vec::new();
    for asked in &arguments.forward {
        let (listener, address) = forward::listen(asked).await?;
        forwards.push((listener, address, asked.guest));
    }
    let listener = listener::listen(&arguments.socket).await?;

    let guests = arguments.forward.iter().map(|forward| *forward.guest.ip());
    let core = Core::new(arguments.address, guests, seed(), capture);
    let shared: Shared = Rc::new(RefCell::new(core));
    let addresses = forwards.iter().map(|(_, host, guest)| (*host, *guest)).collect();
    let state = Ready {
        socket: arguments.socket.clone(),
        forwards: addresses,
    };
    let tasks = LocalSet::new();
    tasks
        .run_until(async {
            spawn_local(fire_timers(Shared::clone(&shared)));
            spawn_forwards(&shared, forwards);
            ready(&state);
            tracing::info!(socket = %state.socket.display(), "switch ready");
            tokio::select! {
                () = accept_machines(&shared, listener.socket()) => {}
                () = stop => {}
            }
        })
        .await;
    tracing::info!("switch ended");
    Ok(())
}

/// Fires the deadlines of connections for ever.
async fn fire_timers(shared: Shared) {
    let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|context| {
        loop {
            let mut core = shared.borrow_mut();
            core.fire_timers(Instant::now());
            let Some(first) = core.timers.watch(context.waker()) else {
                return Poll::Pending;
            };
            drop(core);
            if sleep.deadline() != first.into() {
                sleep.as_mut().reset(first.into());
            }
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await
}

fn spawn_forwards(shared: &Shared, forwards: Vec<(TcpListener, SocketAddrV4, SocketAddrV4)>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for (listener, _, guest) in forwards {
        spawn_local(forward::run(
            Shared::clone(shared),
            listener,
            guest,
            Arc::clone(&places),
        ));
    }
}

async fn accept_machines(shared: &Shared, listener: &UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                spawn_local(port::run(Shared::clone(shared), stream));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a machine: trying again");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

fn check_forwards(arguments: &SwitchArguments) -> Result<(), SwitchError> {
    let host = arguments.address;
    let is_guest = |address| host.reaches(address) && address != host.address;
    match arguments
        .forward
        .iter()
        .map(|forward| *forward.guest.ip())
        .find(|guest| !is_guest(*guest))
    {
        Some(guest) => Err(SwitchError::GuestUnreachable { guest, host }),
        None => Ok(()),
    }
}

/// Has buffers above [`MAPPED_BYTES_MIN`] mapped each on its own. glibc keeps smaller ones in its
/// heap, of which it gives back only the end: after 2,000 connections one small allocation there
/// kept 212 MB. Mapped, a buffer also costs only the pages that were touched, and goes with its
/// connection.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)] // No safe interface to this setting.
fn return_buffers() {
    // SAFETY: the calls change numbers in the allocator, which locks them itself. Where one fails
    // nothing changes.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
        // With room kept at the end of the heap, buffers would be cut from that.
        libc::mallopt(libc::M_TOP_PAD, 0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn return_buffers() {}

/// Makes sequence numbers that nobody outside guesses; without randomness the switch still works.
fn seed() -> u64 {
    getrandom::u64().unwrap_or(0)
}

fn print_ready(ready: &Ready) {
    standard::console().push(format!("{ready}\n").as_bytes());
}
