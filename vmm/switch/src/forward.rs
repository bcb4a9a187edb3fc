//! Host ports that lead to guests.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddrV4;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout, timeout_at};

use super::core::Shared;
use super::host::QUESTION_INTERVAL;
use super::relay::GuestConnection;
use super::{Forward, SwitchError};
use lockstep_process::once_a_minute::{INTERVAL, OnceAMinute};

/// Longest time that a client waits for a guest that is not there yet or refuses: what a guest
/// takes to start, and more.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Between two attempts to connect to a guest that refused.
const CONNECT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Between two attempts to accept, where the process has no descriptor left.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Listens on the host's side of `forward`; gives the address too, which names the port where any
/// was asked for.
pub(super) async fn listen(forward: &Forward) -> Result<(TcpListener, SocketAddrV4), SwitchError> {
    let address = forward.host;
    let bound = match TcpListener::bind(address).await {
        Ok(listener) => listener.local_addr().map(|local| (listener, local)),
        Err(error) => Err(error),
    };
    match bound {
        Ok((listener, local)) => Ok((listener, SocketAddrV4::new(*address.ip(), local.port()))),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => Err(SwitchError::PortInUse { address }),
        Err(source) => Err(SwitchError::PortUnusable { address, source }),
    }
}

/// Takes clients for ever, each on a task of its own, as many at a time as `places` has permits.
pub(super) async fn run(shared: Shared, listener: TcpListener, guest: SocketAddrV4, places: Arc<Semaphore>) {
    let turned_away = Rc::new(RefCell::new(OnceAMinute::default()));
    tokio::task::spawn_local(tell_turned_away(Rc::downgrade(&turned_away), guest));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                let shared = Shared::clone(&shared);
                let turned_away = Rc::clone(&turned_away);
                tokio::task::spawn_local(async move {
                    serve(&shared, client, guest, &turned_away).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client: trying again");
                sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

/// Writes how many clients were turned away without a line of their own. Ends with the forward.
async fn tell_turned_away(turned_away: Weak<RefCell<OnceAMinute>>, guest: SocketAddrV4) {
    while let Some(turned_away) = turned_away.upgrade() {
        let clients = turned_away.borrow_mut().take();
        if let Some(clients) = clients {
            tracing::warn!(%guest, clients, "no guest accepted there in the last minute: these were turned away");
        }
        drop(turned_away);
        sleep(INTERVAL).await;
    }
}

async fn serve(shared: &Shared, client: TcpStream, guest: SocketAddrV4, turned_away: &RefCell<OnceAMinute>) {
    // Requests are small and waited for: nothing is gained by holding one back.
    let _ = client.set_nodelay(true);
    match connect(shared, guest).await {
        Some(connection) => connection.relay(client).await,
        None => {
            if turned_away.borrow_mut().note() {
                tracing::warn!(%guest, "no guest accepts there: a client is turned away");
            }
            let _ = client.set_zero_linger();
        }
    }
}

/// Connects to the guest, again and again until the time is up.
async fn connect(shared: &Shared, guest: SocketAddrV4) -> Option<GuestConnection> {
    let deadline = tokio::time::Instant::now() + CONNECT_TIME_MAX;
    let attempts = async {
        find(shared, guest).await;
        loop {
            match GuestConnection::open(shared, guest) {
                Ok(connection) if connection.accepted().await => return connection,
                Ok(_refused) => {}
                Err(error) => tracing::warn!(%guest, %error, "cannot begin a connection"),
            }
            sleep(CONNECT_RETRY_INTERVAL).await;
        }
    };
    timeout_at(deadline, attempts).await.ok()
}

/// Waits until the place of the guest is known.
async fn find(shared: &Shared, guest: SocketAddrV4) {
    let found = shared.borrow().host.found();
    loop {
        let next_find = found.notified();
        if shared.borrow_mut().find(*guest.ip(), Instant::now()) {
            return;
        }
        let _ = timeout(QUESTION_INTERVAL, next_find).await;
    }
}
