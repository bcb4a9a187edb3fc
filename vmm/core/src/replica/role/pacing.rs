//! Amount of log that may be under way at once, so that a heartbeat sent behind it is still in
//! time.
//!
//! The channel is one stream in which nothing overtakes: a heartbeat, and the echo that renews the
//! lease, come after every entry sent before. Entries that fill a slow channel for longer than the
//! lease would end it. So what is sent and not acknowledged stays within a budget that the channel
//! empties in time, whatever lies between the two sides: queues of this process, of either kernel,
//! or of a router.
//!
//! An acknowledgement tells how long its entries were under way, with how many bytes before them.
//! The shortest such time, heartbeats among them, is taken for the way itself, and what is above it
//! for the queue. The budget grows while the queue takes less than half of its share, and shrinks
//! in proportion where it takes more. The share is a third of what the way leaves of the longest
//! round trip that the lease can bear: an eighth of the timeout, a quarter of the lease, where the
//! way is short.

use std::collections::VecDeque;

use lockstep_logging_channel::Sequence;

use super::Config;
use crate::replica::BATCH_BYTES_MAX;
use crate::replica::mutant::{self, Mutant};

/// The budget to begin with, and the smallest: one batch. Where nothing is under way a batch may
/// always be sent.
const BUDGET_BYTES_MIN: u64 = BATCH_BYTES_MAX as u64;

/// The way is measured anew after so many timeouts, by sending little for as long as that takes: it
/// may have grown, and a queue that never empties must not be taken for it.
const MEASURE_TIMEOUTS: u64 = 32;

/// Entries under way.
#[derive(Debug)]
struct UnderWay {
    last: Sequence,
    bytes: u64,
    sent_at_ns: u64,
    /// Bytes under way when they were sent, with their own.
    bytes_before: u64,
}

/// Entries under way, and how many more may be.
#[derive(Debug)]
pub(super) struct Pacing {
    /// The longest round trip that renews the lease without a pause.
    bearable_ns: u64,
    measure_ns: u64,
    budget_bytes_max: u64,
    budget_bytes: u64,
    under_way: VecDeque<UnderWay>,
    under_way_bytes: u64,
    /// The shortest time under way, since `measured_at_ns`.
    way_ns: Option<u64>,
    measured_at_ns: u64,
    /// Entries up to here were sent with an earlier budget.
    judged: Sequence,
    newest: Sequence,
    /// The budget keeps entries back.
    limits: bool,
}

impl Pacing {
    pub fn new(config: &Config, common: Sequence, now_ns: u64) -> Self {
        Self {
            bearable_ns: config.lease_ns() - config.heartbeat_ns(),
            measure_ns: MEASURE_TIMEOUTS * config.timeout_ns,
            budget_bytes_max: config.window_bytes_max,
            budget_bytes: BUDGET_BYTES_MIN,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            way_ns: None,
            measured_at_ns: now_ns,
            judged: common,
            newest: common,
            limits: false,
        }
    }

    /// True where so many bytes may be sent now.
    pub fn has_room(&mut self, bytes: u64) -> bool {
        if mutant::is(Mutant::FillTheChannel) {
            return true;
        }
        let fits = self.under_way_bytes == 0 || self.under_way_bytes + bytes <= self.budget_bytes;
        self.limits = !fits;
        fits
    }

    /// Entries are sent.
    pub fn sent(&mut self, now_ns: u64, last: Sequence, bytes: u64) {
        self.under_way_bytes += bytes;
        self.newest = last;
        self.under_way.push_back(UnderWay {
            last,
            bytes,
            sent_at_ns: now_ns,
            bytes_before: self.under_way_bytes,
        });
    }

    /// Entries up to `sequence` have come to the backup.
    pub fn acknowledged(&mut self, now_ns: u64, sequence: Sequence) {
        while let Some(come) = self.under_way.pop_front_if(|sent| sent.last <= sequence) {
            self.under_way_bytes -= come.bytes;
            self.judge(now_ns, &come);
        }
        if now_ns - self.measured_at_ns >= self.measure_ns {
            self.measured_at_ns = now_ns;
            self.way_ns = None;
            self.budget_bytes = BUDGET_BYTES_MIN;
            self.judged = self.newest;
        }
    }

    /// Something, a heartbeat perhaps, was under way for so long. Gives the shortest such time.
    pub fn round_trip(&mut self, took_ns: u64) -> u64 {
        let way_ns = self.way_ns.map_or(took_ns, |way_ns| way_ns.min(took_ns));
        self.way_ns = Some(way_ns);
        way_ns
    }

    /// Bytes under way.
    pub fn bytes(&self) -> u64 {
        self.under_way_bytes
    }

    fn judge(&mut self, now_ns: u64, come: &UnderWay) {
        if come.last <= self.judged {
            return;
        }
        let took_ns = now_ns - come.sent_at_ns;
        let way_ns = self.round_trip(took_ns);
        let share_ns = self.bearable_ns.saturating_sub(way_ns) / 3;
        let (aim_ns, queue_ns) = (way_ns + share_ns, took_ns - way_ns);
        // Bytes that would have taken as long as they may. At most a window, times at most an hour
        // and a half in nanoseconds: more than 64 bits.
        let scaled = u128::from(come.bytes_before) * u128::from(aim_ns) / u128::from(took_ns.max(1));
        let scaled = u64::try_from(scaled).unwrap_or(u64::MAX);
        if queue_ns > share_ns {
            self.budget_bytes = self.budget_bytes.min(scaled).max(BUDGET_BYTES_MIN);
            self.judged = self.newest;
        } else if queue_ns <= share_ns / 2 && self.limits {
            // One batch more always: less would never be used.
            let at_most = scaled.max(come.bytes_before + BUDGET_BYTES_MIN);
            let grown = (self.budget_bytes + come.bytes).min(at_most);
            self.budget_bytes = self.budget_bytes.max(grown).min(self.budget_bytes_max);
        }
    }
}
