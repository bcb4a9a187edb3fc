//! A bell that wakes the thread of a disk while it waits in the kernel, where no channel can.
//!
//! ```text
//!   thread                            whoever has something for it
//!   sleeps = true                     sends it into a channel
//!   are the channels empty?           does it sleep? then: sleeps = false, a byte into the socket
//!   waits for the socket, too
//! ```
//!
//! Each side writes before it reads, with a fence between, so one of them sees the other.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Bytes that are taken out of the socket at a time: there is one for each sleep, and one for each
/// cord that was dropped.
const BYTES: usize = 64;

/// The bell.
#[derive(Debug)]
pub(in crate::disk) struct Bell {
    rings: UnixStream,
    heard: UnixStream,
    sleeps: AtomicBool,
}

impl Bell {
    /// A bell of which nobody sleeps.
    ///
    /// # Errors
    /// The host gives no socket.
    pub fn new() -> io::Result<Arc<Self>> {
        let (rings, heard) = UnixStream::pair()?;
        rings.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        let sleeps = AtomicBool::new(false);
        Ok(Arc::new(Self { rings, heard, sleeps }))
    }

    /// The descriptor that becomes readable.
    pub fn descriptor(&self) -> RawFd {
        self.heard.as_raw_fd()
    }

    /// Wakes the thread, if it sleeps. To be called behind what it is to find.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeps.swap(false, Ordering::SeqCst) {
            self.ring_anyway();
        }
    }

    fn ring_anyway(&self) {
        // A full socket is readable.
        let _ = (&self.rings).write(&[1]);
    }

    /// True where the thread may wait in the kernel now: there is nothing for it.
    pub fn may_sleep(&self, nothing_waits: impl FnOnce() -> bool) -> bool {
        self.sleeps.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let may = nothing_waits();
        if !may {
            self.wakes();
        }
        may
    }

    /// The thread does not wait any more.
    pub fn wakes(&self) {
        self.sleeps.store(false, Ordering::SeqCst);
    }

    /// Takes out what made the descriptor readable.
    pub fn silence(&self) {
        let mut bytes = [0; BYTES];
        while (&self.heard).read(&mut bytes).is_ok_and(|count| count == BYTES) {}
    }
}

/// An end of the bell of who gives orders. It rings when it is dropped: maybe it was the last one.
#[derive(Clone, Debug)]
pub(in crate::disk) struct Cord(pub Arc<Bell>);

impl Drop for Cord {
    fn drop(&mut self) {
        self.0.ring_anyway();
    }
}
