//! An open attachment and its two halves.
//!
//! The sending half belongs to whoever releases outputs and never makes it wait: one non-blocking
//! write, in the caller's thread, for one frame or for a whole batch. What the other side has no
//! room for is dropped and counted, as on any network; only the rest of a frame that left in part
//! is kept, for the stream's sake. The receiving half waits in tokio, or in `poll(2)` where there
//! is no runtime.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::unix::AsyncFd;

use super::framing::{LENGTH_BYTES, append_frame};
use super::tap::{Carrier, carrier};
use super::{Announcement, Attachment, FRAME_BYTES_MAX, FrameDecoder, FramingError, NetworkError};

/// Asked of the kernel for the socket's send buffer, in bytes: room for what 512 connections have
/// in flight at 1,600 bytes each. The kernel grants what `net.core.wmem_max` allows.
const SEND_BUFFER_BYTES: usize = 512 * 1600;

enum Wire {
    Stream(UnixStream),
    Tap(File),
    Nothing,
}

impl Wire {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Stream(stream) => Some(stream.as_fd()),
            Self::Tap(file) => Some(file.as_fd()),
            Self::Nothing => None,
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| match self {
            Self::Stream(stream) => (&mut &*stream).read(buffer),
            Self::Tap(file) => (&mut &*file).read(buffer),
            Self::Nothing => Err(io::ErrorKind::WouldBlock.into()),
        })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| match self {
            Self::Stream(stream) => (&mut &*stream).write(bytes),
            Self::Tap(file) => (&mut &*file).write(bytes),
            Self::Nothing => Err(io::ErrorKind::WouldBlock.into()),
        })
    }
}

/// Signals kick vCPU threads all the time: an interrupted call is made again.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// An open attachment.
pub struct Link {
    wire: Arc<Wire>,
    attachment: Attachment,
}

impl Link {
    pub(super) fn stream(stream: UnixStream, attachment: &Attachment) -> Result<Self, NetworkError> {
        let asked = setsockopt(&stream, sockopt::SndBuf, &SEND_BUFFER_BYTES).map_err(io::Error::from);
        asked
            .and_then(|()| stream.set_nonblocking(true))
            .map_err(|source| NetworkError::Broken {
                attachment: attachment.to_string(),
                source,
            })?;
        Ok(Self {
            wire: Arc::new(Wire::Stream(stream)),
            attachment: attachment.clone(),
        })
    }

    pub(super) fn tap(file: File, attachment: &Attachment) -> Self {
        Self {
            wire: Arc::new(Wire::Tap(file)),
            attachment: attachment.clone(),
        }
    }

    pub(super) fn nothing() -> Self {
        Self {
            wire: Arc::new(Wire::Nothing),
            attachment: Attachment::None,
        }
    }

    /// The two halves; call it inside the tokio runtime in which the receiver will be awaited.
    ///
    /// # Errors
    /// Where the runtime cannot watch the descriptor.
    pub fn split(self) -> Result<(FrameSender, FrameReceiver), NetworkError> {
        let watched = match self.wire.descriptor() {
            Some(_) => Some(watch(Arc::clone(&self.wire)).map_err(|source| {
                let attachment = self.attachment.to_string();
                NetworkError::Runtime { attachment, source }
            })?),
            None => None,
        };
        let inbox = Inbox::of(&self);
        Ok((FrameSender::of(self), FrameReceiver { watched, inbox }))
    }

    /// The two halves, for use without a runtime.
    #[must_use]
    pub fn split_blocking(self) -> (FrameSender, BlockingReceiver) {
        let inbox = Inbox::of(&self);
        let wire = Arc::clone(&self.wire);
        (FrameSender::of(self), BlockingReceiver { wire, inbox })
    }
}

/// A wire that has a descriptor.
struct Watched(Arc<Wire>);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0
            .descriptor()
            .map_or(-1, |descriptor| descriptor.as_raw_fd())
    }
}

#[allow(unsafe_code)] // tokio offers no safe way to watch a descriptor that is not one of its own types.
fn watch(wire: Arc<Wire>) -> io::Result<AsyncFd<Watched>> {
    // SAFETY: the wire owns its descriptor, is never changed, and lives as long as the `AsyncFd`
    // that holds it.
    unsafe { AsyncFd::register(Watched(wire)) }.map_err(io::Error::from)
}

/// The sending half. Dropping it does not close the link; dropping both halves does.
pub struct FrameSender {
    wire: Arc<Wire>,
    attachment: Attachment,
    /// Rest of a frame that left in part, then, during a call, the frames to send.
    stream: Vec<u8>,
    dropped_frames: u64,
}

impl FrameSender {
    fn of(link: Link) -> Self {
        Self {
            wire: link.wire,
            attachment: link.attachment,
            stream: Vec::new(),
            dropped_frames: 0,
        }
    }

    /// Sends one frame, or drops and counts it. Never waits.
    ///
    /// # Errors
    /// Where the link has ended.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), NetworkError> {
        self.send_batch(std::iter::once(frame))
    }

    /// Sends several frames in order, to the switch with a single system call. Never waits: what
    /// there is no room for is dropped and counted.
    ///
    /// # Errors
    /// Where the link has ended.
    pub fn send_batch<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) -> Result<(), NetworkError> {
        let sent = match &*self.wire {
            Wire::Stream(_) => self.send_stream(frames),
            Wire::Tap(_) => self.send_tap(frames),
            Wire::Nothing => {
                self.dropped_frames += frames.count() as u64;
                Ok(())
            }
        };
        sent.map_err(|source| {
            let attachment = self.attachment.to_string();
            match source.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    NetworkError::Closed { attachment }
                }
                _ => NetworkError::Broken { attachment, source },
            }
        })
    }

    /// Tells the switch in which generation of which pair the sender acts. Other attachments have
    /// nobody to tell, and are sent nothing.
    ///
    /// # Errors
    /// Where the link has ended.
    pub fn announce(&mut self, announcement: Announcement) -> Result<(), NetworkError> {
        match &*self.wire {
            Wire::Stream(_) => self.send(&announcement.to_frame()),
            Wire::Tap(_) | Wire::Nothing => Ok(()),
        }
    }

    /// Frames dropped so far: those the other side had no room for, those above
    /// [`FRAME_BYTES_MAX`], and all where there is no network.
    #[must_use]
    pub fn dropped_frames(&self) -> u64 {
        self.dropped_frames
    }

    fn send_stream<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let rest_bytes = self.stream.len();
        for frame in frames {
            if frame.len() <= FRAME_BYTES_MAX {
                append_frame(&mut self.stream, frame);
            } else {
                self.dropped_frames += 1;
            }
        }
        let written = match self.wire.write(&self.stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            outcome => outcome?,
        };
        if written < self.stream.len() {
            self.drop_unsent(rest_bytes, written);
        }
        self.stream.drain(..written);
        Ok(())
    }

    /// Drops and counts the frames that have not begun to leave. The stream begins with
    /// `rest_bytes` of an older frame, and its first `written` bytes have left.
    fn drop_unsent(&mut self, rest_bytes: usize, written: usize) {
        let mut kept = rest_bytes;
        let mut boundary = rest_bytes;
        while let Some(length) = self
            .stream
            .get(boundary..)
            .and_then(<[u8]>::first_chunk::<LENGTH_BYTES>)
        {
            let has_begun = boundary < written;
            boundary += LENGTH_BYTES + u32::from_be_bytes(*length) as usize;
            if has_begun {
                kept = boundary;
            } else {
                self.dropped_frames += 1;
            }
        }
        self.stream.truncate(kept);
    }

    fn send_tap<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        for frame in frames {
            match self.wire.write(frame) {
                Ok(_) => {}
                Err(error) if is_lost_on_the_wire(&error) => self.dropped_frames += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// True for an error by which a TAP interface reports a frame that is lost while the interface
/// itself is well: its queue is full, it is down (EIO), or the frame is too short to be one
/// (EINVAL).
fn is_lost_on_the_wire(error: &io::Error) -> bool {
    let lost = [libc::EAGAIN, libc::EIO, libc::EINVAL, libc::ENOBUFS];
    error.raw_os_error().is_some_and(|number| lost.contains(&number))
}

/// What was read and not yet taken.
struct Inbox {
    attachment: Attachment,
    held: Held,
}

enum Held {
    Stream(Box<FrameDecoder>),
    Packet { buffer: Vec<u8>, length: Option<usize> },
}

impl Inbox {
    fn of(link: &Link) -> Self {
        let held = match &*link.wire {
            Wire::Stream(_) => Held::Stream(Box::default()),
            Wire::Tap(_) => Held::Packet {
                buffer: vec![0; FRAME_BYTES_MAX],
                length: None,
            },
            Wire::Nothing => Held::Packet {
                buffer: Vec::new(),
                length: None,
            },
        };
        Self {
            attachment: link.attachment.clone(),
            held,
        }
    }

    fn take(&mut self) -> Result<Option<Vec<u8>>, NetworkError> {
        match &mut self.held {
            Held::Stream(decoder) => match decoder.next_frame() {
                Ok(frame) => Ok(frame.map(<[u8]>::to_vec)),
                Err(source) => Err(framing(&self.attachment, source)),
            },
            Held::Packet { buffer, length } => {
                let packet = length.take().and_then(|length| buffer.get(..length));
                Ok(packet.map(<[u8]>::to_vec))
            }
        }
    }

    /// One read, into the room there is.
    fn fill(&mut self, wire: &Wire) -> io::Result<Fill> {
        match &mut self.held {
            Held::Stream(decoder) => {
                let space = decoder.space();
                let room = space.len();
                let count = wire.read(space)?;
                decoder.filled(count);
                Ok(match count {
                    0 => Fill::End,
                    _ if count < room => Fill::Emptied,
                    _ => Fill::More,
                })
            }
            Held::Packet { buffer, length } => {
                *length = Some(wire.read(buffer)?);
                Ok(Fill::More)
            }
        }
    }

    fn failed(&self, source: io::Error) -> NetworkError {
        let attachment = self.attachment.to_string();
        match source.kind() {
            io::ErrorKind::ConnectionReset => NetworkError::Closed { attachment },
            _ => NetworkError::Broken { attachment, source },
        }
    }

    fn ended(&self) -> NetworkError {
        match &self.held {
            Held::Stream(decoder) => match decoder.finish() {
                Ok(()) => NetworkError::Closed {
                    attachment: self.attachment.to_string(),
                },
                Err(source) => framing(&self.attachment, source),
            },
            Held::Packet { .. } => NetworkError::InterfaceGone {
                attachment: self.attachment.to_string(),
            },
        }
    }
}

/// What one read did.
enum Fill {
    More,
    Emptied,
    End,
}

fn framing(attachment: &Attachment, source: FramingError) -> NetworkError {
    NetworkError::Framing {
        attachment: attachment.to_string(),
        source,
    }
}

/// The receiving half, for tokio.
pub struct FrameReceiver {
    watched: Option<AsyncFd<Watched>>,
    inbox: Inbox,
}

impl FrameReceiver {
    /// The next frame; waits for ever where there is no network. Cancellation-safe: dropped while
    /// it waits, it loses nothing.
    ///
    /// # Errors
    /// Where the link has ended, and ever after.
    pub async fn recv(&mut self) -> Result<Vec<u8>, NetworkError> {
        let Some(watched) = &self.watched else {
            return std::future::pending().await;
        };
        loop {
            if let Some(frame) = self.inbox.take()? {
                return Ok(frame);
            }
            let mut ready = watched
                .readable()
                .await
                .map_err(|error| self.inbox.failed(error))?;
            match ready.try_io(|watched| self.inbox.fill(&watched.get_ref().0)) {
                Err(_would_block) => {}
                Ok(Ok(Fill::More)) => {}
                Ok(Ok(Fill::Emptied)) => ready.clear_ready(),
                Ok(Ok(Fill::End)) => return Err(self.inbox.ended()),
                Ok(Err(error)) => return Err(self.inbox.failed(error)),
            }
        }
    }

    /// Condition of the link, as far as it can be asked for.
    pub(super) fn carrier(&self) -> Carrier {
        match self.watched.as_ref().map(|watched| &*watched.get_ref().0) {
            Some(Wire::Tap(file)) => carrier(file),
            Some(Wire::Stream(_) | Wire::Nothing) | None => Carrier::Up,
        }
    }

    /// The next frame if it was read already. Never waits.
    ///
    /// # Errors
    /// What was read is no frame.
    pub fn buffered(&mut self) -> Result<Option<Vec<u8>>, NetworkError> {
        self.inbox.take()
    }
}

/// The receiving half, for a thread of its own.
pub struct BlockingReceiver {
    wire: Arc<Wire>,
    inbox: Inbox,
}

impl BlockingReceiver {
    /// The next frame, or none after `timeout` or a signal.
    ///
    /// # Errors
    /// Where the link has ended, and ever after.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>, NetworkError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(frame) = self.inbox.take()? {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.wait(left)? {
                return Ok(None);
            }
            match self.inbox.fill(&self.wire) {
                Ok(Fill::More | Fill::Emptied) => {}
                Ok(Fill::End) => return Err(self.inbox.ended()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.inbox.failed(error)),
            }
        }
    }

    /// Whether there is something to read before `left` has passed.
    fn wait(&self, left: Duration) -> Result<bool, NetworkError> {
        // Rounded up to whole milliseconds, so that a wait is never shorter than asked.
        let milliseconds = left.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        let mut watched: Vec<_> = self
            .wire
            .descriptor()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .into_iter()
            .collect();
        match poll(&mut watched, timeout) {
            Ok(count) => Ok(count > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(error) => Err(self.inbox.failed(error.into())),
        }
    }
}
