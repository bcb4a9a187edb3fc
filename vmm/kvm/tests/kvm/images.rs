//! The guest images on machines that move: the same outputs, digests and memory as on one machine.

use crate::guest::{asks_for_address, host, skip, stop_if, watched};
use crate::moving::{Kicks, Mover, board, run_to_end};
use lockstep_core::machine::cpu::cpuid;
use lockstep_core::machine::devices::Devices;
use lockstep_core::machine::devices::board::small;
use lockstep_core::machine::door::{Door, DoorError, Horizon, Kick, Kicked, Question, Readiness, Takes};
use lockstep_core::machine::run::{Pause, Policy};
use lockstep_core::machine::{Machine, boot, image, memory};
use lockstep_kvm::{ClockKind, Host, Vm};
use lockstep_logging_channel::{End, Event, EventKind, ExecutionPoint, OutputTarget, PartDigest, Value};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const MEMORY_BYTES: u64 = 64 << 20;
const TSC_KHZ: u32 = 1_000_000;
const DIGEST_INTERVAL_EXITS: u64 = 50;
/// Guest time that passes between two exits.
const NS_PER_EXIT: u64 = 1_000;
/// Moves of one run.
const MOVES: u32 = 8;
/// Times that an idle guest is woken by the network.
const PINGS: u32 = 3;
const SECOND_NS: u64 = 1_000_000_000;

/// A world that is a function of the exits: whoever asks at the same place is told the same.
#[derive(Default)]
struct World {
    pings: u32,
    now_ns: u64,
    outputs: Vec<(u64, OutputTarget, Vec<u8>)>,
    digests: Vec<(u64, Vec<PartDigest>)>,
    end: Option<End>,
    late: Arc<AtomicBool>,
}

impl World {
    fn time(&mut self, exits: u64) -> u64 {
        self.now_ns = self.now_ns.max(exits * NS_PER_EXIT);
        self.now_ns
    }
}

impl Door for World {
    fn answer(&mut self, point: ExecutionPoint, question: Question) -> Result<Value, DoorError> {
        let now_ns = self.time(point.exits);
        Ok(match question {
            Question::Tsc => Value::Tsc(now_ns),
            Question::Monotonic => Value::Monotonic(now_ns),
            Question::Wall => Value::Wall(SECOND_NS + now_ns),
            Question::Random { length_bytes } => Value::Random(
                (0..length_bytes)
                    .map(|byte| (byte as u64 ^ now_ns >> 3) as u8)
                    .collect(),
            ),
        })
    }

    fn arrival(
        &mut self,
        point: ExecutionPoint,
        readiness: Readiness<'_>,
    ) -> Result<Option<Event>, DoorError> {
        if !readiness.idle {
            return Ok(None);
        }
        stop_if(&self.late)?;
        let now_ns = self.time(point.exits);
        let mut takers = readiness.takers.iter();
        let has_room = takers.any(|taker| matches!(taker.takes, Takes::Frames { max } if max > 0));
        let deadline_ns = readiness.next_deadline_ns().filter(|at| *at < 10 * SECOND_NS);
        let (device, kind) = if has_room && self.pings < PINGS {
            self.pings += 1;
            (small::NETWORK, EventKind::Frame(asks_for_address()))
        } else if let Some(deadline_ns) = deadline_ns {
            self.now_ns = now_ns.max(deadline_ns);
            (small::TIMER, EventKind::Timer)
        } else {
            return Err(DoorError::Stopped);
        };
        Ok(Some(Event {
            device,
            monotonic_ns: self.now_ns,
            kind,
        }))
    }

    fn horizon(&mut self, _point: ExecutionPoint) -> Result<Horizon, DoorError> {
        Ok(Horizon::Exit)
    }

    fn kicked(&mut self, _: Kick<'_>) -> Result<Kicked, DoorError> {
        stop_if(&self.late).map(|()| Kicked::RunsOn)
    }

    fn output(
        &mut self,
        point: ExecutionPoint,
        target: OutputTarget,
        bytes: Vec<u8>,
    ) -> Result<(), DoorError> {
        self.outputs.push((point.exits, target, bytes));
        Ok(())
    }

    fn digests(&mut self, point: ExecutionPoint, parts: Vec<PartDigest>) -> Result<(), DoorError> {
        self.digests.push((point.exits, parts));
        Ok(())
    }

    fn end(&mut self, _point: ExecutionPoint, end: End) -> Result<(), DoorError> {
        self.end = Some(end);
        Ok(())
    }
}

/// Runs the guest to its end, or until it waits for nothing that comes.
fn run(host: &Host, name: &str, command_line: &str, mover: &mut dyn Mover) -> Option<(World, u32)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../guest-images/build/{name}.elf"));
    let Ok(bytes) = std::fs::read(&path) else {
        skip(&format!("{} is not built: make guests", path.display()));
        return None;
    };
    let memory = memory::allocate(MEMORY_BYTES).unwrap();
    boot::small::write(&memory, command_line, TSC_KHZ).unwrap();
    let loaded = image::load(&bytes, &memory).unwrap();
    let cpu = Vm::new(host, memory.clone())
        .unwrap()
        .cpu(
            &boot::small::entry_state(loaded.entry),
            &cpuid::TABLE,
            ClockKind::None,
        )
        .unwrap();
    let policy = Policy {
        digest_interval_exits: DIGEST_INTERVAL_EXITS,
        window_exits: false,
    };
    let devices = Devices::new(&board()).unwrap();
    let machine = Machine::new(cpu, memory, devices, loaded.sites, policy);
    let mut world = World::default();
    let late = world.late.clone();
    let (_, _, count) = watched(late, || {
        run_to_end(host, ClockKind::None, machine, &mut world, mover)
    });
    Some((world, count))
}

/// Every so many exits, at most [`MOVES`] times.
fn at_every(interval_exits: u64) -> impl FnMut(Pause) -> bool {
    let mut left = MOVES;
    move |pause| {
        let moves = !pause.between && left > 0 && pause.point.exits.is_multiple_of(interval_exits);
        left -= u32::from(moves);
        moves
    }
}

fn check(name: &str, command_line: &str, interval_exits: u64) {
    let Some(host) = host() else { return };
    let Some((straight, _)) = run(&host, name, command_line, &mut |_: Pause| false) else {
        return;
    };
    assert!(!straight.outputs.is_empty(), "{name} says something");
    let same = |moving: &World, how: &str| {
        assert_eq!(moving.outputs, straight.outputs, "{name}, {how}");
        assert_eq!(moving.digests, straight.digests, "{name}, {how}");
        assert_eq!(moving.end, straight.end, "{name}, {how}");
    };

    let (at_exits, moves) = run(&host, name, command_line, &mut at_every(interval_exits)).unwrap();
    same(&at_exits, "moved at exits");
    assert!(moves > 0, "{name} made more than {interval_exits} exits");

    let mut kicks = Kicks::new(MOVES);
    let (at_kicks, _) = run(&host, name, command_line, &mut kicks).unwrap();
    same(&at_kicks, "moved at kicks");
}

#[test]
fn smoke_is_the_same_wherever_it_moves() {
    check("smoke", "status=0", 11);
}

#[test]
fn entropy_is_the_same_wherever_it_moves() {
    check("entropy", "", 97);
}

#[test]
fn compute_is_the_same_wherever_it_moves() {
    check("compute", "megarounds=40", 13);
}

#[test]
fn the_key_value_server_is_the_same_wherever_it_moves() {
    check("key-value", "ip=10.0.2.15/24", 23);
}
