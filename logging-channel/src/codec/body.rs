//! Bodies of records: the postcard encoding of the structure of their kind.

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::done::DoneEvent;
use crate::message::BODY_BYTES_MAX;
use crate::short::{ShortEvent, ShortOutput};
use crate::{Body, Completion, Kind, LogError};

/// Postcard's way into the end of a vector that is not its own.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends the encoding of `body` to `out`. After an error a part of it is there, for the caller to
/// remove.
pub(super) fn encode(kind: Kind, body: &impl Serialize, out: &mut Vec<u8>) -> Result<(), LogError> {
    let start = out.len();
    postcard::serialize_with_flavor(body, Append(out)).map_err(|_| LogError::Malformed { kind })?;
    let length = out.len() - start;
    if length > BODY_BYTES_MAX {
        return Err(LogError::Oversized {
            length,
            max: BODY_BYTES_MAX,
        });
    }
    Ok(())
}

/// The body of an entry of this kind.
pub(super) fn of_entry(kind: Kind, body: &[u8]) -> Result<Body, LogError> {
    Ok(match kind {
        Kind::Environment => Body::Environment(decode(kind, body)?),
        Kind::Value => Body::Value(decode(kind, body)?),
        Kind::ShortEvent => Body::Event(decode::<ShortEvent>(kind, body)?.into()),
        Kind::ShortOutput => Body::Output(decode::<ShortOutput>(kind, body)?.into()),
        Kind::Event => Body::Event(decode(kind, body)?),
        Kind::Output => Body::Output(decode(kind, body)?),
        Kind::Digests => Body::Digests(decode(kind, body)?),
        Kind::End => Body::End(decode(kind, body)?),
        Kind::Part => Body::Part(decode(kind, body)?),
        Kind::CommonPoint => Body::CommonPoint(decode(kind, body)?),
        Kind::HeldOutput => Body::HeldOutput(decode(kind, body)?),
        Kind::DiskCompletion => Body::Event(decode::<DoneEvent<Completion>>(kind, body)?.into()),
        Kind::DiskWrite => Body::DiskWrite(decode(kind, body)?),
        Kind::DiskChange => Body::DiskChange(decode(kind, body)?),
        found => {
            return Err(LogError::Misplaced {
                expected: "a log entry",
                found,
            });
        }
    })
}

/// The structure of this kind, which must take the whole body.
pub(super) fn decode<T: DeserializeOwned>(kind: Kind, body: &[u8]) -> Result<T, LogError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(LogError::Malformed { kind }),
    }
}
