//! Plans for what a virtual CPU's thread and a replica loop decide: whose turn it is, what is too
//! late, where guest time goes on.

use super::plan::{Fault, MS, Plan, Planned, Side, US};
use super::points::{Blow, Moment, Point, Step};
use super::rng::Rng;

impl Plan {
    /// One of these plans, or nothing more to go wrong.
    pub(super) fn draw_for_order(&mut self, rng: &mut Rng) {
        match rng.below(6) {
            0 => self.draw_crowd(rng),
            1..=2 => self.draw_late_output(rng),
            3..=4 => self.draw_slow_primary(rng),
            _ => (),
        }
    }

    /// Draws the case that taking turns is for: one source that never runs dry, for longer than the
    /// timeout.
    fn draw_crowd(&mut self, rng: &mut Rng) {
        (self.faults, self.only_crowded) = (Vec::new(), true);
        (self.timeout_ns, self.calm_at_ns) = (10 * MS, 30 * MS);
        (self.latency_ns, self.jitter_ns, self.skew_ns) = (20 * US, 100 * US, 0);
        let side = Side::BOTH[rng.below(2) as usize];
        let for_ns = self.timeout_ns * 3 / 2;
        let at_ns = rng.below(self.timeout_ns);
        self.plan_for_order(at_ns, Fault::Crowd { side, for_ns });
    }

    /// Draws the case that a time limit of an output is for: a primary that stands still before it
    /// writes what was released, for about as long as its lease lasts and its backup is patient.
    fn draw_late_output(&mut self, rng: &mut Rng) {
        self.faults.clear();
        self.skew_ns %= self.timeout_ns / 4;
        let point = Point {
            blow: Blow::Stops,
            step: Step::LetOut,
            moment: Moment::Before,
        };
        let fault = Fault::Strike {
            side: Side::Primary,
            point,
            nth: rng.within(1, 20),
            for_ns: rng.within(self.timeout_ns / 2, self.timeout_ns * 5 / 4),
            reset: false,
        };
        self.plan_for_order(0, fault);
    }

    /// Draws the case that one time line is for: a primary that takes long from one exit to the
    /// next, so that it dies long after it has told its guest one time and hardly after it has told
    /// another.
    fn draw_slow_primary(&mut self, rng: &mut Rng) {
        self.faults.clear();
        let (side, times, for_ns) = (Side::Primary, rng.within(300, 1_500), self.calm_at_ns);
        self.plan_for_order(0, Fault::SlowCpu { side, times, for_ns });
        let at_ns = rng.within(self.calm_at_ns / 4, self.calm_at_ns);
        self.plan_for_order(at_ns, Fault::Crash { side, reset: false });
    }

    fn plan_for_order(&mut self, at_ns: u64, fault: Fault) {
        self.faults.push(Planned { at_ns, fault });
    }
}
