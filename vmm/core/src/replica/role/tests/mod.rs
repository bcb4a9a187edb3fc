//! A replica and what a test says to it. The timeout is 200 ms: heartbeats every 25, a lease of
//! 100, the primary claims after 175 of silence.

mod backup;
mod channel;
mod claiming;
mod diverging;
mod joining;
mod kept;
mod newcomer;
mod pair;
mod primary;
mod slow_newcomer;
mod switchover;
mod witness;

use lockstep_logging_channel::message::{Acknowledge, Goodbye, Heartbeat};
use lockstep_logging_channel::{EndReason, Generation, Message, Sequence};

use super::*;

const MS: u64 = 1_000_000;

const NO_ACTION: [Action<(), u64>; 0] = [];
const NO_CLAIM: [u32; 0] = [];
const NOTHING: [(u64, u64); 0] = [];

type Actions = Vec<Action<(), u64>>;

/// A replica with its clock, in milliseconds.
struct Subject {
    replica: Replica<(), u64>,
    next: Sequence,
}

impl Subject {
    fn primary() -> (Self, Actions) {
        Self::start(Replica::primary(Config::default(), 0).unwrap())
    }

    fn backup() -> (Self, Actions) {
        Self::start(Replica::backup(Config::default(), 0).unwrap())
    }

    fn start(replica: Replica<(), u64>) -> (Self, Actions) {
        let mut subject = Self {
            replica,
            next: Sequence(1),
        };
        let actions = subject.step(0, Input::Wake);
        (subject, actions)
    }

    fn step(&mut self, now_ms: u64, input: Input<(), u64>) -> Actions {
        let mut actions = Vec::new();
        self.replica.step(now_ms * MS, input, &mut actions);
        actions
    }

    /// Wakes whenever asked to, until a time. Gives everything done.
    fn wake_until(&mut self, mut now_ms: u64, until_ms: u64) -> Actions {
        let mut all = Vec::new();
        while now_ms <= until_ms {
            all.extend(self.step(now_ms, Input::Wake));
            now_ms += 25;
        }
        all
    }

    /// Appends an entry that is an output, whose payload is its number.
    fn output(&mut self, now_ms: u64) -> Actions {
        self.output_of(now_ms, 100)
    }

    /// The same, of so many bytes.
    fn output_of(&mut self, now_ms: u64, bytes: usize) -> Actions {
        let batch = self.batch(100);
        let outputs = vec![output(batch.last, bytes)];
        self.step(now_ms, Input::Appended { batch, outputs })
    }

    /// Appends an entry of so many bytes that is not an output.
    fn append(&mut self, now_ms: u64, bytes: u64) -> Actions {
        let batch = self.batch(bytes);
        let outputs = Vec::new();
        self.step(now_ms, Input::Appended { batch, outputs })
    }

    fn batch(&mut self, bytes: u64) -> Batch<()> {
        let batch = batch(self.next.0, bytes);
        self.next = self.next.next();
        batch
    }

    fn entries(&mut self, now_ms: u64) -> Actions {
        let batch = self.batch(100);
        self.step(now_ms, Input::ReceivedEntries(batch))
    }

    fn heartbeat(&mut self, now_ms: u64, sent_ms: u64, echo_ms: u64, released: u64) -> Actions {
        let released = Sequence(released);
        let heartbeat = Heartbeat {
            sent_at_ns: sent_ms * MS,
            echo_ns: echo_ms * MS,
            exits: 0,
            released,
        };
        self.step(now_ms, Input::Received(Message::Heartbeat(heartbeat)))
    }

    fn acknowledge(&mut self, now_ms: u64, received: u64, replayed: u64) -> Actions {
        self.step(now_ms, acknowledge(received, replayed))
    }

    fn replay(&mut self, now_ms: u64, sequence: u64) -> Actions {
        self.step(now_ms, replayed(Sequence(sequence)))
    }

    /// The entry that is the end of the log.
    fn end(&mut self) -> Batch<()> {
        Batch {
            ends: true,
            ..self.batch(100)
        }
    }

    /// Appends an entry that is the end of the log.
    fn append_end(&mut self, now_ms: u64) -> Actions {
        let (batch, outputs) = (self.end(), Vec::new());
        self.step(now_ms, Input::Appended { batch, outputs })
    }

    fn end_entry(&mut self, now_ms: u64) -> Actions {
        let batch = self.end();
        self.step(now_ms, Input::ReceivedEntries(batch))
    }

    fn saved_at(&mut self, now_ms: u64, sequence: u64, exits: u64) -> Actions {
        let sequence = Sequence(sequence);
        self.step(now_ms, Input::SavedAt { sequence, exits })
    }

    fn live_at(&mut self, now_ms: u64, sequence: u64, exits: u64) -> Actions {
        let sequence = Sequence(sequence);
        self.step(now_ms, Input::LiveAt { sequence, exits })
    }

    fn claimed(&mut self, now_ms: u64, outcome: Outcome) -> Actions {
        self.step(
            now_ms,
            Input::Claimed {
                generation: Generation(2),
                outcome,
            },
        )
    }
}

fn batch(sequence: u64, bytes: u64) -> Batch<()> {
    let sequence = Sequence(sequence);
    Batch {
        first: sequence,
        last: sequence,
        exits: sequence.0,
        ends: false,
        bytes,
        output_bytes: 0,
        entries: (),
    }
}

/// An output whose payload is the number of its entry.
fn output(sequence: Sequence, bytes: usize) -> Output<u64> {
    Output {
        sequence,
        bytes,
        payload: sequence.0,
    }
}

/// The replay of an entry that is an output.
fn replayed(sequence: Sequence) -> Input<(), u64> {
    Input::Replayed {
        sequence,
        exits: sequence.0,
        outputs: vec![output(sequence, 100)],
    }
}

fn acknowledge(received: u64, replayed: u64) -> Input<(), u64> {
    let (received, replayed) = (Sequence(received), Sequence(replayed));
    Input::Received(Message::Acknowledge(Acknowledge { received, replayed }))
}

/// Actions of a side that has replayed so far, for an entry that it receives.
fn handed_over(received: u64, replayed: u64) -> [Action<(), u64>; 2] {
    let acknowledge = Acknowledge {
        received: Sequence(received),
        replayed: Sequence(replayed),
    };
    [
        Action::Deliver(batch(received, 100)),
        Action::Send(Message::Acknowledge(acknowledge)),
    ]
}

/// The heartbeat that a replaying side sends at a time, which echoes the primary's.
fn echo(now_ms: u64, echo_ms: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        sent_at_ns: now_ms * MS,
        echo_ns: echo_ms * MS,
        ..Heartbeat::default()
    })
}

/// The echo of a heartbeat that nobody has sent.
fn early_echo() -> Input<(), u64> {
    Input::Received(Message::Heartbeat(Heartbeat {
        echo_ns: u64::MAX,
        ..Heartbeat::default()
    }))
}

fn later(generation: u32) -> Input<(), u64> {
    let generation = Generation(generation);
    Input::LaterGeneration { generation }
}

fn powered_off() -> EndReason {
    EndReason::PoweredOff(7)
}

fn guest_ended() -> Input<(), u64> {
    let reason = powered_off();
    Input::GuestEnded { reason }
}

/// The last action of a side whose guest has ended.
fn halt_ended() -> Action<(), u64> {
    let reason = powered_off();
    Action::Halt(Halt::Ended { reason })
}

fn goodbye() -> Input<(), u64> {
    Input::Received(Message::Goodbye(Goodbye {
        reason: "a reason".to_owned(),
    }))
}

fn broken() -> Input<(), u64> {
    Input::PeerClosed(Closed::Here {
        why: "a checksum".to_owned(),
    })
}

/// The outputs released, with the time until which they may leave, in milliseconds.
fn released(actions: &Actions) -> Vec<(u64, u64)> {
    let release = |action: &Action<(), u64>| match action {
        Action::Release { output, until_ns, .. } => Some((output.payload, until_ns / MS)),
        _ => None,
    };
    actions.iter().filter_map(release).collect()
}

const FOR_EVER: u64 = u64::MAX / MS;

fn claims(actions: &Actions) -> Vec<u32> {
    let claim = |action: &Action<(), u64>| match action {
        Action::Claim { generation } => Some(generation.0),
        _ => None,
    };
    actions.iter().filter_map(claim).collect()
}

fn message(action: &Action<(), u64>) -> Option<&Message> {
    if let Action::Send(message) = action {
        Some(message)
    } else {
        None
    }
}

fn messages(actions: &Actions) -> Vec<&Message> {
    actions.iter().filter_map(message).collect()
}

fn report(action: &Action<(), u64>) -> Option<&Report> {
    if let Action::Report(report) = action {
        Some(report)
    } else {
        None
    }
}

fn reports(actions: &Actions) -> Vec<&Report> {
    actions.iter().filter_map(report).collect()
}

fn given_up(report: &Report) -> Option<&Cause> {
    if let Report::NewcomerLost { cause } = report {
        Some(cause)
    } else {
        None
    }
}

/// Why a newcomer was given up.
fn lost(actions: &Actions) -> Vec<&Cause> {
    reports(actions).into_iter().filter_map(given_up).collect()
}

fn cause(action: &Action<(), u64>) -> Option<&Cause> {
    if let Action::Report(Report::Noticed { cause }) = action {
        Some(cause)
    } else {
        None
    }
}

fn causes(actions: &Actions) -> Vec<&Cause> {
    actions.iter().filter_map(cause).collect()
}

#[test]
fn settings_that_cannot_work_are_named() {
    let with = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        Replica::<(), ()>::primary(config, 0)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert!(
        with(|config| config.timeout_ns = 1).contains("a timeout of 1 ms: give one from 10 to 3600000 ms")
    );
    assert!(with(|config| config.timeout_ns = u64::MAX).contains("a timeout of"));
    assert!(with(|config| config.window_bytes_max = 1000).contains("a window of 1000 bytes"));
    assert!(with(|config| config.window_bytes_max = u64::MAX).contains("a window of"));
    assert!(with(|config| config.lag_ns_max = 5).contains("a lag limit of 1 ms: give at least 100 ms"));
    assert!(with(|config| config.generation = Generation(u32::MAX)).contains("generation 4294967295"));
}
