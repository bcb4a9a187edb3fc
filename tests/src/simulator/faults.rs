//! What goes wrong, when its time has come; and the marks of what was reported of it.

use lockstep_core::replica::role::{Cause, Input, Report};

use super::agenda::Happening;
use super::marks::Mark;
use super::network::Parcel;
use super::node::{Life, Node};
use super::plan::{Fault, Side};
use super::points::{Blow, Moment, Point, Step};
use super::world::World;

impl World {
    /// A planned fault happens. Whatever lasts, ends with the calm.
    pub(super) fn fault(&mut self, index: usize) {
        let Some(planned) = self.plan.faults.get(index).cloned() else {
            return;
        };
        let now_ns = self.now_ns;
        let until = |for_ns: u64| (now_ns + for_ns).min(self.plan.calm_at_ns);
        self.trace.say(now_ns, || format!("fault: {:?}", planned.fault));
        match planned.fault {
            Fault::Crash { side, reset } => self.crash(side, reset),
            Fault::Stop { side, for_ns } => self.stop(side, for_ns),
            Fault::CrashAtAction { .. }
            | Fault::StopAtAction { .. }
            | Fault::Strike { .. }
            | Fault::CrashAfterEnd { .. } => (),
            Fault::CutBoth { for_ns } => {
                let until_ns = until(for_ns);
                self.links
                    .iter_mut()
                    .for_each(|link| link.cut_until_ns = until_ns);
            }
            Fault::CutUplink { side, for_ns } => self.uplinks.cut_until_ns[side.index()] = until(for_ns),
            Fault::Isolate { side, for_ns } => {
                let until_ns = until(for_ns);
                self.uplinks.cut_until_ns[side.index()] = until_ns;
                self.links
                    .iter_mut()
                    .for_each(|link| link.cut_until_ns = until_ns);
            }
            Fault::WitnessDies => self.uplinks.witness_is_dead = true,
            Fault::Repeat { from } => self.repeat(from),
            Fault::Cut { from, for_ns } => self.links[from.index()].cut_until_ns = until(for_ns),
            Fault::Delay { from, by_ns, for_ns } => {
                self.links[from.index()].delay = (by_ns, until(for_ns));
            }
            Fault::Far { by_ns } => self
                .links
                .iter_mut()
                .for_each(|link| link.delay = (by_ns, u64::MAX)),
            Fault::Corrupt { from } => self.links[from.index()].corrupt = true,
            Fault::Break { side } => self.break_connection(side),
            Fault::Store { fault, for_ns } => self.store.fail(fault, until(for_ns)),
            Fault::Terminate { side } => self.tell(side, Input::StopRequested),
            Fault::Diverge { side } => self.diverge(side),
            Fault::PowerOff => self.agenda.at(now_ns, Happening::PowerOff),
            Fault::SwitchOver { side } => self.tell(side, Input::SwitchOver),
            Fault::Start { side } => self.start_newcomer(side),
            Fault::StartAfresh => self.start_afresh(),
            Fault::Jump { side, by_ns } => self.jump(side, by_ns),
            Fault::Crowd { side, for_ns } => {
                self.nodes[side.index()].crowded_until_ns = until(for_ns);
                self.poke(side);
            }
            Fault::WallBack { side, by_ns } => {
                self.nodes[side.index()].cpu.borrow_mut().set_wall_back(by_ns);
            }
            Fault::SlowCpu { side, times, for_ns } => {
                self.nodes[side.index()].slow = (times, until(for_ns));
            }
        }
    }

    /// A process dies; its kernel tells the peer.
    pub(super) fn crash(&mut self, side: Side, reset: bool) {
        if self.hits_a_loading_one(side) {
            return;
        }
        let won = self.has_won(side);
        let node = &mut self.nodes[side.index()];
        if !node.is_up() {
            return;
        }
        node.life = Life::Dead;
        self.crash_disk(side, reset);
        let newcomer = |node: &Node| !node.armed && node.halted.is_none();
        if newcomer(&self.nodes[side.index()]) {
            self.marks.reach(Mark::NewcomerDiedCatchingUp);
        }
        let other = &self.nodes[side.other().index()];
        if other.is_up() && newcomer(other) {
            self.marks.reach(Mark::HolderDiedCatchingUp);
        }
        self.ends_joining(side);
        let node = &mut self.nodes[side.index()];
        if won && !node.replica.acts_alone() {
            self.marks.reach(Mark::CrashedBetweenClaimAndAnswer);
        }
        if won {
            self.marks.reach(Mark::WinnerDied);
        }
        self.trace.say(self.now_ns, || format!("{side:?} dies"));
        if std::mem::take(&mut self.nodes[side.index()].connected) {
            let link = &mut self.links[side.index()];
            if reset {
                link.lost_before = link.sent;
            }
            self.send_parcel(side, Parcel::Closed);
        }
        self.leave_switch(side);
    }

    /// What the channel has brought last it brings again.
    fn repeat(&mut self, from: Side) {
        if !self.nodes[from.index()].connected {
            return;
        }
        for bytes in std::mem::take(&mut self.links[from.index()].newest) {
            self.send_parcel(from, Parcel::Again(bytes));
        }
    }

    /// The planned blow at this moment of a side's `nth` action of this kind, by its place in the
    /// plan.
    pub(super) fn blow_at(&self, side: Side, step: Step, nth: u64, moment: Moment) -> Option<usize> {
        if !self.strikes || self.now_ns >= self.plan.calm_at_ns {
            return None;
        }
        let strikes = |(index, planned): (usize, &super::plan::Planned)| match planned.fault {
            Fault::Strike {
                side: at,
                point,
                nth: count,
                ..
            } => {
                (at, point.step, point.moment, count) == (side, step, moment, nth)
                    && self.spent & 1 << index == 0
            }
            _ => false,
        };
        self.plan.faults.iter().enumerate().position(strikes)
    }

    /// Strikes a process as planned.
    pub(super) fn strike(&mut self, index: usize) {
        self.spent |= 1 << index;
        let fault = self.plan.faults.get(index).map(|planned| planned.fault.clone());
        let Some(Fault::Strike {
            side,
            point,
            for_ns,
            reset,
            ..
        }) = fault
        else {
            return;
        };
        if self.nodes[side.index()].life != Life::Running {
            return;
        }
        let Point { step, moment, .. } = point;
        self.trace
            .say(self.now_ns, || format!("{side:?} is struck: {moment:?} {step:?}"));
        match point.blow {
            Blow::Dies => self.crash(side, reset),
            Blow::Stops => self.stop(side, for_ns),
        }
        if self.nodes[side.index()].life != Life::Running {
            self.marks.strike(point);
        }
    }

    /// The live guest of the primary has ended: somebody may die of it.
    pub(super) fn strike_after_end(&mut self) {
        for planned in &self.plan.faults {
            if let Fault::CrashAfterEnd { side, after_ns } = planned.fault {
                self.agenda.at(self.now_ns + after_ns, Happening::Crash(side));
            }
        }
    }

    /// A process stands still for a while.
    pub(super) fn stop(&mut self, side: Side, for_ns: u64) {
        let until_ns = (self.now_ns + for_ns).min(self.plan.calm_at_ns);
        let node = &mut self.nodes[side.index()];
        if node.life != Life::Running {
            return;
        }
        node.life = Life::Stopped;
        node.stopped_since_ns = self.now_ns;
        self.trace.say(self.now_ns, || format!("{side:?} stands still"));
        self.agenda.at(until_ns, Happening::Continue(side));
    }

    fn jump(&mut self, side: Side, by_ns: u64) {
        let node = &mut self.nodes[side.index()];
        node.clock.jump(by_ns);
        if node.is_up() && node.connected {
            self.marks.reach(match side {
                Side::Primary => Mark::JumpedPrimary,
                Side::Backup => Mark::JumpedClock,
            });
        }
        self.agenda.at(self.now_ns, Happening::Wake(side));
        self.poke_cpu(side, 0);
    }

    /// Marks what a replica reports; what no correct peer says must not be reported.
    pub(super) fn mark_report(&mut self, side: Side, report: &Report) {
        self.mark_wait(side, report);
        let mark = match report {
            Report::Noticed { cause } => return self.mark_cause(side, cause),
            Report::NewcomerLost { cause } => {
                self.marks.reach(Mark::NewcomerForgotten);
                return self.mark_cause(side, cause);
            }
            Report::Overtaken { .. } => Mark::SawLaterGeneration,
            Report::HandedOver { .. } => self.handed_over(side),
            Report::TakingOver { .. } => Mark::TakingOver,
            Report::Solo { .. } if self.nodes[side.index()].handed_over => Mark::KeptAfterHandover,
            Report::StorageSilent { .. } => Mark::StoreSilent,
            Report::Held { .. } => Mark::HeldTold,
            Report::Flows { .. } => Mark::FlowsTold,
            Report::RoundTripTooLong { .. } => Mark::RoundTripTold,
            Report::Won { .. } if self.nodes[side.index()].claims > 1 => Mark::WonOnRetry,
            Report::Live { .. } => Mark::BackupLive,
            Report::Solo { .. } => Mark::PrimarySolo,
            _ => return,
        };
        self.marks.reach(mark);
    }

    fn mark_cause(&mut self, side: Side, cause: &Cause) {
        let repeats = self.plan.repeats();
        if self.plan.only_narrow || self.plan.only_crowded {
            self.checker
                .fail(|| format!("the {side:?} gives up a channel that bears its pair: {cause:?}"));
        }
        let mark = match cause {
            Cause::Silence { .. } => {
                self.mark_silence(side);
                match side {
                    Side::Primary => Mark::SilentBackup,
                    Side::Backup => Mark::SilentPrimary,
                }
            }
            Cause::Closed => Mark::ConnectionClosed,
            Cause::Broken { why } if why.contains("kernel") => match side {
                Side::Primary => Mark::BrokenAtPrimary,
                Side::Backup => Mark::BrokenAtBackup,
            },
            Cause::Broken { why } if why.contains("checksum") => Mark::Damaged,
            Cause::Broken { why } if repeats && why.contains("was expected") => Mark::RepeatRefused,
            Cause::Broken { .. } if repeats || self.plan.corrupts() => Mark::Misread,
            Cause::Broken { why } => {
                self.checker
                    .fail(|| format!("the {side:?} finds damage that nobody did: {why}"));
                return;
            }
            Cause::Left { .. } => Mark::Left,
            Cause::Diverged { .. } => Mark::DivergenceTold,
            Cause::TooFar { .. } => Mark::TooFar,
            Cause::Violation { .. } if repeats => Mark::RepeatRefused,
            Cause::LogTooLong { .. } => Mark::LogTooLong,
            Cause::TooSlow { .. } => Mark::TooSlow,
            Cause::Here { .. } => return,
            Cause::Violation { why } => {
                self.checker
                    .fail(|| format!("the {side:?} accuses its peer: {why}"));
                return;
            }
        };
        self.marks.reach(mark);
    }

    /// A side has heard nothing for too long: what was cut, and how were the clocks?
    fn mark_silence(&mut self, side: Side) {
        let cut = |from: Side| self.links[from.index()].cut_until_ns > self.now_ns;
        match (cut(side.other()), cut(side)) {
            (true, false) => self.marks.reach(Mark::OneWay),
            (true, true) => self.marks.reach(Mark::Partitioned),
            (false, _) => (),
        }
        let [primary, backup] = self.plan.clock_ppm;
        if primary.abs_diff(backup) > 50_000 {
            self.marks.reach(Mark::ClocksApart);
        }
    }
}
