//! For any guest and any world: a recording replays to the same, no altered entry goes unnoticed,
//! and whoever goes live goes on where the log left off.

use super::guest::{Does, Guest, Script};
use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

/// Inputs that the guest was given, and data that the journal was given.
struct Recording {
    told: Vec<(ExecutionPoint, Body)>,
    written: Written,
}

fn record(script: &Script, outside: FakeOutside) -> Recording {
    let journal = FakeJournal::default();
    let written = journal.written.clone();
    let start = Start {
        generation: Generation(1),
        sequence: Sequence(1),
    };
    let mut guest = Guest::new(script);
    guest.run(&mut Recorder::new(outside, journal, start)).unwrap();
    Recording {
        told: guest.told,
        written: written.take(),
    }
}

/// Replays offline; what the guest was told, and what the feed was.
fn replay(
    script: &Script,
    entries: &[Entry],
    clock: bool,
) -> (Vec<(ExecutionPoint, Body)>, Told, Result<(), DoorError>) {
    let feed = FakeFeed::of(entries);
    let told = feed.told.clone();
    let mut guest = Guest::new(script);
    let outcome = guest.run(&mut FakeStandby::new(Replayer::new(feed, clock), None));
    (guest.told, told.take(), outcome)
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        Just(Does::Ask(Question::Tsc)),
        Just(Does::Ask(Question::Monotonic)),
        Just(Does::Ask(Question::Wall)),
        (1..=8_u32).prop_map(|length_bytes| Does::Ask(Question::Random { length_bytes })),
        Just(Does::Say(NETWORK)),
        Just(Does::Say(CONSOLE)),
        Just(Does::Digests),
        Just(Does::Halt),
        Just(Does::Nothing),
        Just(Does::Nothing),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let kicks = prop::collection::btree_set(1..1000_u64, 0..4).prop_map(|kicks| kicks.into_iter().collect());
    let steps = prop_oneof![3 => Just(0_u64), 1 => 1..12_u64];
    prop::collection::vec((does(), kicks, steps), 1..30).prop_map(|exits| {
        let (does, kicks, steps) = exits.into_iter().collect();
        Script { does, kicks, steps }
    })
}

fn outside() -> impl Strategy<Value = FakeOutside> {
    let kind = prop_oneof![
        Just(EventKind::Timer),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(EventKind::Frame),
        prop::collection::vec(any::<u8>(), 1..3).prop_map(EventKind::ConsoleInput),
    ];
    let arrivals = prop::collection::vec(prop::option::weighted(0.3, kind), 0..60);
    let common_points = prop::collection::vec(prop::bool::weighted(0.4), 0..60);
    (arrivals, any::<bool>(), common_points).prop_map(|(arrivals, kicks, common_points)| FakeOutside {
        now: 100,
        arrivals: arrivals.into(),
        kicks,
        common_points: common_points.into(),
        ..FakeOutside::default()
    })
}

/// Kind of alteration of an entry.
#[derive(Clone, Copy, Debug)]
enum Alteration {
    Body,
    Device,
    Exits(bool),
    Instructions,
    Rip,
    Dropped,
    Doubled,
}

fn alteration() -> impl Strategy<Value = Alteration> {
    prop_oneof![
        4 => Just(Alteration::Body),
        2 => Just(Alteration::Device),
        2 => any::<bool>().prop_map(Alteration::Exits),
        1 => Just(Alteration::Instructions),
        1 => Just(Alteration::Rip),
        1 => Just(Alteration::Dropped),
        1 => Just(Alteration::Doubled),
    ]
}

/// Whether anything depends on it: on the point of a part nothing does, nor on a part of a common
/// point that was never made; and no replay is where a common point was made, to compare the
/// instruction pointer.
fn counts(entries: &[Entry], at: usize, alteration: Alteration) -> bool {
    let covered = || {
        let mut behind = entries[at..].iter();
        behind.any(|entry| matches!(entry.body, Body::CommonPoint(_)))
    };
    match (&entries[at].body, alteration) {
        (Body::Part(_), Alteration::Body | Alteration::Device) => true,
        (Body::Part(_), Alteration::Dropped | Alteration::Doubled) => covered(),
        (Body::Part(_), _) => false,
        (Body::CommonPoint(_), Alteration::Rip) => false,
        _ => true,
    }
}

fn alter(entries: &mut Vec<Entry>, at: usize, alteration: Alteration) {
    match alteration {
        Alteration::Body => alter_body(&mut entries[at].body),
        Alteration::Device => alter_device(&mut entries[at].body),
        Alteration::Exits(true) => entries[at].point.exits += 1,
        Alteration::Exits(false) => entries[at].point.exits -= 1,
        Alteration::Instructions => entries[at].point.instructions += 1,
        Alteration::Rip => entries[at].point.rip ^= 1 << 20,
        Alteration::Dropped => drop(entries.remove(at)),
        Alteration::Doubled => entries.insert(at, entries[at].clone()),
    }
}

/// Names another device, where it names one.
fn alter_device(body: &mut Body) {
    match body {
        Body::Event(event) => event.device.0 ^= 1,
        Body::Output(output) => output.target.device.0 ^= 1,
        other => alter_body(other),
    }
}

fn alter_body(body: &mut Body) {
    match body {
        Body::Environment(environment) => environment.pair[0] ^= 1,
        Body::Value(Value::Tsc(value) | Value::Monotonic(value) | Value::Wall(value)) => *value ^= 1,
        Body::Value(Value::Random(bytes)) => bytes[0] ^= 1,
        Body::Event(event) => event.monotonic_ns ^= 1,
        Body::Output(output) => output.digest.0[3] ^= 1,
        Body::Digests(parts) | Body::End(End { parts, .. }) => parts[0].digest.0[3] ^= 1,
        Body::Part(part) => part.raw_bytes ^= 1,
        Body::CommonPoint(common) => common.pages ^= 1,
        Body::HeldOutput(output) => output.bytes.push(0),
        Body::DiskWrite(write) => write.number += 1,
        Body::DiskChange(change) => change.number += 1,
    }
}

/// A log that ends after `kept` entries, and what went live there.
struct Continued {
    told: Vec<(ExecutionPoint, Body)>,
    floor: TimeFloor,
    written: Written,
    times_live: usize,
}

fn go_live_after(script: &Script, kept: &[Entry], world: FakeOutside) -> Continued {
    let journal = FakeJournal::default();
    let written = journal.written.clone();
    let floors = Rc::new(RefCell::new(Vec::new()));
    let seen = floors.clone();
    let clock = world.kicks;
    let go_live: GoLive<FakeOutside, FakeJournal> = Box::new(move |taken_over| {
        seen.borrow_mut().push(taken_over.floor);
        let TimeFloor {
            monotonic_ns,
            tsc,
            wall_ns,
        } = taken_over.floor;
        let outside = FakeOutside {
            now: monotonic_ns.max(tsc).max(wall_ns),
            ..world
        };
        let start = Start {
            generation: Generation(2),
            sequence: taken_over.sequence,
        };
        Ok(Recorder::new(outside, journal, start))
    });
    let mut guest = Guest::new(script);
    let feed = FakeFeed::of(kept);
    guest
        .run(&mut FakeStandby::new(Replayer::new(feed, clock), Some(go_live)))
        .unwrap();
    let floors = floors.take();
    let times_live = floors.len();
    Continued {
        told: guest.told,
        floor: floors[0],
        written: written.take(),
        times_live,
    }
}

/// Inputs that these entries give the guest.
fn inputs(entries: &[Entry]) -> Vec<Body> {
    let bodies = entries.iter().map(|entry| entry.body.clone());
    bodies
        .filter(|body| matches!(body, Body::Value(_) | Body::Event(_)))
        .collect()
}

fn bodies(told: &[(ExecutionPoint, Body)]) -> Vec<Body> {
    told.iter().map(|(_, body)| body.clone()).collect()
}

proptest! {
    #[test]
    fn any_recording_replays_to_the_same(script in script(), outside in outside()) {
        let clock = outside.kicks;
        let recording = record(&script, outside);

        let (told, feed, outcome) = replay(&script, &recording.written.entries, clock);

        prop_assert!(outcome.is_ok(), "{outcome:?}");
        prop_assert_eq!(told, recording.told);
        let outputs: Vec<_> = feed.outputs.into_iter().map(|(_, target, bytes)| (target, bytes)).collect();
        prop_assert_eq!(outputs, recording.written.outputs);
        prop_assert_eq!(feed.replayed.len(), recording.written.entries.len());
    }

    #[test]
    fn any_altered_entry_is_noticed(
        script in script(), outside in outside(), at in any::<Index>(), alteration in alteration()
    ) {
        let clock = outside.kicks;
        let mut entries = record(&script, outside).written.entries;
        let at = at.index(entries.len());
        // No replay looks at what follows an end: the log's reader refuses it.
        prop_assume!(!(matches!(alteration, Alteration::Doubled) && at + 1 == entries.len()));
        prop_assume!(counts(&entries, at, alteration));
        alter(&mut entries, at, alteration);

        let (_, _, outcome) = replay(&script, &entries, clock);

        // A dropped end is a log that is over too early, and parts are refused; everything else is a
        // divergence.
        let noticed = matches!(
            outcome,
            Err(DoorError::Diverged(_) | DoorError::Exhausted | DoorError::Part { .. })
        );
        prop_assert!(noticed, "{outcome:?}");
    }

    #[test]
    fn going_live_neither_repeats_nor_invents(
        script in script(), outside in outside(), later in outside(), cut in any::<Index>()
    ) {
        let clock = outside.kicks;
        let recording = record(&script, outside);
        // At least the end is missing: a log with an end leaves nothing to live.
        let kept = &recording.written.entries[..cut.index(recording.written.entries.len())];

        let continued = go_live_after(&script, kept, FakeOutside { kicks: clock, ..later });

        prop_assert_eq!(continued.times_live, 1);
        let new = &continued.written.entries;
        prop_assert_eq!(new[0].sequence, Sequence(kept.len() as u64 + 1));
        prop_assert!(new.iter().all(|entry| entry.generation == Generation(2)));
        let whole: Vec<Entry> = kept.iter().chain(new).cloned().collect();
        prop_assert_eq!(inputs(&whole), bodies(&continued.told), "each input once, in its order");
        let (told, _, outcome) = replay(&script, &whole, clock);
        prop_assert!(outcome.is_ok(), "one log of one run: {outcome:?}");
        prop_assert_eq!(told, continued.told);
    }

    #[test]
    fn guest_time_does_not_go_back_where_a_backup_goes_live(
        script in script(), outside in outside(), later in outside(), cut in any::<Index>()
    ) {
        let recording = record(&script, outside.clone());
        let kept = &recording.written.entries[..cut.index(recording.written.entries.len())];

        let continued = go_live_after(&script, kept, FakeOutside { kicks: outside.kicks, ..later });

        let latest = |of: fn(&Body) -> Option<u64>| kept.iter().filter_map(|entry| of(&entry.body)).max().unwrap_or(0);
        let monotonic = latest(|body| match body {
            Body::Event(event) => Some(event.monotonic_ns),
            Body::Value(Value::Monotonic(time_ns)) => Some(*time_ns),
            _ => None,
        });
        let tsc = latest(|body| if let Body::Value(Value::Tsc(ticks)) = body { Some(*ticks) } else { None });
        let wall = latest(|body| if let Body::Value(Value::Wall(time_ns)) = body { Some(*time_ns) } else { None });
        prop_assert_eq!(continued.floor, TimeFloor { monotonic_ns: monotonic, tsc, wall_ns: wall });
    }
}
