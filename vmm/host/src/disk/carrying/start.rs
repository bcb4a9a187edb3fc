//! The choice of what carries the requests of a disk out.

use super::carrier::Carrier;
use super::ring::Ring;
use super::threads::{Threads, WORKERS};
use crate::disk::setting::Aio;
use crate::disk::target::Target;
use crate::error::RunError;

/// Starts what is to carry out the requests of the disk `name`, as its setting says: without one
/// io_uring, if it can be used here, and threads where not. Says which it is, and why.
///
/// # Errors
/// [`RunError`]: io_uring was asked for and cannot be used, or the host starts no thread.
pub(in crate::disk) fn start(
    name: &str,
    thread: &str,
    aio: Option<Aio>,
    target: &Target,
) -> Result<Box<dyn Carrier>, RunError> {
    let why = match aio {
        Some(Aio::Threads) => "as its setting says".to_owned(),
        _ if !target.storage.is_raw() && aio.is_none() => "its bytes are not in a raw image".to_owned(),
        _ if !target.storage.is_raw() => {
            let why =
                format!("{name}: io_uring is for raw images, and its bytes are elsewhere; leave aio out");
            return Err(RunError::setting("disk", why));
        }
        _ => match Ring::start(thread, target) {
            Ok(ring) => {
                tracing::info!("{name}: io_uring carries its requests out");
                return Ok(Box::new(ring));
            }
            Err(source) if aio.is_some() => {
                let name = name.to_owned();
                return Err(RunError::NoIoUring { name, source });
            }
            Err(why) => why.to_string(),
        },
    };
    let starts = RunError::other("cannot start the threads of a disk");
    let threads = Threads::start(thread, target).map_err(starts)?;
    tracing::info!("{name}: {WORKERS} threads carry its requests out: {why}");
    Ok(Box::new(threads))
}
