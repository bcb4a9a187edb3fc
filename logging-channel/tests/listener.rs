//! A listener, and connections that are gone before it takes them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::time::Duration;

use lockstep_logging_channel::transport::{Address, ChannelError, Listener, connect};
use tokio::time::timeout;

/// Longer than anything here takes; a test that hangs fails by it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A port scan: each connection is reset before it is accepted.
#[tokio::test]
async fn connections_that_are_reset_before_they_are_accepted_do_not_end_a_listener() {
    let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
    let Address::Tcp { host, port } = listener.address().clone() else {
        panic!()
    };
    for _ in 0..100 {
        let stranger = tokio::net::TcpStream::connect((host.as_str(), port))
            .await
            .unwrap();
        stranger.set_zero_linger().unwrap();
        drop(stranger);
    }
    let _backup = connect(listener.address(), PATIENCE).await.unwrap();
    let mut accepted = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    // A reset connection says so when it is read; the last one is still there.
    for _ in 0..100 {
        let reset = timeout(PATIENCE, accepted.reader.read()).await.unwrap();
        assert!(matches!(reset, Err(ChannelError::Broken { .. })), "{reset:?}");
        accepted = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    }
    assert!(
        timeout(Duration::from_millis(1), accepted.reader.read())
            .await
            .is_err()
    );
}
