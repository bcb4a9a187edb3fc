//! Flow control of the primary: what was sent and is not replayed stays within the window; the rest waits
//! here, and the guest with it.

use std::collections::VecDeque;

use lockstep_logging_channel::Sequence;

use super::pacing::Pacing;
use super::{Batch, Config};
use crate::replica::mutant::{self, Mutant};

#[derive(Debug)]
struct Sent {
    last: Sequence,
    bytes: u64,
    appended_at_ns: u64,
}

/// Entries on their way to being replayed.
#[derive(Debug)]
pub(super) struct Flow<E> {
    window_bytes_max: u64,
    sent: VecDeque<Sent>,
    sent_bytes: u64,
    pacing: Pacing,
    waiting: VecDeque<(u64, Batch<E>)>,
    waiting_bytes: u64,
    /// The newest entry appended.
    appended: Sequence,
    /// The newest entry sent.
    pub sent_through: Sequence,
}

impl<E> Flow<E> {
    pub fn new(config: &Config, common: Sequence, now_ns: u64) -> Self {
        Self {
            window_bytes_max: config.window_bytes_max,
            sent: VecDeque::new(),
            sent_bytes: 0,
            pacing: Pacing::new(config, common, now_ns),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            appended: common,
            sent_through: common,
        }
    }

    /// Takes entries that are to be sent.
    pub fn append(&mut self, now_ns: u64, batch: Batch<E>) {
        assert!(
            batch.first == self.appended.next(),
            "{:?} appended after {:?}",
            batch.first,
            self.appended
        );
        assert!(
            batch.last >= batch.first,
            "a batch from {:?} to {:?}",
            batch.first,
            batch.last
        );
        self.appended = batch.last;
        self.waiting_bytes += batch.bytes;
        self.waiting.push_back((now_ns, batch));
    }

    /// The next entries to send, if the window has room for them, and the channel. One batch always fits an empty window.
    pub fn next(&mut self, now_ns: u64) -> Option<Batch<E>> {
        let bytes = self.waiting.front()?.1.bytes;
        if self.is_full(bytes) && !mutant::is(Mutant::IgnoreWindow) || !self.pacing.has_room(bytes) {
            return None;
        }
        let (appended_at_ns, batch) = self.waiting.pop_front()?;
        self.waiting_bytes -= bytes;
        self.sent_bytes += bytes;
        self.sent_through = batch.last;
        self.pacing.sent(now_ns, batch.last, bytes);
        self.sent.push_back(Sent {
            last: batch.last,
            bytes,
            appended_at_ns,
        });
        Some(batch)
    }

    fn is_full(&self, more_bytes: u64) -> bool {
        self.sent_bytes > 0 && self.sent_bytes + more_bytes > self.window_bytes_max
    }

    /// Whether entries wait because the window is full.
    pub fn window_is_full(&self) -> bool {
        let waiting = self.waiting.front();
        waiting.is_some_and(|(_, batch)| self.is_full(batch.bytes))
    }

    /// The backup has received up to and including entry `sequence`.
    pub fn acknowledged(&mut self, now_ns: u64, sequence: Sequence) {
        self.pacing.acknowledged(now_ns, sequence);
    }

    /// A heartbeat and its echo took so long.
    pub fn round_trip(&mut self, took_ns: u64) {
        self.pacing.round_trip(took_ns);
    }

    /// Bytes appended that the backup has not acknowledged.
    pub fn unacknowledged_bytes(&self) -> u64 {
        self.pacing.bytes() + self.waiting_bytes
    }

    /// The backup has replayed up to and including entry `sequence`.
    pub fn replayed(&mut self, sequence: Sequence) {
        while let Some(sent) = self.sent.pop_front_if(|sent| sent.last <= sequence) {
            self.sent_bytes -= sent.bytes;
        }
    }

    /// Whether everything appended was sent.
    pub fn all_sent(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The newest entry appended.
    pub fn appended(&self) -> Sequence {
        self.appended
    }

    /// Bytes that wait to be sent.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Bytes appended and not replayed.
    pub fn behind_bytes(&self) -> u64 {
        self.sent_bytes + self.waiting_bytes
    }

    /// Age of the oldest entry not known to be replayed.
    pub fn lag_ns(&self, now_ns: u64) -> u64 {
        let oldest_sent = self.sent.front().map(|sent| sent.appended_at_ns);
        let oldest = oldest_sent.or_else(|| self.waiting.front().map(|(at_ns, _)| *at_ns));
        now_ns.saturating_sub(oldest.unwrap_or(now_ns))
    }
}
