//! Replies, written straight into the connection's output. RESP2, "Redis serialization protocol specification".

use crate::number::Decimal;
use alloc::vec::Vec;

/// Bytes one reply may have. What asks for more is told so, and the connection ends: 16 MiB hold 16 of the longest
/// strings or some 500,000 keys.
pub(crate) const REPLY_BYTES_MAX: usize = 16 << 20;

/// The reply to one request.
pub(crate) struct Reply<'a> {
    output: &'a mut Vec<u8>,
    start: usize,
    overflowed: bool,
}

impl<'a> Reply<'a> {
    /// A reply behind what `output` holds already.
    pub(crate) fn new(output: &'a mut Vec<u8>) -> Self {
        let start = output.len();
        Self {
            output,
            start,
            overflowed: false,
        }
    }

    /// Whether more was written than a reply may have, or than there is memory for.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Takes back what was written.
    pub(crate) fn clear(&mut self) {
        self.output.truncate(self.start);
        self.overflowed = false;
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        let length = self
            .output
            .len()
            .saturating_sub(self.start)
            .saturating_add(bytes.len());
        if self.overflowed || length > REPLY_BYTES_MAX || self.output.try_reserve(bytes.len()).is_err() {
            self.overflowed = true;
            return;
        }
        self.output.extend_from_slice(bytes);
    }

    /// `OK`.
    pub(crate) fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A status word.
    pub(crate) fn status(&mut self, word: &str) {
        self.raw(b"+");
        self.raw(word.as_bytes());
        self.raw(b"\r\n");
    }

    /// An error: its code and text in parts, where line ends become spaces.
    pub(crate) fn error(&mut self, parts: &[&[u8]]) {
        self.raw(b"-");
        for part in parts {
            for piece in part.split_inclusive(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
                match piece.split_last() {
                    Some((b'\r' | b'\n' | 0, text)) => {
                        self.raw(text);
                        self.raw(b" ");
                    }
                    _ => self.raw(piece),
                }
            }
        }
        self.raw(b"\r\n");
    }

    /// An integer.
    pub(crate) fn integer(&mut self, value: i64) {
        match value {
            0 => self.raw(b":0\r\n"),
            1 => self.raw(b":1\r\n"),
            _ => self.number(b":", value),
        }
    }

    /// How many there are of something.
    pub(crate) fn count(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// One or zero.
    pub(crate) fn flag(&mut self, value: bool) {
        self.integer(i64::from(value));
    }

    /// A string of any bytes.
    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        self.number(b"$", bytes.len() as i64);
        self.raw(bytes);
        self.raw(b"\r\n");
    }

    /// An integer as a string.
    pub(crate) fn bulk_number(&mut self, value: u64) {
        self.bulk(Decimal::unsigned(value).as_bytes());
    }

    /// A string, or that there is none.
    pub(crate) fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.nil(),
        }
    }

    /// No string.
    pub(crate) fn nil(&mut self) {
        self.raw(b"$-1\r\n");
    }

    /// No array.
    pub(crate) fn nil_array(&mut self) {
        self.raw(b"*-1\r\n");
    }

    /// The head of an array; its elements follow.
    pub(crate) fn array(&mut self, elements: usize) {
        self.number(b"*", elements as i64);
    }

    /// An array of strings.
    pub(crate) fn bulks<'b>(&mut self, elements: impl ExactSizeIterator<Item = &'b [u8]>) {
        self.array(elements.len());
        for element in elements {
            self.bulk(element);
            if self.overflowed {
                return;
            }
        }
    }

    fn number(&mut self, kind: &[u8], value: i64) {
        self.raw(kind);
        self.raw(Decimal::signed(value).as_bytes());
        self.raw(b"\r\n");
    }
}
