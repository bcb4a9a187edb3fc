//! The outside of a random guest: a clock that goes on with each question, arrivals at random
//! points, and kicks at random times.

use lockstep_core::machine::door::{DoorError, Horizon, Kick, Kicked, Question, Readiness, Takes};
use lockstep_core::replica::Outside;
use lockstep_core::replica::replayer::TimeFloor;
use lockstep_kvm::ClockKind;
use lockstep_kvm::kick::KickTimer;
use lockstep_logging_channel::{DeviceId, Event, EventKind, ExecutionPoint, Value};
use lockstep_qualify::bench::Numbers;
use std::time::{Duration, Instant};

/// The longest a kick is away.
const KICK_NS_MAX: u64 = 200_000;

/// The outside of a recording.
pub struct RandomOutside {
    numbers: Numbers,
    time: TimeFloor,
    timer: Option<KickTimer>,
    /// In how many of 64 cases something arrives.
    chance: u64,
    /// The recording is stopped after so many questions of what has arrived.
    asked_max: u64,
    asked: u64,
    until: Instant,
}

impl RandomOutside {
    /// From a seed, for a guest with this clock; it is stopped at `until` at the latest. Must be
    /// made on the vCPU's thread.
    pub fn new(seed: u64, clock: ClockKind, until: Instant) -> Self {
        let mut numbers = Numbers::new(seed.wrapping_mul(0xd134_2543_de82_ef95).rotate_left(31));
        let chance = [0, 4, 12, 12, 40, 62][numbers.below(6) as usize];
        let timer = match clock {
            ClockKind::None => None,
            _ => Some(KickTimer::for_this_thread().expect("a timer")),
        };
        Self {
            asked_max: 100 + numbers.below(1200),
            numbers,
            time: TimeFloor {
                monotonic_ns: 1_000,
                tsc: 5_000,
                wall_ns: 1 << 60,
            },
            timer,
            chance,
            asked: 0,
            until,
        }
    }

    fn pass(&mut self, at_most_ns: u64) {
        let passed = 1 + self.numbers.below(at_most_ns);
        self.time.monotonic_ns += passed;
        self.time.tsc += passed;
        self.time.wall_ns += passed;
    }

    /// Something that can enter, and its device: what exactly is chance, unless only one thing can.
    fn choose(&mut self, readiness: Readiness<'_>) -> Option<(DeviceId, EventKind)> {
        let count = readiness.takers.len();
        let first = self.numbers.below(count.max(1) as u64) as usize;
        let mut turns = readiness.takers.iter().cycle().skip(first).take(count);
        turns.find_map(|taker| Some((taker.device, self.kind_for(taker.takes)?)))
    }

    fn kind_for(&mut self, takes: Takes) -> Option<EventKind> {
        match takes {
            Takes::Expiry {
                deadline_ns: Some(deadline_ns),
                entered: false,
            } => {
                self.time.monotonic_ns = self.time.monotonic_ns.max(deadline_ns);
                Some(EventKind::Timer)
            }
            Takes::Frames { max } if max > 0 => {
                let length = self.numbers.below(1600);
                Some(EventKind::Frame(self.bytes(length)))
            }
            Takes::ConsoleInput { bytes_max, .. } if bytes_max > 0 => {
                let length = 1 + self.numbers.below(bytes_max.min(4) as u64);
                Some(EventKind::ConsoleInput(self.bytes(length)))
            }
            _ => None,
        }
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.numbers.below(256) as u8).collect()
    }

    fn check_time(&self) -> Result<(), DoorError> {
        if Instant::now() < self.until {
            Ok(())
        } else {
            Err(DoorError::Stopped)
        }
    }
}

impl Outside for RandomOutside {
    fn answer(&mut self, question: Question) -> Result<Value, DoorError> {
        self.pass(3_000);
        Ok(match question {
            Question::Tsc => Value::Tsc(self.time.tsc),
            Question::Monotonic => Value::Monotonic(self.time.monotonic_ns),
            Question::Wall => Value::Wall(self.time.wall_ns),
            Question::Random { length_bytes } => Value::Random(self.bytes(length_bytes.into())),
        })
    }

    fn arrival(&mut self, readiness: Readiness<'_>) -> Result<Option<Event>, DoorError> {
        self.check_time()?;
        self.asked += 1;
        if self.asked > self.asked_max {
            return Err(DoorError::Stopped);
        }
        if readiness.closed {
            return Ok(None);
        }
        self.pass(1_000);
        if !readiness.idle && self.numbers.below(64) >= self.chance {
            return Ok(None);
        }
        let Some((device, kind)) = self.choose(readiness) else {
            // Nothing can ever wake it.
            return if readiness.idle {
                Err(DoorError::Stopped)
            } else {
                Ok(None)
            };
        };
        Ok(Some(Event {
            device,
            monotonic_ns: self.time.monotonic_ns,
            kind,
        }))
    }

    fn horizon(&mut self, _point: ExecutionPoint) -> Horizon {
        let after = Duration::from_nanos(1 + self.numbers.below(KICK_NS_MAX));
        let Some(timer) = &mut self.timer else {
            return Horizon::Exit;
        };
        timer.arm(after).expect("a timer that can be armed");
        Horizon::Kick
    }

    fn kicked(&mut self, _: Kick<'_>) -> Result<Kicked, DoorError> {
        self.check_time().map(|()| Kicked::RunsOn)
    }
}
