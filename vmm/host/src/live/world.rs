//! The outside of a live machine, on its vCPU thread: host threads propose arrivals through bounded
//! channels, this decides when they enter.

use super::control::Ordered;
use super::time::GuestTime;
use crossbeam_channel::{Receiver, Select, TryRecvError, never};
use lockstep_core::machine::devices::board::small;
use lockstep_core::machine::door::{DoorError, Horizon, Question, Readiness, Takes};
use lockstep_core::replica::Outside;
use lockstep_core::replica::cpu::{Proposals, Taking};
use lockstep_kvm::ClockKind;
use lockstep_kvm::kick::KickTimer;
use lockstep_logging_channel::{DeviceId, Event, ExecutionPoint, Value};
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

/// The outside of a live machine.
pub struct World {
    time: GuestTime,
    arrivals: Arrivals,
    ordered: Ordered,
    interrupts_between_exits: bool,
    timer: Option<KickTimer>,
    timer_deadline_ns: Option<u64>,
    taking: Taking,
    /// A kick found the guest where nothing can enter.
    missed: bool,
}

impl World {
    /// The outside for a machine with this clock. Must be made on its vCPU thread.
    ///
    /// # Errors
    /// The host gives no timer.
    pub fn new(
        time: GuestTime,
        arrivals: Arrivals,
        ordered: Ordered,
        clock: ClockKind,
    ) -> std::io::Result<Self> {
        let interrupts_between_exits = clock != ClockKind::None;
        let timer = if interrupts_between_exits {
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
            timer_deadline_ns: None,
            taking: Taking::default(),
            missed: false,
        })
    }

    /// Waits until something may be there, an order was given, or a timer is due.
    fn wait(&self, readiness: Readiness<'_>) {
        let mut select = Select::new();
        select.recv(self.ordered.woken());
        for taker in readiness.takers {
            let room = match taker.takes {
                Takes::Frames { max } => max,
                Takes::ConsoleInput { bytes_max } => bytes_max,
                Takes::Expiry { .. } => 0,
            };
            if let Some(proposed) = self.arrivals.of(taker.device).filter(|_| room > 0) {
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

    fn arm_timer(&mut self) {
        let (Some(timer), Some(deadline_ns)) = (&mut self.timer, self.timer_deadline_ns) else {
            return;
        };
        let after = self
            .time
            .host_instant(deadline_ns)
            .saturating_duration_since(Instant::now());
        // A timer that cannot be armed makes the interrupt late, never wrong.
        let _ = timer.arm(after);
    }

    /// Kicks again soon if something waits that the last kick could not let in.
    fn arm_again(&mut self) {
        let due = self
            .timer_deadline_ns
            .is_some_and(|deadline_ns| deadline_ns <= self.time.monotonic_ns());
        let waits = due || !self.arrivals.frames.is_empty() || !self.arrivals.console.is_empty();
        match &mut self.timer {
            Some(timer) if waits => {
                let _ = timer.arm(RETRY_AFTER);
            }
            _ => self.arm_timer(),
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
        self.missed |= readiness.closed;
        self.timer_deadline_ns = readiness.next_deadline_ns();
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

    fn horizon(&mut self, _point: ExecutionPoint) -> Horizon {
        if !self.interrupts_between_exits {
            return Horizon::Exit;
        }
        if std::mem::take(&mut self.missed) {
            self.arm_again()
        } else {
            self.arm_timer()
        }
        Horizon::Kick
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        self.missed = true;
        self.ordered.obey()
    }
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
    use lockstep_core::machine::door::Taker;
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
            ClockKind::None,
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
        let mut world = World::new(time, arrivals, ordered.clone(), ClockKind::None).unwrap();
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
