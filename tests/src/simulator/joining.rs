//! Joining of a process to a machine that runs. The transfer is a fake that takes time and can be
//! cut: the state is a copy, sent as one parcel, and the pages of a first round are those that the
//! guest had filled when the round began.
//!
//! ```text
//!   start --> who acts alone? --> round --> capture at a pause --> state under way --> Loaded --> Joined
//!     ^                                                                                             |
//!     +--- later again, while nobody does ------------- any end of either process <-----------------+
//! ```

use lockstep_core::replica::cpu::{Carried, FromCpu, Payload};
use lockstep_core::replica::mutant::{self, Mutant};
use lockstep_core::replica::recorder::SavedAt;
use lockstep_core::replica::role::{Action, Halt, Input, Protection, Report};
use lockstep_logging_channel::{Generation, Message, Sequence, codec};

use super::agenda::Happening;
use super::beside::Marks;
use super::disk::Place;
use super::guest::Guest;
use super::marks::Mark;
use super::network::Parcel;
use super::node::{Life, Node};
use super::plan::{Side, US};
use super::world::World;

/// The process that claims for an operator who starts the machine afresh somewhere else.
const OPERATOR: u32 = u8::MAX as u32;

/// A saved machine, on its way.
#[derive(Debug)]
pub struct Image {
    /// Its guest.
    pub guest: Guest,
    /// Position in its log at which it was saved.
    pub saved_at: SavedAt,
    /// Outputs that its guest had made: for the judges.
    pub history: Vec<(Sequence, Vec<u8>)>,
    /// The process that has sent it.
    pub leader: u32,
    /// The generation in which that acts.
    pub generation: Generation,
    /// The place of the newcomer's disk, with a copy where that is its own.
    pub disk: Option<Place>,
    /// It was damaged on the way.
    pub damaged: bool,
}

/// Step of a joining that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Its first round is over: the state is to be saved.
    Capture,
    /// The state is saved, and is sent.
    Send,
    /// The one that sends hears that the other is gone.
    Gone,
    /// It has taken too long.
    Late,
}

/// A process that loads.
#[derive(Debug)]
pub struct Joining {
    number: u32,
    /// The side that sends.
    holder: Side,
    /// Pages that the first round has moved.
    pages: usize,
}

/// Joinings of a run.
#[derive(Debug, Default)]
pub struct Joinings {
    /// The one that is under way.
    pub now: Option<Joining>,
    count: u32,
    /// Processes so far, beside the first two.
    processes: u32,
}

impl World {
    /// A process is started on a side that has none: it looks for one that acts alone, and looks
    /// again where there is none.
    pub(super) fn start_newcomer(&mut self, side: Side) {
        if self.nodes[side.index()].is_up() || self.joinings.now.is_some() || self.power_off || self.afresh {
            return;
        }
        let holder = side.other();
        let node = &self.nodes[holder.index()];
        if !node.takes_a_newcomer() || node.life != Life::Running {
            if self.now_ns < self.plan.calm_at_ns + 4 * self.plan.timeout_ns {
                let again_ns = self.now_ns + self.plan.timeout_ns / 2;
                self.agenda.at(again_ns, Happening::Start(side));
            }
            return;
        }
        let pages = node.guest.page();
        self.joinings.count += 1;
        let number = self.joinings.count;
        self.joinings.now = Some(Joining {
            number,
            holder,
            pages,
        });
        self.trace
            .say(self.now_ns, || format!("{side:?} joins the {holder:?}"));
        let now_ns = self.now_ns;
        self.links.iter_mut().for_each(|link| link.begin(now_ns));
        let node = &mut self.nodes[holder.index()];
        (node.sends_state, node.connected) = (true, true);
        node.decoder = super::network::Decoder::default();
        node.inbox.part();
        let round_ns = self.rng.below(self.plan.timeout_ns);
        self.agenda
            .at(now_ns + round_ns, Happening::Joining(number, Due::Capture));
        let late_ns = now_ns + 6 * self.plan.timeout_ns;
        self.agenda.at(late_ns, Happening::Joining(number, Due::Late));
    }

    /// Something of a joining is due, if that is still under way.
    pub(super) fn joining(&mut self, number: u32, due: Due) {
        let Some(joining) = self.joinings.now.as_ref().filter(|now| now.number == number) else {
            return;
        };
        let holder = joining.holder;
        match due {
            Due::Capture => {
                self.nodes[holder.index()].cpu.borrow_mut().capture = true;
                self.poke_cpu(holder, 0);
            }
            Due::Send => self.send_state(holder),
            Due::Gone => {
                self.marks.reach(Mark::NewcomerDiedLoading);
                self.lose_newcomer(holder, "it is gone");
            }
            Due::Late => {
                self.marks.reach(Mark::LoadingTookTooLong);
                self.lose_newcomer(holder, "it did not load the state in time");
            }
        }
    }

    /// The virtual CPU of a side has had a turn: where its state was saved, it is sent, a while
    /// later.
    pub(super) fn after_turn(&mut self, side: Side) {
        let replayed = self.nodes[side.index()].replica.statistics().replayed;
        self.with_disk_marks(side, |marks| marks.replayed(replayed));
        let Some(joining) = &self.joinings.now else {
            self.nodes[side.index()].image = None;
            return;
        };
        let number = joining.number;
        if self.nodes[side.index()].image.is_some() {
            let after_ns = self.rng.below(2 * self.plan.timeout_ns);
            self.agenda
                .at(self.now_ns + after_ns, Happening::Joining(number, Due::Send));
        }
    }

    fn send_state(&mut self, holder: Side) {
        let node = &mut self.nodes[holder.index()];
        let Some(mut image) = node.image.take().filter(|_| node.sends_state) else {
            return;
        };
        if mutant::is(Mutant::LeavePageOut)
            && let Some(joining) = &self.joinings.now
        {
            image.guest = image.guest.without_pages(joining.pages);
        }
        image.damaged = std::mem::take(&mut self.links[holder.index()].corrupt);
        self.send_parcel(holder, Parcel::State(Box::new(image)));
    }

    /// A state has come to a side.
    pub(super) fn load(&mut self, side: Side, image: Image) {
        let under_way = self.joinings.now.as_ref();
        if under_way.is_none_or(|joining| joining.holder != side.other()) {
            return;
        }
        if image.damaged {
            self.marks.reach(Mark::StateDamaged);
            return self.newcomer_is_gone();
        }
        self.joinings.now = None;
        self.joinings.processes += 1;
        let process = 1 + self.joinings.processes;
        let seed = self.rng.next_u64();
        let mut image = image;
        if let Some(captured) = image.disk.take() {
            image.disk = Some(self.joined_place(side, captured, process));
        }
        let before = &self.nodes[side.index()];
        let node = Node::newcomer(before, &self.plan, process, image, self.now_ns, seed);
        self.nodes[side.index()] = node;
        self.switch.attach(side);
        self.marks.reach(Mark::Loaded);
        self.trace
            .say(self.now_ns, || format!("{side:?} is process {process}"));
        let mut bytes = Vec::new();
        if codec::encode_message(&Message::Loaded, &mut bytes).is_ok() {
            self.send(side, bytes);
        }
        self.poke(side);
        self.poke_cpu(side, 0);
    }

    /// The process that loads is gone; its kernel tells the other side.
    fn newcomer_is_gone(&mut self) {
        if let Some(joining) = &self.joinings.now {
            let at_ns = self.now_ns + 2 * self.plan.latency_ns;
            self.agenda
                .at(at_ns, Happening::Joining(joining.number, Due::Gone));
        }
    }

    fn lose_newcomer(&mut self, holder: Side, why: &str) {
        self.joinings.now = None;
        self.with_disk_marks(holder, Marks::alone);
        let node = &mut self.nodes[holder.index()];
        node.cpu.borrow_mut().capture = false;
        if std::mem::take(&mut node.sends_state) {
            node.connected = false;
            let why = why.to_owned();
            self.tell(holder, Input::NewcomerLost { why });
        }
    }

    /// A blow at a side: true where it hits a process that loads.
    pub(super) fn hits_a_loading_one(&mut self, side: Side) -> bool {
        let loads = |joining: &super::joining::Joining| joining.holder == side.other();
        let hit = self.joinings.now.as_ref().is_some_and(loads);
        if hit {
            self.newcomer_is_gone();
        }
        hit
    }

    /// A side's process is at its end: whoever loads from it is too.
    pub(super) fn ends_joining(&mut self, side: Side) {
        if self.nodes[side.index()].sends_state {
            self.marks.reach(Mark::HolderGoneWhileLoading);
            self.nodes[side.index()].sends_state = false;
        }
        self.joinings.now.take_if(|joining| joining.holder == side);
    }

    /// True where a process joins this side.
    pub(super) fn joins(&self, holder: Side) -> bool {
        let joining = self.joinings.now.as_ref();
        joining.is_some_and(|joining| joining.holder == holder)
    }

    /// Translates an input that a side receives while a state is under way from it.
    pub(super) fn while_sending(&mut self, side: Side, told: FromCpu) -> FromCpu {
        self.saved_for_nobody(side, &told);
        let node = &mut self.nodes[side.index()];
        if !node.sends_state {
            return told;
        }
        let why = match told {
            Input::Received(Message::Loaded) => {
                node.sends_state = false;
                self.with_disk_marks(side, Marks::joined);
                return Input::Joined;
            }
            Input::Received(_) | Input::ReceivedEntries(_) => "it speaks out of turn".to_owned(),
            Input::PeerClosed(closed) => format!("{closed:?}"),
            told => return told,
        };
        self.marks.reach(Mark::NewcomerDiedLoaded);
        self.lose_newcomer(side, &why);
        // An input that was put into the queue is taken at once.
        Input::Wake
    }

    /// Judges a step of a side that acted alone, or not, and stood so `before`; and marks what it
    /// did to a joining.
    pub(super) fn check_joining(
        &mut self,
        side: Side,
        (was_alone, before): (bool, Protection),
        actions: &[Action<Carried, Payload>],
    ) {
        let node = &mut self.nodes[side.index()];
        node.alone_in_step = was_alone || node.replica.acts_alone();
        let with_newcomer = was_alone && before != Protection::Alone;
        for action in actions {
            if let Action::Report(Report::Solo { .. } | Report::Live { .. } | Report::NewcomerLost { .. }) =
                action
            {
                self.with_disk_marks(side, Marks::alone);
            }
            match action {
                Action::Report(Report::Armed { .. }) => self.check_arming(side),
                Action::Report(Report::Won { generation }) => {
                    let (fifth, tenth) = (generation.0 >= 5, generation.0 >= 10);
                    fifth.then(|| self.marks.reach(Mark::FifthGeneration));
                    tenth.then(|| self.marks.reach(Mark::TenthGeneration));
                }
                Action::Report(Report::Live { .. }) if self.nodes[side.index()].process > 1 => {
                    self.marks.reach(Mark::ArmedTookOver);
                }
                Action::Halt(Halt::Ended { .. } | Halt::Stopped) if with_newcomer => {
                    self.marks.reach(Mark::EndedWithNewcomer);
                }
                Action::Disconnect => self.nodes[side.index()].sends_state = false,
                Action::Claim { generation } => self.check_claim(side, *generation),
                Action::Throttle(true) => self.nodes[side.index()].throttled_since_ns = self.now_ns,
                Action::Throttle(false) if was_alone => self.check_slice(side),
                _ => {}
            }
        }
    }

    fn check_arming(&mut self, side: Side) {
        let node = &mut self.nodes[side.index()];
        node.armed = true;
        let lag_ns = node.replica.statistics().lag_ns;
        if !node.standing.live {
            return self.marks.reach(Mark::WasArmed);
        }
        self.marks.reach(Mark::ArmedIt);
        if lag_ns > self.plan.timeout_ns / 2 {
            self.checker
                .fail(|| format!("armed, and the newcomer is {lag_ns} ns behind"));
        }
    }

    fn check_claim(&mut self, side: Side, generation: Generation) {
        if !self.nodes[side.index()].armed {
            self.checker
                .fail(|| format!("a newcomer claims {generation:?}, and was never armed"));
        }
        if !self.nodes[side.other().index()].armed {
            self.marks.reach(Mark::ArmedUnheard);
        }
    }

    /// A guest that waits for a newcomer waits for a slice.
    fn check_slice(&mut self, side: Side) {
        let node = &self.nodes[side.index()];
        let waited_ns = self.now_ns - node.throttled_since_ns;
        self.marks.reach(Mark::ThrottledInSlices);
        let ran = node.stopped_since_ns < node.throttled_since_ns;
        if ran && waited_ns > self.plan.timeout_ns / 4 {
            self.checker
                .fail(|| format!("the guest waited for a newcomer for {waited_ns} ns"));
        }
    }

    /// Looks at the store, as a side that acts alone does: an operator may have been there.
    pub(super) fn look(&mut self, side: Side) {
        self.agenda
            .at(self.now_ns + self.plan.timeout_ns, Happening::Look(side));
        let node = &self.nodes[side.index()];
        if node.life != Life::Running || !node.is_up() || !self.store.is_well(self.now_ns) {
            return;
        }
        let newest = self.store.claims.newest();
        if let Some((generation, _)) = newest.filter(|(newest, _)| *newest > node.replica.generation().0) {
            let generation = Generation(generation);
            self.tell(side, Input::LaterGeneration { generation });
        }
    }

    /// An operator starts the machine afresh on a third host, and claims the next generation.
    pub(super) fn start_afresh(&mut self) {
        let alone = |node: &&Node| node.is_up() && node.replica.acts_alone();
        let Some(holder) = self.nodes.iter().find(alone) else {
            return;
        };
        let generation = holder.replica.generation().0 + 1;
        let _ = self.store.claims.claim(generation, OPERATOR);
        self.afresh = true;
        self.marks.reach(Mark::StartedAfresh);
        self.trace.say(self.now_ns, || {
            format!("an operator claims generation {generation}")
        });
        // Anything sent there is another machine's: nobody asks this one any more.
        let at_ns = self.now_ns + 50 * US;
        self.agenda.at(at_ns, Happening::Wake(Side::Primary));
    }
}
