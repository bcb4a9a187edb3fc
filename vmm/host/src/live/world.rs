//! The outside of a live machine, on its vCPU thread: host threads propose arrivals through bounded
//! channels, this decides when they enter.

use super::control::Ordered;
use super::time::GuestTime;
use crossbeam_channel::{Receiver, Select, TryRecvError, never};
use lockstep_core::machine::devices::board::small;
use lockstep_core::machine::door::{DoorError, Horizon, Kick, Kicked, Question, Readiness, Taker, Takes};
use lockstep_core::replica::Outside;
use lockstep_core::replica::cpu::{Proposals, Taking};
use lockstep_kvm::ClockKind;
use lockstep_kvm::kick::KickTimer;
use lockstep_logging_channel::{DeviceId, Event, ExecutionPoint, Value};
use lockstep_process::once_a_minute::INTERVAL;
use std::time::{Duration, Instant};

/// When a kick found no execution point, or one at which the guest cannot be interrupted, the next
/// comes after this time: long enough for a clock to see what it needs, and for some hundred steps.
const RETRY_AFTER: Duration = Duration::from_millis(1);

/// Proposals of the host's threads for the devices of the small board.
#[derive(Clone, Debug)]
pub struct Arrivals {
    /// Ethernet frames for the guest.
    pub frames: Receiver<Vec<u8>>,
    /// Bytes typed at the console.
    pub console: Receiver<Vec<u8>>,
}

impl Arrivals {
    fn of(&self, device: DeviceId) -> Option<&Receiver<Vec<u8>>> {
        match device {
            small::NETWORK => Some(&self.frames),
            small::CONSOLE => Some(&self.console),
            _ => None,
        }
    }

    fn of_mut(&mut self, device: DeviceId) -> Option<&mut Receiver<Vec<u8>>> {
        match device {
            small::NETWORK => Some(&mut self.frames),
            small::CONSOLE => Some(&mut self.console),
            _ => None,
        }
    }
}

/// A guest that cannot be interrupted is waited for so many times as long as one that can, before
/// what waits enters all the same: it may look for it without an interrupt.
const CLOSED_TIMES: u32 = 10;

/// The part of the event latency for which a guest must have made no exit. What arrives then has
/// waited for at most one more part when the next kick comes; and a timer whose period is the
/// latency finds a guest that last made an exit when it served it.
const QUIET_PART: u32 = 2;

/// Where events may enter a live machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entering {
    /// At exits, and at exact instructions where there is a clock for them.
    pub clock: ClockKind,
    /// At a common point, where a guest has run for so long without an execution point and
    /// something waits. None: it waits however long.
    pub event_latency: Option<Duration>,
}

/// The run of the guest since its last execution point.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Exits and instructions there.
    position: (u64, u64),
    since: Instant,
    /// A common point is being made, or waits for the guest to open interrupts: looked at soon.
    soon: bool,
    /// When it was found that one is needed.
    needed: Option<Instant>,
}

/// The outside of a live machine.
pub struct World {
    time: GuestTime,
    arrivals: Arrivals,
    ordered: Ordered,
    interrupts_between_exits: bool,
    /// None: what waits for an execution point waits however long.
    event_latency: Option<Duration>,
    timer: Option<KickTimer>,
    /// When the timer kicks, as far as is known.
    kicks_at: Option<Instant>,
    timer_deadline_ns: Option<u64>,
    taking: Taking,
    /// A kick found the guest where nothing can enter.
    missed: bool,
    stretch: Option<Stretch>,
    /// What the last common point took: the guest runs for as long before the next.
    last_took: Duration,
    /// When it was last said that common points take long.
    told: Option<Instant>,
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
        let Entering { clock, event_latency } = entering;
        let interrupts_between_exits = clock != ClockKind::None;
        let timer = if interrupts_between_exits || event_latency.is_some() {
            Some(KickTimer::for_this_thread()?)
        } else {
            None
        };
        Ok(Self {
            time,
            arrivals,
            ordered,
            interrupts_between_exits,
            event_latency,
            timer,
            kicks_at: None,
            timer_deadline_ns: None,
            taking: Taking::default(),
            missed: false,
            stretch: None,
            last_took: Duration::ZERO,
            told: None,
        })
    }

    /// Waits until something may be there, an order was given, or a timer is due.
    fn wait(&self, readiness: Readiness<'_>) {
        let mut select = Select::new();
        select.recv(self.ordered.woken());
        for device in open(readiness) {
            if let Some(proposed) = self.arrivals.of(device) {
                select.recv(proposed);
            }
        }
        let Some(deadline_ns) = readiness.waits_until_ns() else {
            select.ready();
            return;
        };
        // Due or not, the caller looks again.
        let _ = select.ready_deadline(self.time.host_instant(deadline_ns));
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
        let proposed = |device| {
            let arrivals = self.arrivals.of(device);
            arrivals.is_some_and(|arrivals| !arrivals.is_empty())
        };
        due || open(readiness).any(proposed)
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
        let (Some(latency), Some(stretch)) = (self.event_latency, self.stretch) else {
            return;
        };
        let quiet = latency / QUIET_PART;
        let earliest = stretch.since + quiet.max(self.last_took);
        let wanted = if stretch.soon {
            now + RETRY_AFTER
        } else {
            let regular = if earliest > now { earliest } else { now + quiet };
            let due = self
                .timer_deadline_ns
                .map(|deadline_ns| self.time.host_instant(deadline_ns));
            due.map_or(regular, |due| {
                regular.min(due.max(earliest).max(now + RETRY_AFTER))
            })
        };
        if self.kicks_at.is_none_or(|at| at > wanted) {
            self.kick_at(wanted, now);
        }
    }

    /// The guest is at an execution point, or runs on from a kick.
    fn note(&mut self, point: ExecutionPoint, now: Instant) {
        if self
            .stretch
            .is_some_and(|stretch| stretch.position == point.position())
        {
            return;
        }
        let before = self.stretch.replace(Stretch {
            position: point.position(),
            since: now,
            soon: false,
            needed: None,
        });
        let Some(needed) = before.and_then(|stretch| stretch.needed) else {
            return;
        };
        self.last_took = now.saturating_duration_since(needed);
        if let Some(latency) = self.event_latency.filter(|latency| self.last_took > *latency)
            && self
                .told
                .is_none_or(|told| now.saturating_duration_since(told) >= INTERVAL)
        {
            self.told = Some(now);
            tracing::warn!(
                event_latency_ms = latency.as_millis(),
                took_ms = self.last_took.as_millis(),
                "a common point took longer than events are to wait: the guest writes much memory without an exit"
            );
        }
    }

    /// What a kick leads to that let nothing in.
    fn judge(&mut self, kick: Kick<'_>, now: Instant) -> Kicked {
        let waits = kick.interrupt_pending || self.something_waits(kick.readiness);
        let took = self.last_took;
        let (Some(latency), Some(stretch)) = (self.event_latency, &mut self.stretch) else {
            return Kicked::RunsOn;
        };
        let ran = now.saturating_duration_since(stretch.since);
        stretch.soon = waits && ran >= (latency / QUIET_PART).max(took);
        if !stretch.soon || !(kick.interruptible || ran >= CLOSED_TIMES * latency) {
            return Kicked::RunsOn;
        }
        stretch.needed.get_or_insert(now);
        Kicked::CommonPoint
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
            if !readiness.idle || self.ordered.pause_asked() {
                return Ok(None);
            }
            self.wait(readiness);
            self.ordered.obey()?;
        }
    }

    fn horizon(&mut self, point: ExecutionPoint) -> Horizon {
        let now = Instant::now();
        self.note(point, now);
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
        Ok(self.judge(kick, now))
    }
}

/// Devices that have room for what comes from outside.
fn open(readiness: Readiness<'_>) -> impl Iterator<Item = DeviceId> {
    let has_room = |taker: &&Taker| match taker.takes {
        Takes::Frames { max } => max > 0,
        Takes::ConsoleInput { bytes_max } => bytes_max > 0,
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
        take(self.arrivals.of_mut(device)?)
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
        let console = never();
        let world = World::new(
            GuestTime::starting_at(floor),
            Arrivals { frames, console },
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
        let console = never();
        let arrivals = Arrivals { frames, console };
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
}
