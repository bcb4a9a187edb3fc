//! Two replicas, a store and a connection, in any order of events: what must never happen, does
//! not.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// An event that may happen next. Every side is told the time whenever it is not stopped.
#[derive(Clone, Debug)]
enum Happening {
    Pass {
        ms: u64,
    },
    Output,
    Replay,
    /// The oldest thing under way arrives, at the primary or the backup.
    Arrive {
        primary: bool,
    },
    /// The store answers the side that asked, or fails after or before having done the work.
    Answer {
        primary: bool,
        fails: bool,
        after: bool,
    },
    /// Nothing more arrives in this direction.
    Cut {
        primary: bool,
    },
    /// A side's kernel gives the connection up.
    Break {
        primary: bool,
    },
    Stop {
        primary: bool,
    },
    Continue {
        primary: bool,
    },
    Kill {
        primary: bool,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    let side = any::<bool>;
    prop_oneof![
        20 => (1..30_u64).prop_map(|ms| Happening::Pass { ms }),
        10 => Just(Happening::Output),
        10 => Just(Happening::Replay),
        40 => side().prop_map(|primary| Happening::Arrive { primary }),
        10 => (side(), prop::bool::weighted(0.3), side())
            .prop_map(|(primary, fails, after)| Happening::Answer { primary, fails, after }),
        1 => side().prop_map(|primary| Happening::Cut { primary }),
        1 => side().prop_map(|primary| Happening::Break { primary }),
        1 => side().prop_map(|primary| Happening::Stop { primary }),
        3 => side().prop_map(|primary| Happening::Continue { primary }),
        1 => side().prop_map(|primary| Happening::Kill { primary }),
    ]
}

/// One side with what surrounds it.
struct Side {
    subject: Subject,
    arriving: VecDeque<Input<(), u64>>,
    cut: bool,
    stopped: bool,
    dead: bool,
    asks: bool,
    /// Entries handed over and not replayed; on a live side nothing.
    unreplayed: VecDeque<u64>,
    received: u64,
    live_after: Option<u64>,
    released: Vec<u64>,
}

impl Side {
    fn new(subject: Subject) -> Self {
        Self {
            subject,
            arriving: VecDeque::new(),
            cut: false,
            stopped: false,
            dead: false,
            asks: false,
            unreplayed: VecDeque::new(),
            received: 0,
            live_after: None,
            released: Vec::new(),
        }
    }

    fn runs(&self) -> bool {
        !self.stopped && !self.dead
    }
}

struct Pair {
    now_ms: u64,
    /// The primary, then the backup.
    sides: [Side; 2],
    winner: Option<usize>,
}

impl Pair {
    fn new() -> Self {
        let sides = [Subject::primary().0, Subject::backup().0].map(Side::new);
        Self {
            now_ms: 0,
            sides,
            winner: None,
        }
    }

    fn step(&mut self, side: usize, input: Input<(), u64>) {
        if !self.sides[side].runs() {
            return;
        }
        for action in self.sides[side].subject.step(self.now_ms, input) {
            self.carry_out(side, action);
        }
        let (one, other) = (&self.sides[0].subject.replica, &self.sides[1].subject.replica);
        assert!(!(one.acts_alone() && other.acts_alone()), "two act alone");
    }

    fn carry_out(&mut self, side: usize, action: Action<(), u64>) {
        let [own, peer] = match side {
            0 => self.sides.each_mut(),
            _ => {
                let [peer, own] = self.sides.each_mut();
                [own, peer]
            }
        };
        match action {
            Action::Send(message) if !peer.cut => peer.arriving.push_back(Input::Received(message)),
            Action::SendEntries(batch) if !peer.cut => peer.arriving.push_back(Input::ReceivedEntries(batch)),
            Action::Disconnect if !peer.cut => {
                peer.arriving.push_back(Input::PeerClosed(Closed::ByPeer));
                own.cut = true;
                own.arriving.clear();
            }
            Action::Deliver(batch) => {
                own.received = batch.last.0;
                own.unreplayed.push_back(batch.last.0);
            }
            Action::GoLive { after, .. } => own.live_after = Some(after.0),
            Action::Claim { .. } => own.asks = true,
            Action::Halt(_) => own.dead = true,
            Action::Release { output, .. } => self.check_release(side, output.sequence.0),
            _ => (),
        }
        self.go_live(side);
    }

    /// The primary says only what the backup has; nobody speaks after the other has begun to act
    /// alone; and each says everything in order.
    fn check_release(&mut self, side: usize, sequence: u64) {
        let [primary, backup] = &mut self.sides;
        if side == 0 && self.winner != Some(0) {
            assert!(
                sequence <= backup.received,
                "{sequence} left, of {} received",
                backup.received
            );
        }
        assert!(
            self.winner.is_none_or(|winner| winner == side),
            "the loser speaks"
        );
        let own = if side == 0 { primary } else { backup };
        assert!(
            own.released.last() < Some(&sequence),
            "{sequence} after {:?}",
            own.released
        );
        own.released.push(sequence);
    }

    fn go_live(&mut self, side: usize) {
        let own = &self.sides[side];
        let done = own.unreplayed.is_empty();
        if let (Some(after), true, true) = (own.live_after, done, own.runs()) {
            self.sides[side].live_after = None;
            self.sides[side].subject.next = Sequence(after + 1);
            self.step(
                side,
                Input::LiveAt {
                    sequence: Sequence(after),
                    exits: after,
                },
            );
            self.check_nothing_lost(after);
        }
    }

    /// Asserts that what the primary has not said of the history that survives, the backup has.
    fn check_nothing_lost(&self, after: u64) {
        let said = |sequence: &u64| self.sides.iter().any(|side| side.released.contains(sequence));
        let lost: Vec<_> = (1..=after).filter(|sequence| !said(sequence)).collect();
        assert!(lost.is_empty(), "never said: {lost:?}");
    }

    fn happen(&mut self, happening: &Happening) {
        let index = |primary: bool| usize::from(!primary);
        match *happening {
            Happening::Pass { ms } => {
                self.now_ms += ms;
                self.step(0, Input::Wake);
                self.step(1, Input::Wake);
            }
            Happening::Output => self.output(),
            Happening::Replay => self.replay(),
            Happening::Arrive { primary } => self.arrive(index(primary)),
            Happening::Answer {
                primary,
                fails,
                after,
            } => self.answer(index(primary), fails, after),
            Happening::Cut { primary } => self.sides[index(primary)].cut = true,
            Happening::Break { primary } => self.step(index(primary), broken()),
            Happening::Stop { primary } => self.sides[index(primary)].stopped = true,
            Happening::Continue { primary } => self.sides[index(primary)].stopped = false,
            Happening::Kill { primary } => {
                self.sides[index(primary)].dead = true;
                let peer = &mut self.sides[index(!primary)];
                peer.arriving
                    .extend((!peer.cut).then_some(Input::PeerClosed(Closed::ByPeer)));
            }
        }
    }

    fn output(&mut self) {
        let live = usize::from(self.winner == Some(1) && self.sides[1].live_after.is_none());
        if !self.sides[live].runs() || (live == 1 && self.sides[1].subject.next <= Sequence(1)) {
            return;
        }
        let batch = self.sides[live].subject.batch(100);
        let outputs = vec![output(batch.last, 100)];
        self.step(live, Input::Appended { batch, outputs });
    }

    fn replay(&mut self) {
        let backup = &mut self.sides[1];
        if !backup.runs() {
            return;
        }
        if let Some(sequence) = backup.unreplayed.pop_front() {
            self.step(1, replayed(Sequence(sequence)));
            self.go_live(1);
        }
    }

    fn arrive(&mut self, side: usize) {
        if self.sides[side].runs()
            && let Some(input) = self.sides[side].arriving.pop_front()
        {
            self.step(side, input);
        }
    }

    fn answer(&mut self, side: usize, fails: bool, after: bool) {
        if !self.sides[side].asks || !self.sides[side].runs() {
            return;
        }
        self.sides[side].asks = false;
        if !fails || after {
            self.winner.get_or_insert(side);
        }
        let outcome = match self.winner {
            _ if fails => Outcome::Unreachable {
                why: "no answer".to_owned(),
            },
            Some(winner) if winner == side => Outcome::Won,
            _ => Outcome::Lost,
        };
        self.step(
            side,
            Input::Claimed {
                generation: Generation(2),
                outcome,
            },
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_pair_is_never_two(happenings in prop::collection::vec(happening(), 1..300)) {
        let mut pair = Pair::new();
        for happening in &happenings {
            pair.happen(happening);
        }
    }
}
