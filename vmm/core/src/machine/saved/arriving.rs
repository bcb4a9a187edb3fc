//! Sections that arrive in pieces: over the channel, or in the parts of a common point.

use super::SavedError;
use super::format::{HEADER_BYTES, Header, Section};
use lockstep_logging_channel::Digest;

/// Bytes that have arrived, and are of no section that was taken.
#[derive(Debug, Default)]
pub struct Arriving(Vec<u8>);

impl Arriving {
    /// Takes the next piece.
    pub fn put(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// The next section and its digest, if all of it has arrived.
    ///
    /// # Errors
    /// [`SavedError`]: a damaged or malformed section.
    pub fn take(&mut self) -> Result<Option<(Section, Digest)>, SavedError> {
        let Some((header, rest)) = self.0.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::decode(*header)?;
        let Some(body) = rest.get(..header.body_bytes) else {
            return Ok(None);
        };
        let section = Section::decode(&header, body)?;
        self.0.drain(..HEADER_BYTES + header.body_bytes);
        Ok(Some((section, header.digest)))
    }

    /// True where nothing of a further section has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
