//! The connection to the peer, as the replica loop uses it.

use lockstep_logging_channel::transport::{ChannelError, RecordWriter};
use std::io::ErrorKind;

/// A reset comes from a peer whose process is gone.
#[must_use]
pub fn was_reset(error: &ChannelError) -> bool {
    match error {
        ChannelError::Broken { source, .. } => {
            matches!(
                source.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
            )
        }
        ChannelError::ClosedInRecord { .. } => true,
        _ => false,
    }
}

/// Writes what is queued; `closing`: and nothing will follow.
///
/// # Errors
/// The connection is of no use after it.
pub async fn write(writer: &mut RecordWriter, closing: bool) -> Result<(), ChannelError> {
    if closing {
        writer.close().await
    } else {
        writer.flush().await
    }
}
