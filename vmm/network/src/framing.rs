//! Frames on a stream: a 4-byte big-endian length, then that many bytes of an Ethernet frame.
//!
//! The same as the `stream` network backend of QEMU, so that a QEMU can sit on the switch too. The
//! decoder is pure: bytes go in wherever a read left them, and frames come out as slices of its
//! buffer, which grows with what is read at once, up to a bound, and never by a length on the wire.

/// Bytes of the length before every frame.
pub const LENGTH_BYTES: usize = 4;

/// The longest frame, in bytes: 65,535 of IPv4 packet, 14 of Ethernet header, rounded up to even.
pub const FRAME_BYTES_MAX: usize = 65_550;

/// Bytes of a new decoder's buffer: a few ordinary frames. Most streams never bring more at once.
const BUFFER_BYTES_MIN: usize = 4 << 10;

/// Bytes it grows to: the longest frame with its length, and as much again, so that one read can
/// bring the rest of a long frame together with many short ones.
const BUFFER_BYTES_MAX: usize = 2 * (LENGTH_BYTES + FRAME_BYTES_MAX);

/// The other side does not speak this framing; the stream cannot be resynchronised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A length above the limit.
    #[error(
        "a frame of {length_bytes} bytes is announced, the longest is {FRAME_BYTES_MAX}: not an Ethernet stream"
    )]
    Oversize {
        /// The length on the wire.
        length_bytes: u32,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, {missing_bytes} bytes short")]
    Truncated {
        /// Bytes that would have completed the frame or its length.
        missing_bytes: usize,
    },
}

/// Takes a byte stream apart into frames.
pub struct FrameDecoder {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameDecoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES_MIN],
            start: 0,
            end: 0,
        }
    }

    /// Space for the next bytes of the stream; never empty once [`Self::next_frame`] has returned
    /// none.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Tells that the first `count` bytes of [`Self::space`] were filled. Where that was all of it,
    /// more may wait.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
        if self.end == self.buffer.len() {
            self.buffer.resize((2 * self.end).min(BUFFER_BYTES_MAX), 0);
        }
    }

    /// The next whole frame, or none until more bytes come.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FramingError> {
        let Some(length_bytes) = self.announced() else {
            return Ok(None);
        };
        let length = length_bytes as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FramingError::Oversize { length_bytes });
        }
        let from = self.start + LENGTH_BYTES;
        let to = from + length;
        if to > self.end {
            return Ok(None);
        }
        self.start = to;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        Ok(self.buffer.get(from..to))
    }

    /// Whether the stream may end here.
    pub fn finish(&self) -> Result<(), FramingError> {
        let held = self.end - self.start;
        let wanted = LENGTH_BYTES + self.announced().map_or(0, |length| length as usize);
        match held {
            0 => Ok(()),
            _ => Err(FramingError::Truncated {
                missing_bytes: wanted.saturating_sub(held),
            }),
        }
    }

    fn announced(&self) -> Option<u32> {
        let held = self.buffer.get(self.start..self.end)?;
        held.first_chunk::<LENGTH_BYTES>()
            .map(|bytes| u32::from_be_bytes(*bytes))
    }
}

/// Appends `frame` with its length to `stream`. The caller has checked [`FRAME_BYTES_MAX`].
pub fn append_frame(stream: &mut Vec<u8>, frame: &[u8]) {
    stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    stream.extend_from_slice(frame);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(
        decoder: &mut FrameDecoder,
        mut bytes: &[u8],
        chunk: usize,
    ) -> Result<Vec<Vec<u8>>, FramingError> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let space = decoder.space();
            let count = chunk.min(bytes.len()).min(space.len());
            space[..count].copy_from_slice(&bytes[..count]);
            decoder.filled(count);
            bytes = &bytes[count..];
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame.to_vec());
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1600), 0..12),
            chunk in 1_usize..5000,
        ) {
            let mut stream = Vec::new();
            frames.iter().for_each(|frame| append_frame(&mut stream, frame));
            let mut decoder = FrameDecoder::new();

            let decoded = feed(&mut decoder, &stream, chunk).unwrap();

            prop_assert_eq!(decoded, frames);
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn garbage_gives_frames_or_an_error_and_makes_it_grow_by_what_came_only(
            bytes in prop::collection::vec(any::<u8>(), 0..4000),
            chunk in 1_usize..700,
        ) {
            let mut decoder = FrameDecoder::new();
            let _ = feed(&mut decoder, &bytes, chunk);
            prop_assert!(decoder.buffer.len() <= BUFFER_BYTES_MIN.max(2 * bytes.len()));
        }
    }

    #[test]
    fn the_longest_frame_passes() {
        let mut stream = Vec::new();
        append_frame(&mut stream, &vec![7; FRAME_BYTES_MAX]);
        for chunk in [1000, stream.len()] {
            let mut decoder = FrameDecoder::new();
            let frames = feed(&mut decoder, &stream, chunk).unwrap();
            assert_eq!(frames, vec![vec![7; FRAME_BYTES_MAX]]);
            assert!(decoder.buffer.len() <= BUFFER_BYTES_MAX);
        }
    }

    #[test]
    fn a_longer_one_is_refused_by_its_length_alone() {
        let length_bytes = FRAME_BYTES_MAX as u32 + 1;
        let refused = feed(&mut FrameDecoder::new(), &length_bytes.to_be_bytes(), 4);
        assert_eq!(refused, Err(FramingError::Oversize { length_bytes }));
    }

    #[test]
    fn an_end_inside_a_frame_is_told() {
        let mut decoder = FrameDecoder::new();
        feed(&mut decoder, &[0, 0, 0, 9, 1, 2], 6).unwrap();
        assert_eq!(
            decoder.finish(),
            Err(FramingError::Truncated { missing_bytes: 7 })
        );
    }
}
