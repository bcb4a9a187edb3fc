//! Runs in which a machine heals: whoever dies is started again, joins, is armed, and is struck
//! again.

use super::plan::{Fault, Plan, Planned, Side};
use super::rng::{Rng, mix};

/// Makes the draws of this file others than those of the rest of the plan, which stays as it is for
/// every seed that does not heal.
const DRAWS: u64 = 0x6865_616c_696e_6773;

/// One seed in so many heals.
const SEEDS_A_HEALING: u64 = 6;

/// From one blow to the next: to notice, to claim, to load, to catch up.
const ROUND_TIMEOUTS: u64 = 9;

impl Plan {
    /// Makes some seeds heal.
    pub(super) fn draw_healing(&mut self, seed: u64) {
        let mut rng = Rng::new(mix(seed ^ DRAWS));
        // A plan in which a clock jumps is rare, and shows what no other does.
        let jumps = |planned: &Planned| matches!(planned.fault, Fault::Jump { .. });
        let only = self.only_narrow || self.only_crowded;
        if !rng.once_in(SEEDS_A_HEALING) || only || self.faults.iter().any(jumps) {
            return;
        }
        let timeout_ns = 10 * super::plan::MS;
        self.rescale(timeout_ns);
        self.heals = true;
        self.faults.clear();
        self.alone = rng.once_in(4);
        if rng.once_in(24) {
            self.kept_bytes_max = 1_000;
        }
        let rounds = match rng.below(16) {
            0 => 13,
            1..=4 => rng.within(3, 6),
            _ => rng.within(1, 2),
        };
        let mut at_ns = timeout_ns;
        for _ in 0..rounds {
            self.draw_round(&mut rng, at_ns);
            at_ns += ROUND_TIMEOUTS * timeout_ns;
        }
        self.calm_at_ns = at_ns + 2 * timeout_ns;
        if rng.once_in(12) {
            self.draw_slow_newcomer(&mut rng, at_ns);
        }
        for side in Side::BOTH {
            let at_ns = self.calm_at_ns - timeout_ns;
            self.faults.push(Planned {
                at_ns,
                fault: Fault::Start { side },
            });
        }
        self.faults.sort_by_key(|planned| planned.at_ns);
    }

    /// The same conditions at another timeout.
    fn rescale(&mut self, timeout_ns: u64) {
        let from_ns = self.timeout_ns;
        let scale = |ns: u64| (u128::from(ns) * u128::from(timeout_ns) / u128::from(from_ns)) as u64;
        self.skew_ns = scale(self.skew_ns) % (timeout_ns / 4);
        self.think_ns = scale(self.think_ns).max(1);
        if self.latency_ns > 200 * super::plan::US {
            self.latency_ns = timeout_ns / 20;
        }
        if self.jitter_ns > 100 * super::plan::US {
            self.jitter_ns = timeout_ns / 4;
        }
        self.payload_bytes = 16;
        self.timeout_ns = timeout_ns;
    }

    /// Somebody is struck, and started again a while later; and meanwhile, often, something else
    /// goes wrong.
    fn draw_round(&mut self, rng: &mut Rng, from_ns: u64) {
        let timeout_ns = self.timeout_ns;
        let side = Side::BOTH[rng.below(2) as usize];
        let reset = rng.once_in(3);
        let fault = match rng.below(8) {
            0 => Fault::Stop {
                side,
                for_ns: rng.within(timeout_ns, 4 * timeout_ns),
            },
            1 => Fault::Terminate { side },
            2 => Fault::Break { side },
            _ => Fault::Crash { side, reset },
        };
        let at_ns = from_ns + rng.below(timeout_ns);
        self.faults.push(Planned { at_ns, fault });
        let mut start_ns = from_ns + rng.within(timeout_ns, 3 * timeout_ns);
        for side in Side::BOTH {
            let at_ns = start_ns;
            self.faults.push(Planned {
                at_ns,
                fault: Fault::Start { side },
            });
        }
        // Loading takes up to three timeouts, and arming a little.
        for _ in 0..rng.below(3) {
            let at_ns = start_ns + rng.below(4 * timeout_ns);
            let fault = self.draw_trouble(rng);
            self.faults.push(Planned { at_ns, fault });
        }
        if rng.once_in(2) {
            start_ns += rng.within(timeout_ns, 4 * timeout_ns);
            let side = Side::BOTH[rng.below(2) as usize];
            self.faults.push(Planned {
                at_ns: start_ns,
                fault: Fault::Start { side },
            });
        }
    }

    /// Something that goes wrong while somebody joins.
    fn draw_trouble(&self, rng: &mut Rng) -> Fault {
        let side = Side::BOTH[rng.below(2) as usize];
        let timeout_ns = self.timeout_ns;
        let for_ns = rng.within(1, 3 * timeout_ns);
        match rng.below(24) {
            0..=4 => Fault::Crash {
                side,
                reset: rng.once_in(3),
            },
            5..=7 => Fault::Stop { side, for_ns },
            8..=10 => Fault::Cut { from: side, for_ns },
            11 => Fault::CutBoth { for_ns },
            12..=13 => Fault::Corrupt { from: side },
            14 => Fault::Break { side },
            15 => Fault::Terminate { side },
            16 => Fault::Repeat { from: side },
            17 => Fault::Delay {
                from: side,
                by_ns: rng.within(1, timeout_ns / 2),
                for_ns,
            },
            18 => Fault::SlowCpu {
                side,
                times: rng.within(2, 1_000),
                for_ns,
            },
            19 => Fault::StartAfresh,
            20 => Fault::PowerOff,
            21 => Fault::Store {
                fault: Self::draw_store(rng),
                for_ns,
            },
            _ => Self::draw_strike(rng, for_ns),
        }
    }

    /// One that joins, and may never catch up.
    fn draw_slow_newcomer(&mut self, rng: &mut Rng, from_ns: u64) {
        let timeout_ns = self.timeout_ns;
        self.calm_at_ns = from_ns + 44 * timeout_ns;
        (self.think_ns, self.clients) = (timeout_ns / 20, 4);
        let side = Side::BOTH[rng.below(2) as usize];
        let (times, for_ns) = (rng.within(20, 1_000), 40 * timeout_ns);
        let faults = [
            (0, Fault::Crash { side, reset: false }),
            (2, Fault::SlowCpu { side, times, for_ns }),
            (3, Fault::Start { side }),
        ];
        for (timeouts, fault) in faults {
            let at_ns = from_ns + timeouts * timeout_ns;
            self.faults.push(Planned { at_ns, fault });
        }
    }
}
