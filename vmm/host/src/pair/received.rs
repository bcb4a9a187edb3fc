//! Records that came over the channel, ready for the role machine.

use lockstep_core::replica::driving::{Received, together};
use lockstep_logging_channel::Record;
use lockstep_logging_channel::transport::{ChannelError, RecordReader};

/// Records taken from the channel together.
const RECORDS_TOGETHER_MAX: usize = 512;

/// `first`, which `reader` has just given, and what has come with it, in order; and how the channel
/// broke behind that, if it did.
pub fn with_what_follows(reader: &mut RecordReader, first: Record) -> (Vec<Received>, Option<ChannelError>) {
    let mut records = vec![(first, reader.record_bytes().len() as u64)];
    let mut broken = None;
    while records.len() < RECORDS_TOGETHER_MAX {
        match reader.buffered() {
            Ok(Some(record)) => records.push((record, reader.record_bytes().len() as u64)),
            Ok(None) => break,
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    (together(records), broken)
}
