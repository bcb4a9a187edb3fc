//! The handshake, against a peer that says anything. Whatever it says, in whatever pieces,
//! listening or not: a pair that is one, or an error with a text; never a panic, and never a wait
//! that the peer's going does not end. After a handshake, whole records come until something is
//! wrong.
//!
//! The first byte chooses: bit 0 which side is tested, 1 whether the peer's records are sealed, 2
//! whether it opens as it should, 3 whether it is deaf; bits 4 and 5 how its bytes are cut.

use std::cell::RefCell;
use std::time::Duration;

use lockstep_logging_channel::handshake::{HandshakeError, SOFTWARE_VERSION, as_backup, as_primary};
use lockstep_logging_channel::message::{Beginning, FollowsBy, Hello, Welcome};
use lockstep_logging_channel::transport::Connection;
use lockstep_logging_channel::{Environment, EnvironmentField, FORMAT_VERSION, Generation, Message, codec};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, Runtime};

use super::input::Input;
use super::seal;

/// Never reached: the peer always goes.
const LIMIT: Duration = Duration::from_secs(600);

/// Bytes under way in each direction where the peer listens: less than a record.
const WIRE_BYTES: usize = 64;

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_time().build().expect("a runtime"));
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choices = input.byte();
    let chooses = |bit: u8| choices & 1 << bit != 0;
    let is_primary = chooses(0);
    let mut said = if chooses(2) {
        opening(is_primary)
    } else {
        Vec::new()
    };
    let rest = input.rest();
    said.extend(if chooses(1) {
        seal::sealed(rest)
    } else {
        rest.to_vec()
    });
    let piece_bytes = [said.len().max(1), 1, 7, 61][usize::from(choices >> 4 & 0b11)];
    let is_deaf = chooses(3);
    RUNTIME.with_borrow(|runtime| runtime.block_on(meet(is_primary, &said, piece_bytes, is_deaf)));
}

async fn meet(is_primary: bool, said: &[u8], piece_bytes: usize, is_deaf: bool) {
    // A deaf peer must be able to say everything before it goes.
    let wire_bytes = if is_deaf { said.len().max(1) } else { WIRE_BYTES };
    let (here, there) = tokio::io::duplex(wire_bytes);
    let (read, write) = tokio::io::split(here);
    let mut connection = Connection::new(read, write, "the peer");
    let side = async {
        shake(&mut connection, is_primary).await;
        // The peer must not be kept waiting for somebody to listen.
        drop(connection);
    };
    tokio::join!(side, speak(there, said, piece_bytes, is_deaf));
}

/// The peer: says everything, and goes. It hears everything meanwhile, or nothing.
async fn speak(peer: DuplexStream, said: &[u8], piece_bytes: usize, is_deaf: bool) {
    let (mut hears, mut says) = tokio::io::split(peer);
    let speaking = async {
        for piece in said.chunks(piece_bytes) {
            // Fails where the other side has parted, which it may at any time.
            if says.write_all(piece).await.is_err() {
                return;
            }
        }
        let _ = says.shutdown().await;
    };
    let hearing = async {
        let mut heard = Vec::new();
        if !is_deaf {
            let _ = hears.read_to_end(&mut heard).await;
        }
    };
    tokio::join!(speaking, hearing);
}

async fn shake(connection: &mut Connection, is_primary: bool) {
    let environment = environment();
    let outcome = if is_primary {
        let heard = as_primary(connection, &environment, beginning(), LIMIT).await;
        heard.map(|hello| {
            assert_eq!(hello.software_version, SOFTWARE_VERSION);
            hello.environment
        })
    } else {
        let welcomed = as_backup(connection, &environment, LIMIT).await;
        welcomed.map(|(adopted, _)| adopted)
    };
    match outcome {
        Ok(agreed) => {
            assert_eq!(agreed.first_difference(&environment), None);
            listen(connection).await;
        }
        Err(error) => {
            assert!(!matches!(error, HandshakeError::Silent { .. }), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }
}

/// Checks that each record after a handshake is what its bytes encode, until the peer disconnects
/// or something is wrong.
async fn listen(connection: &mut Connection) {
    while let Ok(Some(record)) = connection.reader.read().await {
        let (decoded, length) = codec::decode(connection.reader.record_bytes()).unwrap();
        assert_eq!(
            (decoded, length),
            (record, connection.reader.record_bytes().len())
        );
    }
}

fn environment() -> Environment {
    let field = |name: &str, value: &str| EnvironmentField {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    Environment {
        pair: *b"0123456789abcdef",
        compared: vec![field("guest image digest", "00ff"), field("memory", "64 MiB")],
        informative: vec![field("host", "first")],
    }
}

fn beginning() -> Beginning {
    Beginning::joining(Generation(7), FollowsBy::Replay)
}

/// What the peer of the tested side opens with when all is well.
fn opening(is_primary: bool) -> Vec<u8> {
    let environment = environment();
    let messages = if is_primary {
        let software_version = SOFTWARE_VERSION.to_owned();
        vec![Message::Hello(Hello {
            software_version,
            format_version: FORMAT_VERSION,
            environment,
        })]
    } else {
        let beginning = Message::Beginning(beginning());
        vec![Message::Welcome(Welcome { environment }), beginning]
    };
    let mut bytes = Vec::new();
    for message in messages {
        codec::encode_message(&message, &mut bytes).unwrap();
    }
    bytes
}
