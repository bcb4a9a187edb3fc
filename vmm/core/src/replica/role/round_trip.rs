//! Time that a heartbeat and its echo take: measured all the time, and reported where the timeout
//! cannot bear it. Also the renewals of the lease by it.

use super::{Config, Lease, Report};

/// The best of so many counts: those of one timeout, so that a single late one is nothing to tell.
const ROUND_TRIPS: usize = 8;

/// People are told so often at most.
pub(super) const TELL_NS: u64 = 10_000_000_000;

/// The newest round trips.
#[derive(Debug)]
pub(super) struct RoundTrips {
    newest_ns: [u64; ROUND_TRIPS],
    count: usize,
    tell_from_ns: u64,
}

impl RoundTrips {
    pub fn new() -> Self {
        Self {
            newest_ns: [0; ROUND_TRIPS],
            count: 0,
            tell_from_ns: 0,
        }
    }

    /// An echo has come after `round_trip_ns`. Gives what is to be told of it.
    pub fn take(&mut self, now_ns: u64, round_trip_ns: u64, config: &Config) -> Option<Report> {
        self.newest_ns.rotate_right(1);
        if let Some(newest) = self.newest_ns.first_mut() {
            *newest = round_trip_ns;
        }
        self.count = (self.count + 1).min(ROUND_TRIPS);
        let best_ns = self.newest_ns.iter().copied().min().unwrap_or(0);
        let tell =
            self.count == ROUND_TRIPS && best_ns > config.round_trip_ns_max() && now_ns >= self.tell_from_ns;
        tell.then(|| {
            self.tell_from_ns = now_ns + TELL_NS;
            Report::RoundTripTooLong {
                round_trip_ns: best_ns,
                timeout_ns: config.timeout_ns,
                timeout_ns_min: Config::timeout_ns_for(best_ns),
            }
        })
    }

    /// The newest; 0 before the first.
    pub fn newest_ns(&self) -> u64 {
        self.newest_ns.first().copied().unwrap_or(0)
    }
}

/// Renewals of the lease.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    pub lease: Lease,
    newest_at_ns: Option<u64>,
}

impl Renewals {
    /// A lease that stood until `until_ns`, and counted for `lease_ns`, is renewed.
    pub fn take(&mut self, now_ns: u64, until_ns: u64, lease_ns: u64) {
        // The first is not a renewal: before it there was no lease.
        if let Some(newest_at_ns) = self.newest_at_ns.replace(now_ns) {
            let gap_ns = now_ns - newest_at_ns;
            let age_ns = (now_ns + lease_ns).saturating_sub(until_ns);
            self.lease.gap_ns_max = self.lease.gap_ns_max.max(gap_ns);
            self.lease.age_ns_max = self.lease.age_ns_max.max(age_ns);
            self.lease.lapses += u64::from(now_ns >= until_ns);
        }
    }
}
