//! What waits to leave by a port: a stream of framed frames, bounded.

use std::task::Waker;

use lockstep_network::append_frame;

/// Bytes that may wait for a port: 1 MiB, what 680 full frames take.
pub(super) const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Bytes above which the host's own connections hold back instead of having frames dropped: a
/// quarter, so that what other stations send still finds room.
pub(super) const HOST_BYTES_MAX: usize = QUEUE_BYTES_MAX / 4;

/// The queue of one port.
#[derive(Debug, Default)]
pub(super) struct PortQueue {
    stream: Vec<u8>,
    sent: usize,
    waker: Option<Waker>,
    dropped_frames: u64,
}

impl PortQueue {
    /// Appends a frame and wakes who writes; drops and counts it where there is no room.
    pub(super) fn push(&mut self, frame: &[u8]) {
        if self.waiting_bytes() + frame.len() >= QUEUE_BYTES_MAX {
            self.dropped_frames += 1;
            return;
        }
        append_frame(&mut self.stream, frame);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The bytes to write next.
    pub(super) fn waiting(&self) -> &[u8] {
        self.stream.get(self.sent..).unwrap_or_default()
    }

    /// How many there are.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.stream.len() - self.sent
    }

    /// Tells that `count` bytes were written.
    pub(super) fn written(&mut self, count: usize) {
        self.sent = (self.sent + count).min(self.stream.len());
        // Sent bytes are cut off when they are the larger part, so that each byte is moved at most
        // once.
        if self.sent == self.stream.len() {
            self.stream.clear();
            self.sent = 0;
        } else if self.sent > self.stream.len() / 2 {
            self.stream.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Has `waker` woken when the next frame is pushed.
    pub(super) fn wake_at_push(&mut self, waker: &Waker) {
        self.waker = Some(waker.clone());
    }

    /// Frames dropped so far.
    pub(super) fn dropped_frames(&self) -> u64 {
        self.dropped_frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_written_in_order_however_it_is_cut() {
        let mut queue = PortQueue::default();
        let mut written = Vec::new();
        for number in 0..100_u8 {
            queue.push(&[number; 10]);
            let count = queue.waiting_bytes().min(usize::from(number) % 23);
            written.extend_from_slice(&queue.waiting()[..count]);
            queue.written(count);
        }
        written.extend_from_slice(queue.waiting());
        let expected: Vec<u8> = (0..100_u8)
            .flat_map(|number| [&[0, 0, 0, 10][..], &[number; 10]].concat())
            .collect();
        assert_eq!(written, expected);
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_takes_again_when_there_is_room() {
        let mut queue = PortQueue::default();
        (0..2000).for_each(|_| queue.push(&[0; 1514]));
        let (held, dropped) = (queue.waiting_bytes(), queue.dropped_frames());
        assert!(
            held <= QUEUE_BYTES_MAX && dropped > 1000,
            "{held} bytes held, {dropped} dropped"
        );

        queue.written(held);
        queue.push(&[0; 1514]);

        assert_eq!((queue.waiting_bytes(), queue.dropped_frames()), (1518, dropped));
    }
}
