//! Splits a byte stream into requests: arrays of bulk strings, or inline lines.
//!
//! ```text
//!            '*' line                 '$' line              last bulk
//!  Start ───────────────► Multibulk ◄──────────► Bulk ───────────────► Complete
//!    └── any other line ──────────────────────────────────────────────► Complete
//! ```
//!
//! What was looked at once is not looked at again when more bytes come. Whatever is refused depends on the stream
//! alone, not on how it was cut into pieces.

use crate::arguments::{Arguments, Span};
use crate::inline;
use crate::number::{Decimal, parse_i64};
use crate::reply::Reply;
use alloc::vec::Vec;

/// Bytes of the longest string, Redis's `proto-max-bulk-len`.
pub(crate) const BULK_BYTES_MAX: usize = 1 << 20;

/// Bytes of the longest line that gives a length or an inline request, as in Redis.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Bytes a whole request may have: the longest string, as many bytes of others, and a line's length for the heads.
pub(crate) const REQUEST_BYTES_MAX: usize = 2 * BULK_BYTES_MAX + LINE_BYTES_MAX;

/// Arguments a request may announce, as in Redis.
const ARGUMENTS_MAX: i64 = i32::MAX as i64;

/// Spans kept for the next request. Requests with more give the memory back.
const SPANS_KEPT: usize = 1024;

/// What is wrong with the stream. Nothing after it can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProtocolError {
    /// The number of arguments is no number or too large.
    MultibulkLength,
    /// The length of an argument is no number, negative or too large.
    BulkLength,
    /// An argument starts with this byte.
    Expected(u8),
    /// A line without an end; which kind of line.
    TooBig(&'static str),
    /// Quotes of an inline request do not match.
    Unbalanced,
    /// The request as a whole is too long.
    RequestTooBig,
}

impl ProtocolError {
    /// Writes the error.
    pub(crate) fn write(self, reply: &mut Reply<'_>) {
        const START: &[u8] = b"ERR Protocol error: ";
        match self {
            Self::MultibulkLength => reply.error(&[START, b"invalid multibulk length"]),
            Self::BulkLength => reply.error(&[START, b"invalid bulk length"]),
            Self::Expected(byte) => reply.error(&[START, b"expected '$', got '", &[byte], b"'"]),
            Self::TooBig(line) => reply.error(&[START, b"too big ", line.as_bytes()]),
            Self::Unbalanced => reply.error(&[START, b"unbalanced quotes in request"]),
            Self::RequestTooBig => {
                let limit = Decimal::unsigned(REQUEST_BYTES_MAX as u64);
                reply.error(&[START, b"request longer than ", limit.as_bytes(), b" bytes"]);
            }
        }
    }
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More bytes are needed.
    Incomplete,
    /// A request of so many bytes. It may have no arguments; then nothing is to be done.
    Complete(usize),
}

#[derive(Clone, Copy)]
enum State {
    Start,
    Multibulk { missing: u32 },
    Bulk { missing: u32, length: u32 },
}

/// Reads one request after the other.
pub(crate) struct Reader {
    state: State,
    /// Bytes of the request understood so far.
    position: usize,
    /// Bytes after `position` in which no line end is.
    searched: usize,
    spans: Vec<Span>,
    /// The words of an inline request, without their quotes.
    words: Vec<u8>,
    inline: bool,
}

impl Reader {
    /// A reader at the start of a stream.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Start,
            position: 0,
            searched: 0,
            spans: Vec::new(),
            words: Vec::new(),
            inline: false,
        }
    }

    /// Goes on with the request that `bytes` start with; they are those of the last call and perhaps more.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Progress, ProtocolError> {
        loop {
            let done = match self.state {
                State::Start if bytes.first() == Some(&b'*') => self.read_multibulk_head(bytes)?,
                State::Start => self.read_inline(bytes)?,
                State::Multibulk { missing: 0 } => return Ok(Progress::Complete(self.position)),
                State::Multibulk { missing } => self.read_bulk_head(bytes, missing)?,
                State::Bulk { missing, length } => self.read_bulk(bytes, missing, length),
            };
            if !done {
                return Ok(Progress::Incomplete);
            }
        }
    }

    /// The arguments of the complete request that `bytes` start with.
    pub(crate) fn arguments<'a>(&'a self, bytes: &'a [u8]) -> Arguments<'a> {
        Arguments::new(if self.inline { &self.words } else { bytes }, &self.spans)
    }

    /// Makes ready for the next request.
    pub(crate) fn reset(&mut self) {
        self.state = State::Start;
        self.position = 0;
        self.searched = 0;
        self.inline = false;
        self.words.clear();
        self.spans.clear();
        self.spans.shrink_to(SPANS_KEPT);
        self.words.shrink_to(SPANS_KEPT);
    }

    fn read_multibulk_head(&mut self, bytes: &[u8]) -> Result<bool, ProtocolError> {
        let Some(line) = self.take_head(bytes, "mbulk count string")? else {
            return Ok(false);
        };
        let count = line
            .get(1..)
            .and_then(parse_i64)
            .filter(|count| *count <= ARGUMENTS_MAX);
        let count = count.ok_or(ProtocolError::MultibulkLength)?;
        self.state = State::Multibulk {
            missing: u32::try_from(count).unwrap_or(0),
        };
        Ok(true)
    }

    fn read_bulk_head(&mut self, bytes: &[u8], missing: u32) -> Result<bool, ProtocolError> {
        let Some(&first) = bytes.get(self.position) else {
            return Ok(false);
        };
        let Some(line) = self.take_head(bytes, "bulk count string")? else {
            return Ok(false);
        };
        if first != b'$' {
            return Err(ProtocolError::Expected(first));
        }
        let length = line
            .get(1..)
            .and_then(parse_i64)
            .and_then(|length| usize::try_from(length).ok());
        let length = length
            .filter(|length| *length <= BULK_BYTES_MAX)
            .ok_or(ProtocolError::BulkLength)?;
        if self.position.saturating_add(length) > REQUEST_BYTES_MAX {
            return Err(ProtocolError::RequestTooBig);
        }
        self.state = State::Bulk {
            missing,
            length: length as u32,
        };
        Ok(true)
    }

    fn read_bulk(&mut self, bytes: &[u8], missing: u32, length: u32) -> bool {
        let end = self
            .position
            .saturating_add(length as usize)
            .saturating_add(b"\r\n".len());
        if bytes.len() < end {
            return false;
        }
        self.spans.push(Span {
            start: self.position as u32,
            length,
        });
        self.position = end;
        self.state = State::Multibulk {
            missing: missing.saturating_sub(1),
        };
        true
    }

    fn read_inline(&mut self, bytes: &[u8]) -> Result<bool, ProtocolError> {
        let Some(line) = self.take_line(bytes, b'\n', 1, "inline request")? else {
            return Ok(false);
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.inline = true;
        inline::split(line, &mut self.words, &mut self.spans).map_err(|_| ProtocolError::Unbalanced)?;
        self.state = State::Multibulk { missing: 0 };
        Ok(true)
    }

    fn take_head<'a>(
        &mut self,
        bytes: &'a [u8],
        what: &'static str,
    ) -> Result<Option<&'a [u8]>, ProtocolError> {
        self.take_line(bytes, b'\r', b"\r\n".len(), what)
    }

    /// Takes a line without its end, which is `end_bytes` long and starts with `end`.
    fn take_line<'a>(
        &mut self,
        bytes: &'a [u8],
        end: u8,
        end_bytes: usize,
        what: &'static str,
    ) -> Result<Option<&'a [u8]>, ProtocolError> {
        let rest = bytes.get(self.position..).unwrap_or_default();
        let window = rest.get(..=LINE_BYTES_MAX).unwrap_or(rest);
        let unseen = window.get(self.searched..).unwrap_or_default();
        let Some(offset) = unseen.iter().position(|byte| *byte == end) else {
            self.searched = window.len();
            return if window.len() > LINE_BYTES_MAX {
                Err(ProtocolError::TooBig(what))
            } else {
                Ok(None)
            };
        };
        let length = self.searched.saturating_add(offset);
        if rest.len() < length.saturating_add(end_bytes) {
            self.searched = length;
            return Ok(None);
        }
        self.searched = 0;
        self.position = self.position.saturating_add(length).saturating_add(end_bytes);
        Ok(rest.get(..length))
    }
}
