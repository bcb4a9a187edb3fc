//! A machine is begun where it can be joined: a side with an address of its own listens there, for
//! a moment, before it claims. So an address that is wrong or in use leaves nothing in the store.

use super::storage::{LOOK_PAUSE, patiently};
use super::terms::{CONNECT_PATIENCE, channel_failed};
use crate::error::RunError;
use lockstep_logging_channel::transport::{Address, ChannelError, Listener};
use lockstep_shared_disk::{Asked, MachineName, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Time in which an address that is in use may turn out to be that of the other side: two starts on
/// one host, by the same words, look at the same time.
const PATIENCE: Duration = Duration::from_secs(2);

/// The address at which a side is to listen, as it was found so far.
#[derive(Debug, Default)]
pub struct Listening {
    address: Option<Address>,
    /// It has been in use since then.
    since: Option<Instant>,
}

impl Listening {
    /// At this address; nothing is asked where a side has none of its own.
    #[must_use]
    pub fn at(address: Option<&Address>) -> Self {
        Self {
            address: address.cloned(),
            since: None,
        }
    }

    /// True where it can listen. False: the store must be looked at again, as whoever listens there
    /// may be about to hold the machine.
    ///
    /// # Errors
    /// [`RunError::Channel`]: it cannot.
    pub async fn is_possible(&mut self) -> Result<bool, RunError> {
        let Some(address) = &self.address else {
            return Ok(true);
        };
        match Listener::bind(address).await {
            Ok(_) => self.since = None,
            Err(why @ ChannelError::InUse { .. }) => {
                let since = *self.since.get_or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE {
                    return Err(channel_failed(why));
                }
            }
            Err(why) => return Err(channel_failed(why)),
        }
        Ok(self.since.is_none())
    }
}

/// Before anything is written into `store`: where nobody has claimed the machine, this side begins
/// it, and has to be able to listen.
///
/// # Errors
/// As [`Listening::is_possible`], and those of the store.
pub async fn before_the_first(
    store: &dyn Store,
    name: &MachineName,
    address: Option<&Address>,
) -> Result<(), RunError> {
    let mut listening = Listening::at(address);
    while !is_claimed(store, name).await? {
        if listening.is_possible().await? {
            break;
        }
        sleep(LOOK_PAUSE).await;
    }
    Ok(())
}

async fn is_claimed(store: &dyn Store, name: &MachineName) -> Result<bool, RunError> {
    let place = store.place();
    let Some(machine) = patiently(&place, CONNECT_PATIENCE, || store.find(name)).await? else {
        return Ok(false);
    };
    let newest = || -> Asked<_> { Arc::clone(&machine).newest() };
    Ok(patiently(&place, CONNECT_PATIENCE, newest).await?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_shared_disk::Generation;
    use lockstep_shared_disk::fake::{self, FakeStore};

    fn in_use() -> (std::net::TcpListener, Address) {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp:{}", other.local_addr().unwrap());
        (other, address.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_in_use_is_refused_and_nothing_is_in_the_store() {
        let store = FakeStore::default();
        let (_other, address) = in_use();
        let name = MachineName::default();
        let refused = before_the_first(&store, &name, Some(&address)).await;
        let why = refused.unwrap_err().to_string();
        assert!(why.contains(&address.to_string()), "{why}");
        assert_eq!(store.names().await.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_the_holder_of_the_machine_uses_is_not_needed() {
        let store = FakeStore::default();
        let (_other, address) = in_use();
        let name = MachineName::default();
        let _ = store.machine(&name).claim_now(&fake::claim(Generation::FIRST, 1));
        before_the_first(&store, &name, Some(&address)).await.unwrap();
    }

    #[tokio::test]
    async fn an_address_that_is_free_again_is_taken() {
        let (other, address) = in_use();
        let mut listening = Listening::at(Some(&address));
        assert!(!listening.is_possible().await.unwrap());
        drop(other);
        assert!(listening.is_possible().await.unwrap());
    }
}
