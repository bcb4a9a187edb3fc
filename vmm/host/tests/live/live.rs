//! A live machine on a thread of its own, with a log in memory, and its replay from where it was
//! captured.

use crate::guest::write_tables;
use crate::moving::board;
use lockstep_core::machine::cpu::cpuid;
use lockstep_core::machine::devices::Devices;
use lockstep_core::machine::devices::board::small;
use lockstep_core::machine::door::DoorError;
use lockstep_core::machine::run::Policy;
use lockstep_core::machine::{Ended, Machine, boot, image, memory};
use lockstep_core::replica::recorder::Start;
use lockstep_core::replica::replayer::TimeFloor;
use lockstep_core::replica::transfer::Received;
use lockstep_core::replica::{CaptureJournal, Fed, Feed, Journal, Recorder, Replayer, Standby};
use lockstep_host::live::control::{Ordered, control};
use lockstep_host::live::{Arrivals, Control, Entering, GuestTime, Order, World};
use lockstep_host::machine::thread::run_pausing;
use lockstep_kvm::{ClockKind, Host, Kicker, KvmCpu, Vm};
use lockstep_logging_channel::{Digest, Entry, Generation, OutputTarget, Sequence};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No guest here takes longer to do something.
const LIMIT: Duration = Duration::from_secs(120);
const TSC_KHZ: u32 = 1_000_000;
const DIGEST_INTERVAL_EXITS: u64 = 64;

/// Item that the journal was given; a list of items keeps the journal's order.
#[derive(Clone, Debug)]
pub enum Item {
    Entry(Box<Entry>),
    SavedAt(Sequence, u64),
}

#[derive(Debug, Default)]
struct Shared {
    items: Mutex<Vec<Item>>,
    more: Condvar,
    stops: AtomicBool,
    /// When something was last appended, and the longest time between two such.
    gap: Mutex<(Option<Instant>, Duration)>,
}

/// A log in memory.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Shared>);

impl Log {
    fn push(&self, item: Item) {
        let now = Instant::now();
        {
            let (last, longest) = &mut *self.0.gap.lock().unwrap();
            let gap = last.map_or(Duration::ZERO, |last| now - last);
            (*last, *longest) = (Some(now), gap.max(*longest));
        }
        self.0.items.lock().unwrap().push(item);
        self.0.more.notify_all();
    }

    /// Longest time between two entries since this was last asked.
    pub fn longest_gap(&self) -> Duration {
        std::mem::take(&mut self.0.gap.lock().unwrap().1)
    }

    pub fn len(&self) -> usize {
        self.0.items.lock().unwrap().len()
    }

    pub fn items(&self) -> Vec<Item> {
        self.0.items.lock().unwrap().clone()
    }

    /// Waits until `enough` of what is in it.
    pub fn wait(&self, what: &str, enough: impl Fn(&[Item]) -> bool) {
        let until = Instant::now() + LIMIT;
        let mut items = self.0.items.lock().unwrap();
        while !enough(&items) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: {} entries", items.len());
            items = self.0.more.wait_timeout(items, left).unwrap().0;
        }
    }
}

impl Journal for Log {
    fn append(&mut self, entry: &Entry) -> Result<(), DoorError> {
        self.push(Item::Entry(Box::new(entry.clone())));
        Ok(())
    }

    fn output(&mut self, entry: &Entry, _: OutputTarget, _: Vec<u8>) -> Result<(), DoorError> {
        self.append(entry)
    }

    /// At an exit, and not where a kick finds the guest: there the memory of two runs is not the
    /// same.
    fn passed(&mut self, _: u64, _: bool) -> Result<(), DoorError> {
        if self.0.stops.load(Ordering::Acquire) {
            return Err(DoorError::Stopped);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        Ok(())
    }
}

impl CaptureJournal for Log {
    fn saved_at(&mut self, sequence: Sequence, exits: u64) -> Result<(), DoorError> {
        self.push(Item::SavedAt(sequence, exits));
        Ok(())
    }
}

/// A guest, and how much memory it has.
#[derive(Clone)]
pub struct Guest {
    pub image: Vec<u8>,
    /// It finds tables in memory.
    pub tables: bool,
    pub command_line: String,
    pub memory_bytes: u64,
    pub clock: ClockKind,
    pub event_latency: Option<Duration>,
}

impl Guest {
    fn build(&self, host: &Host) -> Machine<KvmCpu> {
        let memory = memory::allocate(self.memory_bytes).unwrap();
        boot::small::write(&memory, &self.command_line, TSC_KHZ).unwrap();
        if self.tables {
            write_tables(&memory);
        }
        let loaded = image::load(&self.image, &memory).unwrap();
        let cpu = Vm::new(host, memory.clone())
            .unwrap()
            .cpu(&boot::small::entry_state(loaded.entry), &cpuid::TABLE, self.clock)
            .unwrap();
        let policy = Policy {
            digest_interval_exits: DIGEST_INTERVAL_EXITS,
            window_exits: false,
        };
        let devices = Devices::new(&board()).unwrap();
        Machine::new(cpu, memory, devices, loaded.sites, policy)
    }
}

pub struct Live {
    pub control: Control,
    pub frames: crossbeam_channel::Sender<Vec<u8>>,
    pub log: Log,
    thread: JoinHandle<(Ended, Digest)>,
}

impl Live {
    pub fn start(guest: Guest) -> Self {
        let (control, ordered) = control();
        let (frames, arriving) = crossbeam_channel::bounded(64);
        let log = Log::default();
        let journal = log.clone();
        let thread = std::thread::spawn(move || run(&guest, &ordered, arriving, journal));
        Self {
            control,
            frames,
            log,
            thread,
        }
    }

    /// Gives the guest a frame, between two exits where that is possible.
    pub fn frame(&self, frame: Vec<u8>) {
        self.frames.send(frame).unwrap();
        self.control.kick();
    }

    /// Does something while the guest stands.
    pub fn paused<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Machine<KvmCpu>) -> T + Send + 'static,
    ) -> T {
        let (send, done) = std::sync::mpsc::channel();
        let at_pause = move |machine: &mut Machine<KvmCpu>, _: &mut dyn lockstep_core::replica::LiveDoor| {
            send.send(what(machine)).unwrap();
        };
        self.control.at_pause(Box::new(at_pause)).unwrap();
        done.recv_timeout(LIMIT).unwrap()
    }

    /// Stops it, and says how it ended, and with which memory. A guest that idles is stopped by an
    /// order, any other at an exit.
    pub fn stop(self, idles: bool) -> (Ended, Digest, Vec<Item>) {
        if idles {
            // An order that meets it between two points would leave no point to compare.
            let begun = Instant::now();
            while !self.paused(|machine| machine.save().unwrap().position.halted) {
                assert!(begun.elapsed() < LIMIT, "the guest does not idle");
            }
            self.control.give(Order::Stop);
        } else {
            self.log.0.stops.store(true, Ordering::Release);
        }
        self.ended()
    }

    pub fn ended(self) -> (Ended, Digest, Vec<Item>) {
        let (ended, digest) = self.thread.join().unwrap();
        (ended, digest, self.log.items())
    }
}

fn run(
    guest: &Guest,
    ordered: &Ordered,
    frames: crossbeam_channel::Receiver<Vec<u8>>,
    journal: Log,
) -> (Ended, Digest) {
    let host = Host::open().unwrap();
    let mut machine = guest.build(&host);
    let (kicker, _target) = Kicker::for_this_thread();
    ordered.attach(kicker);
    let time = GuestTime::starting_at(TimeFloor::default());
    let entering = Entering {
        clock: guest.clock,
        event_latency: guest.event_latency,
        epoch: None,
        first_write: None,
    };
    let arrivals = Arrivals::default().with(small::NETWORK, frames);
    let outside = World::new(time, arrivals, ordered.clone(), entering).unwrap();
    let start = Start {
        generation: Generation(1),
        sequence: Sequence(1),
    };
    let mut door = Recorder::new(outside, journal, start);
    let ended = run_pausing(&mut machine, &mut door, ordered).unwrap();
    ordered.no_more_pauses();
    let digest = memory::digest(machine.memory()).unwrap();
    (ended, digest)
}

struct Rest(VecDeque<Entry>);

impl Feed for Rest {
    fn next(&mut self, _: u64) -> Result<Fed, DoorError> {
        Ok(self
            .0
            .pop_front()
            .map_or(Fed::Exhausted, |entry| Fed::Entry(Box::new(entry))))
    }

    fn replayed(&mut self, _: Sequence, _: u64) -> Result<(), DoorError> {
        Ok(())
    }

    fn output(&mut self, _: Sequence, _: OutputTarget, _: Vec<u8>) -> Result<(), DoorError> {
        Ok(())
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        Ok(())
    }
}

/// Replays what came behind the capture in a machine built from it.
pub fn replay(clock: ClockKind, received: Received, items: &[Item]) -> (Ended, Digest) {
    let host = Host::open().unwrap();
    let Received {
        machine,
        memory,
        position,
    } = received;
    let rest = items.iter().filter_map(|item| match item {
        Item::Entry(entry) if entry.sequence.0 > position.sequence => Some((**entry).clone()),
        _ => None,
    });
    let counts = clock != ClockKind::None;
    let replayer = Replayer::from_capture(
        Rest(rest.collect()),
        counts,
        Sequence(position.sequence),
        position.into(),
    );
    let mut door: Standby<Rest, World, Log> = Standby::new(replayer, None);
    let cpu = Vm::new(&host, memory.clone())
        .unwrap()
        .cpu(&boot::small::entry_state(0), &cpuid::TABLE, clock)
        .unwrap();
    let mut machine = Machine::restore(cpu, memory, &board(), &machine).unwrap();
    let ended = machine.run(&mut door).unwrap();
    let digest = memory::digest(machine.memory()).unwrap();
    (ended, digest)
}
