//! What the two sides say while images are compared.

use lockstep_logging_channel::message::{Message, Piece};
use lockstep_logging_channel::transport::{ChannelError, Connection};
use lockstep_logging_channel::{Generation, Kind, Record};
use lockstep_process::causes::with_causes;
use lockstep_shared_disk::image::Equal;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// A side that sends or takes nothing for so long is given up: it has 128 MiB to read at most
/// between two records.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// A record, inside a piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// The disk is to be compared.
    Asked { disk: u8 },
    /// States of the newcomer's image, or the reason why it has no bitmap, and how many records with
    /// ranges of marked blocks follow.
    Marked {
        states: Result<Vec<State>, String>,
        records: u64,
    },
    /// Ranges of marked blocks, ascending.
    Ranges { ranges: Vec<(u64, u64)> },
    /// What is compared: so many blocks of so many, by the bitmap of a generation, or for a reason.
    Comparing {
        blocks: u64,
        of: u64,
        bitmap: Result<u32, String>,
    },
    /// Digests of the blocks of these ranges at the holder.
    Digests {
        disk: u8,
        ranges: Vec<(u64, u64)>,
        digests: Vec<[u8; 32]>,
    },
    /// Those of them that differ at the newcomer.
    Wanted { blocks: Vec<u64> },
    /// Content of a block; no bytes where all of them are zeros.
    Block {
        disk: u8,
        block: u64,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The newcomer's image is in this state, once it is durable.
    Equal { disk: u8, state: State },
    /// There is no more for now.
    All,
    /// All of it is durable at the newcomer.
    Durable,
}

/// A state of an image: name of the join, number since then, and generation of the machine.
pub(super) type State = ([u8; 16], u64, u32);

pub(super) fn of_state(state: &State) -> Equal {
    let (join, number, generation) = *state;
    Equal {
        join,
        number,
        generation: Generation(generation),
    }
}

pub(super) fn to_state(equal: &Equal) -> State {
    (equal.join, equal.number, equal.generation.0)
}

/// Sends it. Gives its bytes.
pub(super) async fn send(connection: &mut Connection, said: &Said) -> Result<usize, String> {
    let bytes = postcard::to_stdvec(said).map_err(|why| with_causes(&why))?;
    let length = bytes.len();
    let queued = connection.writer.queue(&Message::Piece(Piece { bytes }));
    queued.map_err(|why| with_causes(&why))?;
    match timeout(STALL_LIMIT, connection.writer.flush()).await {
        Ok(written) => written.map_err(|why| with_causes(&why))?,
        Err(_) => return Err(format!("it took nothing for {} s", STALL_LIMIT.as_secs())),
    }
    Ok(length)
}

/// Receives one.
pub(super) async fn receive(connection: &mut Connection) -> Result<Said, String> {
    match timeout(STALL_LIMIT, connection.reader.read()).await {
        Ok(said) => read(said),
        Err(_) => Err(format!("nothing came for {} s", STALL_LIMIT.as_secs())),
    }
}

fn read(said: Result<Option<Record>, ChannelError>) -> Result<Said, String> {
    match said {
        Ok(Some(Record::Message(Message::Piece(Piece { bytes })))) => {
            postcard::from_bytes(&bytes).map_err(|why| format!("it sent what is not about a disk: {why}"))
        }
        Ok(Some(Record::Message(Message::Goodbye(goodbye)))) => {
            Err(format!("it said goodbye: {}", goodbye.reason.escape_debug()))
        }
        Ok(Some(record)) => Err(format!(
            "it sent {} where {} was expected",
            record.kind(),
            Kind::Piece
        )),
        Ok(None) => Err("it closed the connection".to_owned()),
        Err(why) => Err(with_causes(&why)),
    }
}
