//! Plan that a seed stands for: the pair's settings, the conditions it lives in, and the faults it
//! meets.

use super::disks::PlannedDisk;
use super::points::{Blow, Moment, Point, Step};
use super::rng::Rng;
pub use super::side::Side;
use super::witness::Expected;

/// Nanoseconds in a microsecond.
pub const US: u64 = 1_000;
/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

/// How the store fails while it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// It says that it cannot be reached, and does nothing.
    Unreachable,
    /// It does its work and then says that it cannot be reached.
    FailsAfterwards,
    /// It says nothing until it is well again.
    Hangs,
    /// It never answers what it was asked meanwhile: the call of the one who asked hangs for ever.
    Swallows,
    /// It is full: what was claimed can be read, and nothing can be claimed.
    Full,
    /// It takes this many times as long.
    Slow(u64),
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "what the fields are is said of the variant")]
pub enum Fault {
    /// The process is gone. `reset`: what its kernel had not sent is gone too.
    Crash { side: Side, reset: bool },
    /// The process is gone between two actions.
    CrashAtAction { side: Side, action: u64, reset: bool },
    /// The process dies or stands still before, in or after the `nth` action of a kind.
    Strike {
        side: Side,
        point: Point,
        nth: u64,
        for_ns: u64,
        reset: bool,
    },
    /// The process is gone so long after the live guest has ended.
    CrashAfterEnd { side: Side, after_ns: u64 },
    /// The process stands still.
    Stop { side: Side, for_ns: u64 },
    /// The process stands still between two actions.
    StopAtAction { side: Side, action: u64, for_ns: u64 },
    /// Nothing this side sends arrives meanwhile.
    Cut { from: Side, for_ns: u64 },
    /// Nothing arrives at either side meanwhile.
    CutBoth { for_ns: u64 },
    /// The bytes that this side has sent last arrive once more, as where something in between
    /// connected again.
    Repeat { from: Side },
    /// Everything this side sends takes so much longer.
    Delay { from: Side, by_ns: u64, for_ns: u64 },
    /// Everything that both sides send takes so much longer, for ever: calm does not mend it.
    Far { by_ns: u64 },
    /// A bit of what this side sends next is wrong when it arrives.
    Corrupt { from: Side },
    /// This side's kernel gives the connection up.
    Break { side: Side },
    /// The store fails.
    Store { fault: StoreFault, for_ns: u64 },
    /// The process is asked to stop.
    Terminate { side: Side },
    /// A process is started on this side, if there is none, which is to join the machine.
    Start { side: Side },
    /// Somebody wants the backup to become the primary, and says so to this side.
    SwitchOver { side: Side },
    /// An operator starts the machine afresh elsewhere, though somebody acts alone.
    StartAfresh,
    /// The guest is told to power off.
    PowerOff,
    /// The replay of this side, if it is one, differs from the log.
    Diverge { side: Side },
    /// The clock of this side jumps ahead.
    Jump { side: Side, by_ns: u64 },
    /// The wall clock of this side is set back.
    WallBack { side: Side, by_ns: u64 },
    /// Nothing passes between the clients and this side meanwhile.
    CutUplink { side: Side, for_ns: u64 },
    /// This side is cut off from its peer and from the clients.
    Isolate { side: Side, for_ns: u64 },
    /// The witness is gone for ever; clients are not.
    WitnessDies,
    /// Frames that are for nobody come to this side without end.
    Crowd { side: Side, for_ns: u64 },
    /// The virtual CPU of this side is so many times slower.
    SlowCpu { side: Side, times: u64, for_ns: u64 },
}

/// When a fault happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Virtual time, in nanoseconds.
    pub at_ns: u64,
    /// What happens.
    pub fault: Fault,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The pair's timeout.
    pub timeout_ns: u64,
    /// Most bytes of log under way.
    pub window_bytes_max: u64,
    /// Most bytes of output held.
    pub held_bytes_max: usize,
    /// Rate by which each side's clock is faster than virtual time, in parts in a million; may be
    /// negative.
    pub clock_ppm: [i64; 2],
    /// The backup's process starts so much later.
    pub skew_ns: u64,
    /// Shortest time a message is under way.
    pub latency_ns: u64,
    /// Bytes that each way of the channel carries in a millisecond; 0 is as many as there are.
    pub bytes_per_ms: u64,
    /// Nothing goes wrong but that the channel carries little: the pair has to bear that.
    pub only_narrow: bool,
    /// Nothing goes wrong but that frames for nobody come without end: the pair has to bear that.
    pub only_crowded: bool,
    /// Most time a frame is under way to the switch, beyond the shortest.
    pub jitter_ns: u64,
    /// Bytes a client writes at once.
    pub payload_bytes: u64,
    /// Clients.
    pub clients: u64,
    /// Most time a client thinks between two requests.
    pub think_ns: u64,
    /// How often a frame between client and guest is lost: once in so many.
    pub loss: u64,
    /// Most bytes of log that are kept for a newcomer.
    pub kept_bytes_max: u64,
    /// Processes are started again, and join.
    pub heals: bool,
    /// The primary starts alone.
    pub alone: bool,
    /// The guest computes without exits at times.
    pub stretches: bool,
    /// The backup does not run, and is told the state so often. None: it replays.
    pub epoch_ns: Option<u64>,
    /// The disk of the guest, if it has one.
    pub disk: Option<PlannedDisk>,
    /// The sides that have a witness.
    pub witnesses: [bool; 2],
    /// What it is certain to lead to.
    pub expected: Option<Expected>,
    /// What goes wrong.
    pub faults: Vec<Planned>,
    /// Nothing goes wrong any more from then on, and what went wrong is mended, except the dead.
    pub calm_at_ns: u64,
}

impl Plan {
    /// The run that `seed` stands for.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        // Times scale with the timeout: long ones cost more and show little that short ones do not.
        let timeout_ns = match rng.below(64) {
            0 => 200 * MS,
            1..=3 => 50 * MS,
            4..=11 => 20 * MS,
            _ => 10 * MS,
        };
        let calm_at_ns = timeout_ns * rng.within(3, 6);
        let mut plan = Self {
            timeout_ns,
            window_bytes_max: lockstep_core::replica::role::WINDOW_BYTES_MIN,
            held_bytes_max: if rng.once_in(4) { 300 } else { 1 << 20 },
            clock_ppm: [0; 2].map(|_| rng.below(100_001) as i64 - 50_000),
            skew_ns: if rng.once_in(24) {
                rng.below(3 * timeout_ns)
            } else {
                rng.below(timeout_ns / 4)
            },
            latency_ns: [20 * US, 200 * US, timeout_ns / 20][rng.below(3) as usize],
            bytes_per_ms: 0,
            only_narrow: false,
            only_crowded: false,
            jitter_ns: [100 * US, 100 * US, timeout_ns / 4][rng.below(3) as usize],
            payload_bytes: 16,
            clients: rng.within(1, 4),
            think_ns: timeout_ns / if rng.once_in(3) { 10 } else { 2 },
            loss: [20, 100, u64::MAX][rng.below(3) as usize],
            kept_bytes_max: lockstep_core::replica::role::KEPT_BYTES_MAX,
            heals: false,
            alone: false,
            stretches: false,
            epoch_ns: None,
            disk: None,
            witnesses: [false; 2],
            expected: None,
            faults: Vec::new(),
            calm_at_ns,
        };
        let count = rng.within(0, 3);
        plan.faults = (0..count).map(|_| plan.draw(&mut rng)).collect();
        match rng.below(24) {
            0..=1 => plan.draw_late_mail(&mut rng),
            2..=4 => plan.draw_end_of_guest(&mut rng),
            5 => plan.draw_flood(&mut rng),
            6 => plan.draw_jump(&mut rng),
            7 => plan.draw_for_order(&mut rng),
            8 => plan.draw_far(&mut rng),
            9 if rng.once_in(4) => plan.draw_narrow(),
            _ => plan.draw_end_of_primary(&mut rng),
        }
        plan.faults.sort_by_key(|planned| planned.at_ns);
        plan.keep_one_jump();
        plan.draw_healing(seed);
        plan.draw_witnesses(seed);
        plan.draw_diverging(seed);
        plan.draw_stretches(seed);
        plan.draw_switchovers(seed);
        plan.draw_checkpoints(seed);
        plan.draw_disk(seed);
        plan
    }

    /// The lease is made for one jump in a timeout; two would be a clock that is wrong, not one
    /// that jumps.
    fn keep_one_jump(&mut self) {
        let mut jumped = false;
        self.faults.retain(|planned| {
            let jumps = matches!(planned.fault, Fault::Jump { .. });
            let kept = !(jumps && jumped);
            jumped |= jumps;
            kept
        });
    }

    fn draw(&self, rng: &mut Rng) -> Planned {
        let at_ns = rng.below(self.calm_at_ns);
        let side = if rng.once_in(3) {
            Side::Backup
        } else {
            Side::Primary
        };
        let (short_ns, long_ns) = (rng.within(1, self.timeout_ns), rng.within(1, 4 * self.timeout_ns));
        let for_ns = if rng.once_in(2) { short_ns } else { long_ns };
        let (action, reset) = (rng.within(1, 600), rng.once_in(3));
        let fault = match rng.below(34) {
            0..=3 => Fault::Crash { side, reset },
            4..=5 => Fault::CrashAtAction { side, action, reset },
            6..=8 => Fault::Stop { side, for_ns },
            9 => Fault::StopAtAction { side, action, for_ns },
            10..=12 => Fault::Cut { from: side, for_ns },
            13 => Fault::Delay {
                from: side,
                by_ns: rng.within(1, self.timeout_ns / 2),
                for_ns,
            },
            14 => Fault::Corrupt { from: side },
            15 => Fault::Break { side },
            16..=18 => Fault::Store {
                fault: Self::draw_store(rng),
                for_ns: long_ns,
            },
            19 => Fault::Terminate { side },
            20 => Fault::PowerOff,
            21 => Fault::Jump {
                side,
                by_ns: rng.within(self.timeout_ns, 9 * self.timeout_ns),
            },
            22..=23 => Fault::SlowCpu {
                side,
                times: rng.within(2, 3_000),
                for_ns: long_ns,
            },
            24 => Fault::CutBoth { for_ns: long_ns },
            25 => Fault::Repeat { from: side },
            26 => Fault::WallBack {
                side,
                by_ns: rng.within(1, 1_000 * MS),
            },
            _ => Self::draw_strike(rng, long_ns),
        };
        Planned { at_ns, fault }
    }

    /// Any point of the protocol; those that a pair passes all the time, at any of many times.
    pub(super) fn draw_strike(rng: &mut Rng, for_ns: u64) -> Fault {
        let step = Step::ALL[rng.below(Step::UNASKED) as usize];
        let (rare, middle) = match step {
            Step::Claim => (true, true),
            Step::Send | Step::SendEntries => (false, true),
            Step::Disconnect | Step::Announce | Step::GoLive | Step::Throttle | Step::Stand | Step::Halt => {
                (true, false)
            }
            Step::Handover => (true, true),
            Step::Deliver | Step::Advance | Step::Release | Step::LetOut | Step::WakeAt | Step::Report => {
                (false, false)
            }
        };
        let moment = match rng.below(if middle { 3 } else { 2 }) {
            0 => Moment::Before,
            1 => Moment::After,
            _ => Moment::Halfway,
        };
        let blow = if rng.once_in(2) { Blow::Dies } else { Blow::Stops };
        Fault::Strike {
            side: Side::BOTH[rng.below(2) as usize],
            point: Point { blow, step, moment },
            nth: match step {
                _ if rare => 1,
                // A run has a handful.
                Step::Report => rng.within(1, 5),
                // Entries go in batches.
                Step::SendEntries | Step::Deliver | Step::Advance => rng.within(1, 30),
                _ => rng.within(1, 100),
            },
            for_ns,
            reset: rng.once_in(3),
        }
    }

    /// What a backup is for.
    fn draw_end_of_primary(&mut self, rng: &mut Rng) {
        let side = Side::Primary;
        let (action, reset) = (rng.within(1, 600), rng.once_in(3));
        let for_ns = rng.within(self.timeout_ns, 4 * self.timeout_ns);
        let fault = match rng.below(8) {
            0..=2 => Fault::Crash { side, reset },
            3..=4 => Fault::CrashAtAction { side, action, reset },
            5 => Fault::Stop { side, for_ns },
            6 => Fault::StopAtAction { side, action, for_ns },
            _ => Fault::Terminate { side },
        };
        let at_ns = rng.below(self.calm_at_ns);
        self.faults.push(Planned { at_ns, fault });
    }

    /// Draws the case that a lease is for: what the backup sends is longer and longer under way,
    /// until the primary, which never finds it silent, receives what was sent more than a timeout
    /// ago; and then the backup receives nothing any more.
    fn draw_late_mail(&mut self, rng: &mut Rng) {
        let timeout_ns = self.timeout_ns;
        self.calm_at_ns = 10 * timeout_ns;
        let step_ns = rng.within(timeout_ns / 2, timeout_ns * 3 / 4);
        for step in 1..=4 {
            let (from, by_ns, for_ns) = (Side::Backup, step * step_ns, self.calm_at_ns);
            let late = Fault::Delay { from, by_ns, for_ns };
            self.faults.push(Planned {
                at_ns: step * timeout_ns,
                fault: late,
            });
        }
        let fault = match rng.below(3) {
            0 => Fault::Break { side: Side::Backup },
            1 => Fault::Corrupt { from: Side::Primary },
            _ => Fault::Cut {
                from: Side::Primary,
                for_ns: self.calm_at_ns,
            },
        };
        let at_ns = rng.within(4, 7) * timeout_ns + rng.below(timeout_ns);
        self.faults.push(Planned { at_ns, fault });
    }

    /// Draws the case that counting little silence at a time is for: the backup's clock jumps just
    /// when the primary can no longer hear it, not even that it closes.
    fn draw_jump(&mut self, rng: &mut Rng) {
        // Nothing else is the matter then, or the pair is not one any more.
        self.faults.clear();
        self.skew_ns %= self.timeout_ns / 4;
        let at_ns = rng.within(self.timeout_ns / 2, self.calm_at_ns);
        let (from, side, for_ns) = (Side::Backup, Side::Backup, 2 * self.timeout_ns);
        let by_ns = rng.within(self.timeout_ns, 9 * self.timeout_ns);
        self.faults.push(Planned {
            at_ns,
            fault: Fault::Cut { from, for_ns },
        });
        let at_ns = at_ns + 1 + rng.below(self.timeout_ns / 8);
        self.faults.push(Planned {
            at_ns,
            fault: Fault::Jump { side, by_ns },
        });
    }

    /// Draws the case that giving a lease up is for: a round trip between half the timeout and
    /// seven eighths of it, for ever. Neither side is silent to the other, and nothing can leave.
    fn draw_far(&mut self, rng: &mut Rng) {
        let by_ns = rng.within(self.timeout_ns * 9 / 32, self.timeout_ns * 13 / 32);
        let at_ns = rng.below(self.calm_at_ns);
        self.faults.push(Planned {
            at_ns,
            fault: Fault::Far { by_ns },
        });
    }

    /// Draws the case that keeping little under way is for: a channel that takes an eighth of the
    /// timeout for one large request, and clients that make them as fast as they can.
    fn draw_narrow(&mut self) {
        (self.faults, self.only_narrow) = (Vec::new(), true);
        (self.clients, self.payload_bytes, self.think_ns) = (4, 60_000, self.timeout_ns / 50);
        self.bytes_per_ms = 8 * self.payload_bytes * MS / self.timeout_ns;
        (self.latency_ns, self.skew_ns) = (20 * US, 0);
        self.loss = u64::MAX;
    }

    /// Draws the case that a window is for: much to write, and a backup that cannot keep up. Where
    /// the primary cannot either, much enters at one exit.
    fn draw_flood(&mut self, rng: &mut Rng) {
        self.payload_bytes = 16_000;
        if rng.once_in(2) {
            self.payload_bytes = 60_000;
            self.clients = 4;
            let (side, times, for_ns) = (Side::Primary, rng.within(1_000, 5_000), self.calm_at_ns);
            self.faults.push(Planned {
                at_ns: 0,
                fault: Fault::SlowCpu { side, times, for_ns },
            });
        }
        self.think_ns = self.timeout_ns / 10;
        let (side, times, for_ns) = (Side::Backup, rng.within(100, 3_000), self.calm_at_ns);
        let at_ns = rng.below(self.calm_at_ns / 2);
        self.faults.push(Planned {
            at_ns,
            fault: Fault::SlowCpu { side, times, for_ns },
        });
    }

    /// The guest powers off, and at about that time somebody dies.
    fn draw_end_of_guest(&mut self, rng: &mut Rng) {
        let at_ns = rng.below(self.calm_at_ns);
        let side = Side::BOTH[rng.below(2) as usize];
        let after_ns = rng.below(6 * self.latency_ns);
        if rng.once_in(4) {
            // It begins when the guest has ended, and replays slowly: there is nothing left but to
            // say the rest.
            self.faults.clear();
            self.skew_ns = at_ns + self.timeout_ns / 2;
            let (side, times, for_ns) = (Side::Backup, rng.within(10, 100), self.calm_at_ns);
            let fault = Fault::SlowCpu { side, times, for_ns };
            self.faults.push(Planned { at_ns, fault });
        }
        let faults = [Fault::PowerOff, Fault::CrashAfterEnd { side, after_ns }];
        self.faults.extend(faults.map(|fault| Planned { at_ns, fault }));
    }

    pub(super) fn draw_store(rng: &mut Rng) -> StoreFault {
        match rng.below(6) {
            0 => StoreFault::Unreachable,
            1 => StoreFault::FailsAfterwards,
            2 => StoreFault::Hangs,
            3 => StoreFault::Full,
            4 => StoreFault::Swallows,
            _ => StoreFault::Slow(rng.within(10, 3_000)),
        }
    }

    /// True if bytes can arrive damaged.
    #[must_use]
    pub fn corrupts(&self) -> bool {
        self.faults
            .iter()
            .any(|planned| matches!(planned.fault, Fault::Corrupt { .. }))
    }

    /// Whether messages can arrive again.
    #[must_use]
    pub fn repeats(&self) -> bool {
        self.faults
            .iter()
            .any(|planned| matches!(planned.fault, Fault::Repeat { .. }))
    }
}
