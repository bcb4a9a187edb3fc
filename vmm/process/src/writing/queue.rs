//! Text that waits to be written: in order, bounded, and with every dropped byte accounted for.
//!
//! ```text
//!   push                                                             take
//!   ------> [ waiting text, at most `capacity` bytes ] <- lost_bytes ------> Portion
//!                                                                    <------ settle(written)
//! ```
//!
//! Text that does not fit pushes out the oldest text, up to the end of a line. Text that could not
//! be written is lost too. All lost text is older than everything that waits, so one number,
//! `lost_bytes`, stands for it, and the next portion begins with a mark that says it.

use std::collections::VecDeque;

/// Bytes that are written at once. A portion on its way is not counted among what waits: the bound
/// of a writer is its capacity and this.
pub const PORTION_BYTES_MAX: usize = 16 * 1024;

/// Bytes within which the end of a line is looked for when the oldest text is dropped; in text
/// without line ends it is cut anywhere. A bound, so that a push does not read the whole queue.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// The line that stands in the place of so many lost bytes, with its line end.
pub type Mark = fn(lost_bytes: u64) -> String;

/// Text that waits.
#[derive(Debug)]
pub struct Queue {
    waiting: VecDeque<u8>,
    capacity_bytes: usize,
    mark: Mark,
    lost_bytes: u64,
    dropped_bytes: u64,
    /// What was written last ended a line.
    at_line_start: bool,
}

/// What is written next.
#[derive(Debug, PartialEq, Eq)]
pub struct Portion {
    /// The mark, if there is one, and text.
    pub bytes: Vec<u8>,
    mark_bytes: usize,
    lost_bytes: u64,
}

impl Queue {
    /// An empty queue for so many bytes.
    #[must_use]
    pub fn new(capacity_bytes: usize, mark: Mark) -> Self {
        Self {
            waiting: VecDeque::new(),
            capacity_bytes,
            mark,
            lost_bytes: 0,
            dropped_bytes: 0,
            at_line_start: true,
        }
    }

    /// Takes text in; the oldest is dropped where there is no room.
    pub fn push(&mut self, text: &[u8]) {
        let too_many = (self.waiting.len() + text.len()).saturating_sub(self.capacity_bytes);
        if too_many > 0 {
            self.drop_oldest(too_many);
        }
        // Text that is longer than the whole queue keeps its end.
        let lost = text.len().saturating_sub(self.capacity_bytes);
        self.lose(lost as u64);
        self.waiting.extend(text.iter().skip(lost));
    }

    fn drop_oldest(&mut self, bytes: usize) {
        let bytes = bytes.min(self.waiting.len());
        let line_end = self
            .waiting
            .range(bytes.saturating_sub(1)..)
            .take(LINE_BYTES_MAX)
            .position(|byte| *byte == b'\n');
        let bytes = line_end.map_or(bytes, |at| bytes.max(bytes.saturating_sub(1) + at + 1));
        self.waiting.drain(..bytes);
        self.lose(bytes as u64);
    }

    fn lose(&mut self, bytes: u64) {
        self.lost_bytes += bytes;
        self.dropped_bytes += bytes;
    }

    /// True if `bytes` more can wait without anything being dropped. One text always can, however
    /// long.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.waiting.is_empty() || self.waiting.len() + bytes <= self.capacity_bytes
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes dropped since the beginning.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Drops everything that waits.
    pub fn give_up(&mut self) {
        let bytes = self.waiting.len();
        self.waiting.clear();
        self.lose(bytes as u64);
    }

    /// Takes out what is written next, if text waits.
    pub fn take(&mut self) -> Option<Portion> {
        if self.waiting.is_empty() {
            return None;
        }
        let lost_bytes = std::mem::take(&mut self.lost_bytes);
        let mut bytes = Vec::new();
        if lost_bytes > 0 {
            if !self.at_line_start {
                bytes.push(b'\n');
            }
            bytes.extend_from_slice((self.mark)(lost_bytes).as_bytes());
        }
        let mark_bytes = bytes.len();
        bytes.extend(self.waiting.drain(..self.waiting.len().min(PORTION_BYTES_MAX)));
        Some(Portion {
            bytes,
            mark_bytes,
            lost_bytes,
        })
    }

    /// Accounts for a portion of which the first `written` bytes were written, and no more can be.
    pub fn settle(&mut self, portion: &Portion, written: usize) {
        if let Some(last) = portion.bytes.get(..written).and_then(<[u8]>::last) {
            self.at_line_start = *last == b'\n';
        }
        if written < portion.mark_bytes {
            // Nobody has read a whole mark: the next one says these bytes again.
            self.lost_bytes += portion.lost_bytes;
        }
        let text_bytes = portion
            .bytes
            .len()
            .saturating_sub(written.max(portion.mark_bytes));
        self.lose(text_bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(lost_bytes: u64) -> String {
        format!("[{lost_bytes} lost]\n")
    }

    fn queue(capacity_bytes: usize) -> Queue {
        Queue::new(capacity_bytes, mark)
    }

    /// Takes a portion and writes all of it.
    fn write(queue: &mut Queue) -> String {
        let portion = queue.take().unwrap();
        queue.settle(&portion, portion.bytes.len());
        String::from_utf8(portion.bytes).unwrap()
    }

    #[test]
    fn text_leaves_in_the_order_it_came() {
        let mut queue = queue(100);
        queue.push(b"one\n");
        queue.push(b"two\n");
        assert_eq!(write(&mut queue), "one\ntwo\n");
        assert_eq!(queue.take(), None);
        assert_eq!(queue.dropped_bytes(), 0);
    }

    #[test]
    fn the_oldest_lines_make_room_and_a_mark_says_how_many_bytes() {
        let mut queue = queue(10);
        for line in ["aaa\n", "bbb\n", "ccc\n"] {
            queue.push(line.as_bytes());
        }
        assert_eq!(write(&mut queue), "[4 lost]\nbbb\nccc\n");
        assert_eq!(queue.dropped_bytes(), 4);
    }

    #[test]
    fn what_is_dropped_ends_with_a_line() {
        let mut queue = queue(10);
        queue.push(b"aaaaa\nbbb\n");
        queue.push(b"c\n");
        assert_eq!(write(&mut queue), "[6 lost]\nbbb\nc\n");
    }

    #[test]
    fn text_without_lines_is_cut_where_it_must_be() {
        let mut queue = queue(10);
        queue.push(b"0123456789");
        queue.push(b"ab");
        assert_eq!(write(&mut queue), "[2 lost]\n23456789ab");
    }

    #[test]
    fn text_longer_than_the_queue_keeps_its_end() {
        let mut queue = queue(4);
        queue.push(b"zz");
        queue.push(b"0123456789");
        assert_eq!(write(&mut queue), "[8 lost]\n6789");
    }

    #[test]
    fn a_mark_begins_a_line_of_its_own() {
        let mut queue = queue(4);
        queue.push(b"ab");
        assert_eq!(write(&mut queue), "ab");
        queue.push(b"01234567");
        assert_eq!(write(&mut queue), "\n[4 lost]\n4567");
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_said_once_writing_works_again() {
        let mut queue = queue(100);
        queue.push(b"aaa\n");
        let portion = queue.take().unwrap();
        queue.settle(&portion, 1);
        assert_eq!(queue.take(), None);
        queue.push(b"bbb\n");
        let portion = queue.take().unwrap();
        queue.settle(&portion, 0);
        assert_eq!(queue.dropped_bytes(), 7);
        queue.push(b"ccc\n");
        assert_eq!(write(&mut queue), "\n[7 lost]\nccc\n");
        queue.push(b"ddd\n");
        assert_eq!(write(&mut queue), "ddd\n");
    }

    #[test]
    fn a_mark_that_was_written_is_not_repeated() {
        let mut queue = queue(4);
        queue.push(b"0123456789");
        let portion = queue.take().unwrap();
        assert_eq!(portion.bytes, b"[6 lost]\n6789");
        queue.settle(&portion, "[6 lost]\n67".len());
        queue.push(b"x");
        assert_eq!(write(&mut queue), "\n[2 lost]\nx");
        assert_eq!(queue.dropped_bytes(), 8);
    }

    #[test]
    fn what_is_given_up_is_counted() {
        let mut queue = queue(100);
        queue.push(b"aaa\n");
        queue.give_up();
        assert_eq!((queue.waiting_bytes(), queue.dropped_bytes()), (0, 4));
    }

    proptest! {
        /// Whatever is pushed, dropped and refused: what is read is a part of what was said, in
        /// order, and the marks say the rest.
        #[test]
        fn every_byte_is_written_or_counted(
            steps in prop::collection::vec((prop::collection::vec(0u8..3, 0..9), 0usize..20), 0..40),
            capacity in 1usize..24,
        ) {
            let mut queue = queue(capacity);
            let (mut pushed, mut text_written) = (0u64, 0u64);
            for (text, accepted) in steps {
                let text: Vec<u8> = text.iter().map(|byte| if *byte == 0 { b'\n' } else { b'a' + byte }).collect();
                pushed += text.len() as u64;
                queue.push(&text);
                prop_assert!(queue.waiting_bytes() <= capacity);
                if let Some(portion) = queue.take() {
                    let written = accepted.min(portion.bytes.len());
                    queue.settle(&portion, written);
                    text_written += written.saturating_sub(portion.mark_bytes) as u64;
                }
            }
            prop_assert_eq!(pushed, text_written + queue.dropped_bytes() + queue.waiting_bytes() as u64);
        }
    }
}
