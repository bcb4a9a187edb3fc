//! One random guest, recorded and replayed at once on real KVM, and compared.

use super::layout::{self, CODE, ENTRY, MEMORY_BYTES, SLOT_BYTES};
use super::outside::RandomOutside;
use super::pieces::Chooser;
use lockstep_core::machine::cpu::cpuid;
use lockstep_core::machine::devices::{Board, Devices};
use lockstep_core::machine::door::DoorError;
use lockstep_core::machine::image::{Sites, rewrite};
use lockstep_core::machine::memory::Memory;
use lockstep_core::machine::run::Policy;
use lockstep_core::machine::{Ended, Machine, MachineError, boot, memory};
use lockstep_core::replica::recorder::Start;
use lockstep_core::replica::replayer::{Fed, Feed, Replayer};
use lockstep_core::replica::{Journal, Recorder, Standby};
use lockstep_kvm::{ClockKind, Host, Kicker, Vm};
use lockstep_logging_channel::{Body, EndReason, Entry, ExecutionPoint, Generation, OutputTarget, Sequence};
use std::collections::VecDeque;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// A recording is stopped after this time: a guest may loop without an exit.
const RECORDING: Duration = Duration::from_millis(400);
/// A replay of it that takes longer hangs. The clock `statistic` makes 16,384 steps to a stop
/// without an exit: up to 7 s on a busy host.
const REPLAY: Duration = Duration::from_secs(60);
/// Between two kicks from outside: they change nothing, and let the two be stopped.
const KICKS: Duration = Duration::from_millis(7);

/// Words of memory that a failure names.
const DIFFERENCES_MAX: usize = 8;

/// A random guest and how it is run.
#[derive(Clone, Debug)]
pub struct Case {
    /// Where it comes from.
    pub seed: u64,
    /// Its code, slot by slot.
    pub slots: Vec<Vec<u8>>,
    /// Its instruction clock.
    pub clock: ClockKind,
    /// Digests every so many exits; 0 for none.
    pub digest_interval_exits: u64,
}

/// What a case that kept its promises did.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its end.
    pub reason: EndReason,
    /// Exits it made.
    pub exits: u64,
    /// Entries of its log.
    pub entries: usize,
    /// Events that entered.
    pub events: usize,
    /// Events that entered between two exits.
    pub between: usize,
}

impl Case {
    /// The case of `seed`, with one of `clocks`.
    pub fn new(seed: u64, clocks: &[ClockKind]) -> Self {
        let mut choose = Chooser::new(seed);
        let clock = choose.pick(clocks);
        let digest_interval_exits = choose.pick(&[0, 1, 1, 2, 3, 7, 64]);
        let slots = (0..8 + choose.below(40)).map(|_| choose.slot()).collect();
        Self {
            seed,
            slots,
            clock,
            digest_interval_exits,
        }
    }

    /// The machine, ready to run.
    fn machine(&self, host: &Host, memory: Memory) -> Machine<lockstep_kvm::KvmCpu> {
        boot::small::write(&memory, "", 1_000_000).expect("boot structures");
        layout::write(&memory, self.slots.len());
        let mut sites = Sites::default();
        for (slot, address) in self.slots.iter().zip((CODE..).step_by(SLOT_BYTES)) {
            let mut code = slot.clone();
            let known = rewrite::rewrite(&mut code, address, &mut sites);
            // A slot with bytes that would be code that is not rewritten is left out:
            // docs/determinism.md, "What is not closed".
            if known.is_ok_and(|done| done.leftovers.is_empty()) {
                memory
                    .write_slice(&code, GuestAddress(address))
                    .expect("room for code");
            }
        }
        let cpu = Vm::new(host, memory.clone())
            .and_then(|vm| vm.cpu(&boot::small::entry_state(ENTRY), &cpuid::TABLE, self.clock))
            .expect("a vCPU");
        let policy = Policy {
            digest_interval_exits: self.digest_interval_exits,
            window_exits: false,
        };
        let board = Board::small([2, 0, 0, 0, 0, 1]).expect("a board");
        let devices = Devices::new(&board).expect("devices");
        Machine::new(cpu, memory, devices, sites, policy)
    }

    /// Records and replays it.
    ///
    /// # Errors
    /// The broken promise, in words.
    pub fn run(&self, host: &Host) -> Result<Kept, String> {
        let memories = [allocate(), allocate()];
        let [first, second] = memories.clone();
        let (recorded, entries) = kicked_meanwhile(|| self.record(host, first));
        let recorded = recorded.map_err(|why| format!("recording: {}", chain(&why)))?;
        let replayed = kicked_meanwhile(|| self.replay(host, second, entries.clone()));
        let replayed =
            replayed.map_err(|why| format!("replay: {}{}", chain(&why), differences(&memories)))?;
        if recorded.reason != replayed.reason || recorded.point.position() != replayed.point.position() {
            return Err(format!("recorded {recorded:?}, replayed {replayed:?}"));
        }
        let events = entries
            .iter()
            .filter(|entry| matches!(entry.body, Body::Event(_)));
        Ok(Kept {
            reason: recorded.reason,
            exits: recorded.point.exits,
            entries: entries.len(),
            events: events.clone().count(),
            between: events.filter(|entry| entry.point.instructions > 0).count(),
        })
    }

    fn record(&self, host: &Host, memory: Memory) -> (Result<Ended, MachineError>, Vec<Entry>) {
        let outside = RandomOutside::new(self.seed, self.clock, Instant::now() + RECORDING);
        let mut entries = Vec::new();
        let start = Start {
            generation: Generation(1),
            sequence: Sequence(1),
        };
        let mut door = Recorder::new(outside, Log(&mut entries), start);
        let ended = self.machine(host, memory).run(&mut door);
        drop(door);
        (ended, entries)
    }

    fn replay(&self, host: &Host, memory: Memory, entries: Vec<Entry>) -> Result<Ended, MachineError> {
        let feed = Recorded {
            entries: entries.into(),
            until: Instant::now() + REPLAY,
            last: None,
        };
        let replayer = Replayer::new(feed, self.clock != ClockKind::None);
        let mut door: Standby<_, RandomOutside, Log<'_>> = Standby::new(replayer, None);
        self.machine(host, memory).run(&mut door)
    }
}

fn allocate() -> Memory {
    memory::allocate(MEMORY_BYTES).expect("guest memory")
}

/// The first words in which the two memories differ.
fn differences([recorded, replayed]: &[Memory; 2]) -> String {
    let word = |memory: &Memory, at| memory.read_obj::<u64>(GuestAddress(at)).unwrap_or_default();
    (0..MEMORY_BYTES)
        .step_by(8)
        .map(|at| (at, word(recorded, at), word(replayed, at)))
        .filter(|(_, one, other)| one != other)
        .take(DIFFERENCES_MAX)
        .map(|(at, one, other)| format!("\n  memory at {at:#x}: recorded {one:#x}, replayed {other:#x}"))
        .collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    // The entries before it are the log's, and long.
    let lines = error.to_string();
    let mut text = lines
        .lines()
        .filter(|line| !line.contains("before it: "))
        .collect::<Vec<_>>()
        .join("\n");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Does `work` while a thread kicks this one.
fn kicked_meanwhile<T>(work: impl FnOnce() -> T) -> T {
    let (kicker, _target) = Kicker::for_this_thread();
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.recv_timeout(KICKS) == Err(mpsc::RecvTimeoutError::Timeout) {
                kicker.kick();
            }
        });
        let outcome = work();
        drop(done);
        outcome
    })
}

struct Log<'a>(&'a mut Vec<Entry>);

impl Journal for Log<'_> {
    fn append(&mut self, entry: &Entry) -> Result<(), DoorError> {
        self.0.push(entry.clone());
        Ok(())
    }

    fn output(&mut self, entry: &Entry, _target: OutputTarget, _bytes: Vec<u8>) -> Result<(), DoorError> {
        self.append(entry)
    }

    fn passed(&mut self, _exits: u64, _idle: bool) -> Result<(), DoorError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        Ok(())
    }
}

struct Recorded {
    entries: VecDeque<Entry>,
    until: Instant,
    last: Option<(ExecutionPoint, Body)>,
}

impl Feed for Recorded {
    fn next(&mut self, _exits: u64) -> Result<Fed, DoorError> {
        let next = self.entries.pop_front();
        self.last = next.as_ref().map(|entry| (entry.point, entry.body.clone()));
        Ok(next.map_or(Fed::Exhausted, |entry| Fed::Entry(Box::new(entry))))
    }

    fn replayed(&mut self, _sequence: Sequence, _exits: u64) -> Result<(), DoorError> {
        Ok(())
    }

    fn output(
        &mut self,
        _sequence: Sequence,
        _target: OutputTarget,
        _bytes: Vec<u8>,
    ) -> Result<(), DoorError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        Ok(())
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        if Instant::now() < self.until {
            return Ok(());
        }
        Err(DoorError::Host {
            what: "end of the replay",
            why: format!(
                "it hangs: {REPLAY:?} have not been enough; the next entry is {:?}",
                self.last
            ),
        })
    }
}
