//! Flow control of the primary: what was sent and is not replayed stays within the window, and what
//! the backup has to keep of outputs within its bound; the rest waits here, and the guest with it.

use std::collections::VecDeque;

use lockstep_logging_channel::Sequence;

use super::kept::Kept;
use super::pacing::Pacing;
use super::{Batch, Config, KEPT_BATCH_BYTES};
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
    config: Config,
    sent: VecDeque<Sent>,
    sent_bytes: u64,
    pacing: Pacing,
    kept: Kept,
    /// The backup was told that outputs up to here have left.
    told: Sequence,
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
            config: *config,
            sent: VecDeque::new(),
            sent_bytes: 0,
            pacing: Pacing::new(config, common, now_ns),
            kept: Kept::default(),
            told: common,
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

    /// The next entries to send, if the window has room for them, the channel, and the backup for
    /// their outputs. One batch always fits where there is nothing.
    pub fn next(&mut self, now_ns: u64) -> Option<Batch<E>> {
        let bytes = self.waiting.front()?.1.bytes;
        let is_full = self.is_full(bytes) && !mutant::is(Mutant::IgnoreWindow);
        if is_full || self.waits_for_telling() || !self.pacing.has_room(bytes) {
            return None;
        }
        let (appended_at_ns, batch) = self.waiting.pop_front()?;
        self.waiting_bytes -= bytes;
        self.sent_bytes += bytes;
        self.sent_through = batch.last;
        self.pacing.sent(now_ns, batch.last, bytes);
        self.kept.add(batch.last, batch.output_bytes);
        self.sent.push_back(Sent {
            last: batch.last,
            bytes,
            appended_at_ns,
        });
        Some(batch)
    }

    fn is_full(&self, more_bytes: u64) -> bool {
        self.sent_bytes > 0 && self.sent_bytes + more_bytes > self.config.window_bytes_max
    }

    /// True where entries wait because the backup has to keep too many outputs.
    fn waits_for_telling(&self) -> bool {
        let waiting = self.waiting.front();
        waiting.is_some_and(|(_, batch)| !self.kept.has_room(batch.output_bytes, &self.config))
    }

    /// True where entries wait until the backup is told that outputs up to and including entry
    /// `released` have left.
    pub fn is_to_tell(&self, released: Sequence) -> bool {
        released > self.told && self.waits_for_telling()
    }

    /// The backup is told that outputs up to and including entry `released` have left, before
    /// anything else is sent.
    pub fn told(&mut self, released: Sequence) {
        self.told = released;
        self.kept.left(released);
    }

    /// True where entries wait because the window is full.
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

    /// True where everything appended was sent.
    pub fn all_sent(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The newest entry appended.
    pub fn appended(&self) -> Sequence {
        self.appended
    }

    /// Memory of what waits to be sent, in bytes.
    pub fn waiting_memory_bytes(&self) -> u64 {
        self.waiting_bytes + self.waiting.len() as u64 * KEPT_BATCH_BYTES
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
