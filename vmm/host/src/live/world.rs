//! The outside of a live machine, on its vCPU thread: host threads propose arrivals through bounded
//! channels, this decides when they enter.

use super::common_points::{CommonPoints, RETRY_AFTER};
use super::control::Ordered;
use super::epochs::Epochs;
use super::time::GuestTime;
use crate::disk::Disks;
use crossbeam_channel::{Receiver, Select, TryRecvError, never};
use lockstep_core::machine::disk::Request;
use lockstep_core::machine::door::{DoorError, Horizon, Kick, Kicked, Question, Readiness, Taker, Takes};
use lockstep_core::replica::Outside;
use lockstep_core::replica::cpu::{Proposals, Taking};
use lockstep_kvm::ClockKind;
use lockstep_kvm::kick::KickTimer;
use lockstep_logging_channel::{Completion, DeviceId, Event, ExecutionPoint, Value};
use lockstep_process::console;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Proposals of the host's threads, by the devices that they are for.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// Ethernet frames, and bytes typed at a console.
    bytes: BTreeMap<DeviceId, Receiver<Vec<u8>>>,
    /// Completions.
    disks: Disks,
}

impl Arrivals {
    /// The same with `bytes` for `device`: a frame each, or what was typed at once.
    #[must_use]
    pub fn with(mut self, device: DeviceId, bytes: Receiver<Vec<u8>>) -> Self {
        self.bytes.insert(device, bytes);
        self
    }

    /// The same with these disks.
    #[must_use]
    pub fn with_disks(self, disks: Disks) -> Self {
        Self { disks, ..self }
    }

    /// The disks.
    #[must_use]
    pub fn disks(&self) -> &Disks {
        &self.disks
    }

    fn has(&self, device: DeviceId) -> bool {
        let bytes = self.bytes.get(&device);
        bytes.is_some_and(|bytes| !bytes.is_empty()) || self.disks.has_completion(device)
    }
}

/// Places at which events may enter a live machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entering {
    /// At exits, and at exact instructions where there is a clock for them.
    pub clock: ClockKind,
    /// At a common point, where a guest has run for so long without an execution point and
    /// something waits. None: it waits however long.
    pub event_latency: Option<Duration>,
    /// Time from one common point to the next, where whoever follows does not run. None: it
    /// replays.
    pub epoch: Option<Duration>,
    /// Time that the first write to a page takes where the host logs it, as far as it was measured.
    pub first_write: Option<Duration>,
}

/// The outside of a live machine.
pub struct World {
    time: GuestTime,
    arrivals: Arrivals,
    ordered: Ordered,
    interrupts_between_exits: bool,
    timer: Option<KickTimer>,
    /// Time at which the timer kicks, as far as is known.
    kicks_at: Option<Instant>,
    timer_deadline_ns: Option<u64>,
    taking: Taking,
    /// A kick found the guest where nothing can enter.
    missed: bool,
    common_points: CommonPoints,
    epochs: Epochs,
}

impl World {
    /// The outside of a machine. Must be made on its vCPU thread.
    ///
    /// # Errors
    /// The host gives no timer.
    pub fn new(
        time: GuestTime,
        arrivals: Arrivals,
        ordered: Ordered,
        entering: Entering,
    ) -> std::io::Result<Self> {
        let Entering {
            clock,
            event_latency,
            epoch,
            first_write,
        } = entering;
        let interrupts_between_exits = clock != ClockKind::None;
        let timer = if interrupts_between_exits || event_latency.is_some() || epoch.is_some() {
            Some(KickTimer::for_this_thread()?)
        } else {
            None
        };
        Ok(Self {
            time,
            arrivals,
            ordered,
            interrupts_between_exits,
            timer,
            kicks_at: None,
            timer_deadline_ns: None,
            taking: Taking::default(),
            missed: false,
            common_points: CommonPoints::after(event_latency)
                .with_first_write(first_write)
                .beside_clock(interrupts_between_exits),
            epochs: Epochs::of(epoch),
        })
    }

    /// Waits until something may be there, an order was given, or a timer or the end of an epoch is
    /// due.
    fn wait(&self, readiness: Readiness<'_>) {
        let mut select = Select::new();
        select.recv(self.ordered.woken());
        for device in open(readiness) {
            if let Some(proposed) = self.arrivals.bytes.get(&device) {
                select.recv(proposed);
            }
            self.arrivals.disks.select(device, &mut select);
        }
        let expires = readiness
            .waits_until_ns()
            .map(|deadline_ns| self.time.host_instant(deadline_ns));
        let Some(until) = expires.into_iter().chain(self.epochs.ends()).min() else {
            select.ready();
            return;
        };
        // Due or not, the caller looks again.
        let _ = select.ready_deadline(until);
    }

    fn kick_at(&mut self, at: Instant, now: Instant) {
        if let Some(timer) = &mut self.timer {
            // A timer that cannot be armed makes the interrupt late, never wrong.
            let _ = timer.arm(at.saturating_duration_since(now));
            self.kicks_at = Some(at);
        }
    }

    /// True if something waits that a device has room for, or a timer is due.
    fn something_waits(&self, readiness: Readiness<'_>) -> bool {
        let due = self
            .timer_deadline_ns
            .is_some_and(|deadline_ns| deadline_ns <= self.time.monotonic_ns());
        due || open(readiness).any(|device| self.arrivals.has(device))
    }

    /// With an instruction clock: kicks when the timer is due; soon again if something waits that
    /// the last kick could not let in.
    fn arm_between_exits(&mut self, now: Instant) {
        if std::mem::take(&mut self.missed) {
            self.kick_at(now + RETRY_AFTER, now);
        } else if let Some(deadline_ns) = self.timer_deadline_ns {
            self.kick_at(self.time.host_instant(deadline_ns), now);
        }
    }

    /// Without one: kicks when it would be time for a common point, if there is no exit before. A
    /// kick that comes too early costs less than setting the timer at each exit.
    fn arm_for_common_point(&mut self, now: Instant) {
        let due = self
            .timer_deadline_ns
            .map(|deadline_ns| self.time.host_instant(deadline_ns));
        if let Some(wanted) = self.common_points.look_at(due, now)
            && self.kicks_at.is_none_or(|at| at > wanted)
        {
            self.kick_at(wanted, now);
        }
    }

    /// Kicks a guest that makes no exit when its epoch is over.
    fn arm_for_epoch(&mut self, now: Instant) {
        let Some(ends) = self.epochs.ends() else { return };
        // A kick that has come was taken, wherever it found the guest.
        self.kicks_at = self.kicks_at.filter(|at| *at > now);
        if self.kicks_at.is_none_or(|at| at > ends) {
            self.kick_at(ends, now);
        }
    }
}

impl Outside for World {
    fn answer(&mut self, question: Question) -> Result<Value, DoorError> {
        Ok(match question {
            Question::Tsc => Value::Tsc(self.time.tsc()),
            Question::Monotonic => Value::Monotonic(self.time.monotonic_ns()),
            Question::Wall => Value::Wall(self.time.wall_ns()),
            Question::Random { length_bytes } => Value::Random(random_bytes(length_bytes)?),
        })
    }

    fn arrival(&mut self, readiness: Readiness<'_>) -> Result<Option<Event>, DoorError> {
        self.ordered.obey()?;
        console::guest_listens(readiness.listens());
        self.timer_deadline_ns = readiness.next_deadline_ns();
        self.missed |= readiness.closed && self.something_waits(readiness);
        if readiness.closed {
            return Ok(None);
        }
        loop {
            let mut proposals = Waiting {
                time: &self.time,
                arrivals: &mut self.arrivals,
            };
            if let Some((device, kind)) = self.taking.next(readiness, &mut proposals) {
                return Ok(Some(Event {
                    device,
                    monotonic_ns: self.time.monotonic_ns(),
                    kind,
                }));
            }
            // A machine that is to pause is not idle: it does so behind this step.
            if !readiness.idle || self.ordered.pause_asked() || self.epoch_is_over() {
                return Ok(None);
            }
            self.wait(readiness);
            self.ordered.obey()?;
        }
    }

    fn horizon(&mut self, point: ExecutionPoint) -> Horizon {
        let now = Instant::now();
        self.common_points.runs_from(point, now);
        self.arm_for_epoch(now);
        if self.interrupts_between_exits {
            self.arm_between_exits(now);
            return Horizon::Kick;
        }
        self.arm_for_common_point(now);
        Horizon::Exit
    }

    fn kicked(&mut self, kick: Kick<'_>) -> Result<Kicked, DoorError> {
        self.ordered.obey()?;
        self.timer_deadline_ns = kick.readiness.next_deadline_ns();
        self.missed = self.something_waits(kick.readiness);
        let now = Instant::now();
        if self.kicks_at.is_some_and(|at| at <= now) {
            self.kicks_at = None;
        }
        let waits = kick.interrupt_pending || self.missed;
        Ok(self.common_points.judge(waits, kick.interruptible, now))
    }

    fn disk_request(&mut self, device: DeviceId, request: Request) -> Result<(), DoorError> {
        self.arrivals.disks.issue(device, request)
    }

    fn shares_disk(&self, device: DeviceId) -> bool {
        self.arrivals.disks.shares(device)
    }

    fn made_common_point(&mut self, pages: u64) {
        self.common_points.made(pages);
    }

    fn begin_epoch(&mut self) {
        self.epochs.begin(Instant::now());
    }

    fn end_epoch(&mut self) {
        self.epochs.end(Instant::now());
    }

    fn epoch_is_over(&mut self) -> bool {
        self.epochs.ends().is_some_and(|ends| ends <= Instant::now())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What comes behind it, the replays of a verification, has nobody who reads.
        console::guest_listens(false);
    }
}

/// Devices that have room for what comes from outside.
fn open(readiness: Readiness<'_>) -> impl Iterator<Item = DeviceId> {
    let has_room = |taker: &&Taker| match taker.takes {
        Takes::Frames { max } => max > 0,
        Takes::ConsoleInput { bytes_max, .. } => bytes_max > 0,
        Takes::Completions { outstanding } => outstanding > 0,
        Takes::Expiry { .. } => false,
    };
    readiness.takers.iter().filter(has_room).map(|taker| taker.device)
}

/// Inputs that wait in the channels of a live machine.
struct Waiting<'a> {
    time: &'a GuestTime,
    arrivals: &'a mut Arrivals,
}

impl Proposals for Waiting<'_> {
    fn monotonic_ns(&self) -> u64 {
        self.time.monotonic_ns()
    }

    fn take(&mut self, device: DeviceId) -> Option<Vec<u8>> {
        take(self.arrivals.bytes.get_mut(&device)?)
    }

    fn completion(&mut self, device: DeviceId) -> Option<Completion> {
        self.arrivals.disks.take(device)
    }
}

/// The next message, if one waits. A channel whose sender is gone is never ready again.
fn take(channel: &mut Receiver<Vec<u8>>) -> Option<Vec<u8>> {
    match channel.try_recv() {
        Ok(bytes) => Some(bytes),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => {
            *channel = never();
            None
        }
    }
}

fn random_bytes(length_bytes: u32) -> Result<Vec<u8>, DoorError> {
    let mut bytes = vec![0; length_bytes as usize];
    getrandom::fill(&mut bytes).map_err(|why| DoorError::Host {
        what: "random bytes",
        why: why.to_string(),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::control::{NoPause, control};
    use super::*;
    use crossbeam_channel::{Sender, unbounded};
    use lockstep_core::machine::devices::board::small;
    use lockstep_core::replica::replayer::TimeFloor;
    use lockstep_logging_channel::EventKind;

    /// A world at a guest time behind every deadline here, and where its frames come from.
    fn world() -> (World, Sender<Vec<u8>>) {
        let (frame, frames) = unbounded();
        let (_, ordered) = control();
        let floor = TimeFloor {
            monotonic_ns: 1_000_000,
            ..TimeFloor::default()
        };
        let world = World::new(
            GuestTime::starting_at(floor),
            Arrivals::default().with(small::NETWORK, frames),
            ordered,
            Entering::default(),
        );
        (world.unwrap(), frame)
    }

    #[test]
    fn an_idle_guest_that_is_to_pause_waits_for_nothing_and_then_waits_again() {
        let (frame, frames) = unbounded();
        let (control, ordered) = control();
        let time = GuestTime::starting_at(TimeFloor::default());
        let arrivals = Arrivals::default().with(small::NETWORK, frames);
        let mut world = World::new(time, arrivals, ordered.clone(), Entering::default()).unwrap();
        let takers = &takers(None, true);
        let idle = Readiness {
            idle: true,
            ..due(takers)
        };
        control.at_pause(Box::new(|_, _| {})).unwrap();
        assert_eq!(control.at_pause(Box::new(|_, _| {})), Err(NoPause));
        assert_eq!(kind(&mut world, idle), None);

        assert!(ordered.take_pause().is_some());

        assert!(ordered.woken().is_empty(), "the wait behind it is a wait");
        frame.send(vec![1]).unwrap();
        assert_eq!(kind(&mut world, idle), Some(EventKind::Frame(vec![1])));
        ordered.no_more_pauses();
        assert_eq!(control.at_pause(Box::new(|_, _| {})), Err(NoPause));
    }

    /// A timer, and a network device with room.
    fn takers(deadline_ns: Option<u64>, entered: bool) -> [Taker; 2] {
        let (timer, network) = (small::TIMER, small::NETWORK);
        let (expiry, frames) = (Takes::Expiry { deadline_ns, entered }, Takes::Frames { max: 8 });
        [(timer, expiry), (network, frames)].map(|(device, takes)| Taker { device, takes })
    }

    fn due(takers: &[Taker]) -> Readiness<'_> {
        Readiness {
            closed: false,
            idle: false,
            takers,
        }
    }

    fn kind(world: &mut World, readiness: Readiness<'_>) -> Option<EventKind> {
        let event = world.arrival(readiness).unwrap();
        event.map(|event| event.kind)
    }

    #[test]
    fn a_timer_that_is_always_due_expires_once_a_point_and_lets_frames_in() {
        let (mut world, frame) = world();
        let (open, entered) = (takers(Some(1), false), takers(Some(1), true));
        frame.send(vec![1]).unwrap();
        frame.send(vec![2]).unwrap();
        for point in 1_u8..=2 {
            assert_eq!(kind(&mut world, due(&open)), Some(EventKind::Timer));
            assert_eq!(
                kind(&mut world, due(&entered)),
                Some(EventKind::Frame(vec![point]))
            );
            if point == 2 {
                assert_eq!(kind(&mut world, due(&entered)), None, "the guest runs on");
            }
        }
    }

    #[test]
    fn an_idle_guest_whose_timer_has_expired_here_waits_for_something_else() {
        let (mut world, frame) = world();
        frame.send(vec![1]).unwrap();
        let takers = &takers(Some(1), true);
        let idle = Readiness {
            idle: true,
            ..due(takers)
        };
        assert_eq!(kind(&mut world, idle), Some(EventKind::Frame(vec![1])));
    }

    /// A world where a guest may run for `latency`, and has a frame that waits, and no timer.
    fn world_of(latency: Duration) -> World {
        let (mut world, frame) = world();
        world.common_points = CommonPoints::after(Some(latency));
        frame.send(vec![1]).unwrap();
        assert_eq!(world.horizon(point(1)), Horizon::Exit);
        world
    }

    fn point(exits: u64) -> ExecutionPoint {
        ExecutionPoint {
            exits,
            ..ExecutionPoint::default()
        }
    }

    fn kick(takers: &[Taker]) -> Kick<'_> {
        Kick {
            interruptible: true,
            interrupt_pending: false,
            readiness: due(takers),
        }
    }

    const AT_ONCE: Duration = Duration::from_nanos(1);

    #[test]
    fn a_guest_without_an_exit_is_given_a_common_point_for_what_waits() {
        let no_timer = takers(None, false);
        let mut world = world_of(AT_ONCE);
        assert_eq!(world.kicked(kick(&no_timer)).unwrap(), Kicked::CommonPoint);
        let no_room = [Taker {
            device: small::NETWORK,
            takes: Takes::Frames { max: 0 },
        }];
        assert_eq!(world.kicked(kick(&no_room)).unwrap(), Kicked::RunsOn, "no room");
        let pending = Kick {
            interrupt_pending: true,
            ..kick(&no_room)
        };
        assert_eq!(world.kicked(pending).unwrap(), Kicked::CommonPoint);
        let timer = takers(Some(1), false);
        assert_eq!(kind(&mut world, due(&no_timer)), Some(EventKind::Frame(vec![1])));
        assert_eq!(
            world.kicked(kick(&no_timer)).unwrap(),
            Kicked::RunsOn,
            "nothing waits"
        );
        assert_eq!(world.kicked(kick(&timer)).unwrap(), Kicked::CommonPoint);
    }
}
