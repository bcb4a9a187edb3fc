//! One client's connection: the bytes it sent that are not done yet, its name, and what it gets.

use crate::client::Client;
use crate::command;
use crate::context::{Context, Moment};
use crate::database::{Clock, Database};
use crate::reply::Reply;
use crate::request::{Progress, REQUEST_BYTES_MAX, Reader};
use alloc::vec::Vec;

/// Bytes of output after which a session stops working on its input, until the next call.
pub const OUTPUT_BYTES_FULL: usize = 256 << 10;

/// Bytes kept for later that no caller reaches who heeds [`Session::has_pending`]: an incomplete request is shorter.
const BACKLOG_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;

/// Bytes of memory an idle session keeps for its input.
const BUFFER_BYTES_KEPT: usize = 16 << 10;

/// What to do with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Keep it open.
    Open,
    /// Close it, after what is in the output was sent.
    Close,
}

/// One client's connection.
pub struct Session {
    client: Client,
    reader: Reader,
    /// Input kept for later; up to `consumed` it is done.
    buffer: Vec<u8>,
    consumed: usize,
    pending: bool,
    next: Next,
}

impl Session {
    /// A connection with this number, which `CLIENT ID` shows.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            client: Client::new(id),
            reader: Reader::new(),
            buffer: Vec::new(),
            consumed: 0,
            pending: false,
            next: Next::Open,
        }
    }

    /// Whether complete requests may wait because the output was full. Send the output, then call
    /// [`Session::receive`] with no input before taking more from the connection.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.pending
    }

    /// Bytes of input that are kept because their request is incomplete or the output was full.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(self.consumed)
    }

    /// Takes bytes the client sent and appends replies to `output`.
    ///
    /// An incomplete request is kept. Work stops once `output` holds [`OUTPUT_BYTES_FULL`] bytes, so that it has at
    /// most these and one reply (16 MiB) more; the rest of the input is kept for the next call.
    pub fn receive(
        &mut self,
        database: &mut Database,
        clock: &mut dyn Clock,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Next {
        if self.next == Next::Close {
            return Next::Close;
        }
        let mut moment = Moment::new(clock);
        if self.buffer.is_empty() {
            let done = self.run(database, &mut moment, input, output);
            self.keep(input.get(done..).unwrap_or_default());
        } else {
            self.keep(input);
            let buffer = core::mem::take(&mut self.buffer);
            let waiting = buffer.get(self.consumed..).unwrap_or_default();
            let done = self.run(database, &mut moment, waiting, output);
            self.buffer = buffer;
            self.consumed = self.consumed.saturating_add(done);
            self.compact();
        }
        if self.next == Next::Close {
            self.release();
        }
        self.next
    }

    /// Does the requests that `bytes` start with. Returns the bytes of those done.
    fn run(
        &mut self,
        database: &mut Database,
        moment: &mut Moment<'_>,
        bytes: &[u8],
        output: &mut Vec<u8>,
    ) -> usize {
        let mut done = 0;
        while self.next == Next::Open {
            let rest = bytes.get(done..).unwrap_or_default();
            self.pending = output.len() >= OUTPUT_BYTES_FULL && !rest.is_empty();
            if self.pending || rest.is_empty() {
                break;
            }
            match self.reader.advance(rest) {
                Ok(Progress::Incomplete) => break,
                Ok(Progress::Complete(length)) => {
                    self.execute(database, moment, rest, output);
                    done = done.saturating_add(length);
                    self.reader.reset();
                }
                Err(error) => {
                    error.write(&mut Reply::new(output));
                    self.next = Next::Close;
                }
            }
        }
        done
    }

    fn execute(
        &mut self,
        database: &mut Database,
        moment: &mut Moment<'_>,
        request: &[u8],
        output: &mut Vec<u8>,
    ) {
        let arguments = self.reader.arguments(request);
        if arguments.len() == 0 {
            return;
        }
        let reply = Reply::new(output);
        let mut context = Context {
            database,
            client: &mut self.client,
            moment,
            reply,
            next: Next::Open,
        };
        command::execute(&mut context, &arguments);
        self.next = context.next;
    }

    /// Keeps bytes for later. A caller that never stops, or a machine without memory, loses the connection.
    fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.buffered_bytes() > BACKLOG_BYTES_MAX || self.buffer.try_reserve(bytes.len()).is_err() {
            self.next = Next::Close;
            return;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Drops what is done, once it is at least as much as what is not: each byte is moved a bounded number of times.
    fn compact(&mut self) {
        if self.buffered_bytes() > self.consumed {
            return;
        }
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        if self.buffer.is_empty() {
            self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    /// A closed session keeps nothing.
    fn release(&mut self) {
        self.buffer = Vec::new();
        self.consumed = 0;
        self.pending = false;
        self.reader = Reader::new();
    }
}
