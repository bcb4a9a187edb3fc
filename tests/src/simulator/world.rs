//! The world of one run: two processes, what is between them, the store, the clients, and time.

use lockstep_core::replica::cpu::FromCpu;
use lockstep_core::replica::role::{Closed, Input};
use lockstep_logging_channel::Sequence;

use super::agenda::{Agenda, Happening};
use super::check::{Checker, Place};
use super::clients::{Client, Heard};
use super::guest::CLIENTS_MAX;
use super::inbox::Item;
use super::joining::Joinings;
use super::marks::{Mark, Marks};
use super::network::{Link, Parcel};
use super::node::{Life, Node, Turn};
use super::plan::{Fault, MS, Plan, Side, US};
use super::requests::{Reply, Request};
use super::rng::Rng;
use super::store::Store;
use super::switch::{Passed, Switch};
use super::trace::Trace;
use super::witness::Uplinks;

/// After calm everything is well within this and ten timeouts: a claim may be on its way to or from
/// a store that was slow for 3.3 s, and then the longest pause before it is asked again is 1 s.
const PROGRESS_NS: u64 = 6_000 * MS;

/// Bytes of a saved state.
const STATE_BYTES: usize = 64 << 10;

/// Bytes that a process reads from its channel at once.
const PIECE_BYTES_MAX: usize = 128 << 10;

/// One run.
pub struct World {
    /// What it stands for.
    pub plan: Plan,
    /// Random choices after the plan.
    pub rng: Rng,
    /// Virtual time.
    pub now_ns: u64,
    /// What happens next.
    pub agenda: Agenda,
    /// Both processes.
    pub nodes: [Node; 2],
    /// From each side to the other.
    pub links: [Link; 2],
    /// The store.
    pub store: Store,
    /// The clients.
    pub clients: Vec<Client>,
    /// The network outside.
    pub switch: Switch,
    /// Between it and each side.
    pub uplinks: Uplinks,
    /// The judges.
    pub checker: Checker,
    /// Paths taken.
    pub marks: Marks,
    /// What happened, in words.
    pub trace: Trace,
    /// Somebody has asked the guest to power off.
    pub power_off: bool,
    /// Outputs that were released too late and dropped.
    pub dropped: Vec<Place>,
    /// The plan has blows at points of the protocol.
    pub strikes: bool,
    /// Those that were struck, a bit each.
    pub spent: u128,
    /// Processes that join, and have joined.
    pub joinings: Joinings,
    /// An operator has started the machine afresh elsewhere.
    pub afresh: bool,
    /// The plan repeats what the channel has brought.
    repeats: bool,
}

impl World {
    /// The world of this seed, at its beginning.
    #[must_use]
    pub fn new(seed: u64, trace: Trace) -> Self {
        let plan = Plan::of(seed);
        let mut rng = Rng::new(!seed);
        let strikes = |planned: &super::plan::Planned| matches!(planned.fault, Fault::Strike { .. });
        let (strikes, repeats) = (plan.faults.iter().any(strikes), plan.repeats());
        let mut nodes = Side::BOTH.map(|side| Node::new(side, &plan, rng.next_u64()));
        super::disks::attach(&mut nodes, &plan, seed);
        let clients = (0..plan.clients.min(CLIENTS_MAX as u64))
            .map(|id| Client::new(id as u8, rng.below(plan.think_ns)))
            .collect();
        let mut world = Self {
            plan,
            rng,
            now_ns: 0,
            agenda: Agenda::default(),
            nodes,
            links: <[Link; 2]>::default(),
            store: Store::default(),
            clients,
            switch: Switch::new(),
            uplinks: Uplinks::default(),
            checker: Checker::default(),
            marks: Marks::default(),
            trace,
            power_off: false,
            dropped: Vec::new(),
            strikes,
            spent: 0,
            repeats,
            joinings: Joinings::default(),
            afresh: false,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.trace.say(0, || format!("{:#?}", self.plan));
        let port = self.switch.port(Side::Primary);
        self.switch.announce(port, 1, 0);
        self.begin_probing();
        self.links
            .iter_mut()
            .for_each(|link| link.bytes_per_ms = self.plan.bytes_per_ms);
        for (index, planned) in self.plan.faults.iter().enumerate() {
            self.agenda.at(planned.at_ns, Happening::Fault(index));
        }
        for (index, client) in self.clients.iter().enumerate() {
            self.agenda
                .at(client.due_ns().unwrap_or(0), Happening::Client(index));
        }
        for side in Side::BOTH {
            self.poke(side);
            self.poke_cpu(side, 0);
        }
        if self.plan.heals {
            for side in Side::BOTH {
                self.agenda.at(0, Happening::Look(side));
            }
        }
        if self.plan.alone {
            self.nodes[1].life = Life::Dead;
            return;
        }
        self.nodes[1].life = Life::Stopped;
        self.agenda
            .at(self.plan.skew_ns, Happening::Continue(Side::Backup));
    }

    /// Lets time pass until everything is decided, or a promise is broken.
    pub fn run(&mut self) {
        let deadline_ns = self.plan.calm_at_ns + PROGRESS_NS + 10 * self.plan.timeout_ns;
        let mut settled_at_ns = None;
        let mut due_until = Sequence(0);
        while let Some((at_ns, happening)) = self.agenda.next() {
            self.now_ns = at_ns;
            self.happen(happening);
            if self.checker.failure().is_some() {
                return;
            }
            if settled_at_ns.is_none() && self.is_settled() {
                settled_at_ns = Some(at_ns);
                due_until = self.newest_output();
            }
            // A moment for what is under way, and as long as it takes, within the bound, to say
            // what is due.
            let over = settled_at_ns.is_some_and(|settled_ns| at_ns > settled_ns + self.plan.timeout_ns);
            if over && (at_ns > deadline_ns || self.first_unsaid(due_until).is_none()) {
                break;
            }
            if at_ns > deadline_ns && settled_at_ns.is_none() {
                self.checker
                    .fail(|| "no progress, long after the last fault".to_owned());
                return;
            }
        }
        if settled_at_ns.is_none() {
            self.checker
                .fail(|| "nothing happens any more, and nothing is decided".to_owned());
            return;
        }
        self.judge(due_until);
    }

    /// Something happens.
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Act(side) => self.act(side),
            Happening::Cpu(side) => self.cpu(side),
            Happening::Wake(side) => self.wake(side),
            Happening::Arrive {
                to,
                number,
                parcel,
                late,
            } => self.arrive(to, number, parcel, late),
            Happening::StoreWork(claim, half) => self.store_work(claim, half),
            Happening::StoreAnswer(claim, outcome) => self.store_answer(claim, outcome),
            Happening::Probe(side) => self.probe(side),
            Happening::Witnessed(side, asked_at_ns) => self.witnessed(side, asked_at_ns),
            Happening::Client(index) => self.client(index),
            Happening::Frame(frame) => self.frame(&frame),
            Happening::Output {
                side,
                port,
                generation,
                payload,
            } => self.output(side, port, generation, &payload),
            Happening::Announced(port, generation) => self.switch.announce(port, generation, self.now_ns),
            Happening::Detached(port) => self.switch.detach(port),
            Happening::Start(side) => self.start_newcomer(side),
            Happening::Joining(number, due) => self.joining(number, due),
            Happening::Look(side) => self.look(side),
            Happening::Fault(index) => self.fault(index),
            Happening::Crash(side) => self.crash(side, false),
            Happening::Continue(side) => self.go_on(side),
            Happening::PowerOff => self.ask_to_power_off(),
        }
    }

    /// Puts a process's next turn on the agenda.
    pub fn poke(&mut self, side: Side) {
        let node = &mut self.nodes[side.index()];
        if node.life == Life::Running && node.is_busy(self.now_ns) && !node.act_due {
            node.act_due = true;
            let after_ns = 500 + self.rng.below(3_000);
            self.agenda.at(self.now_ns + after_ns, Happening::Act(side));
        }
    }

    /// Puts a virtual CPU's next turn on the agenda, unless an earlier one is there.
    pub fn poke_cpu(&mut self, side: Side, after_ns: u64) {
        let node = &mut self.nodes[side.index()];
        let at_ns = (self.now_ns + after_ns).max(node.cpu_busy_until_ns);
        if node.cpu_runs() && node.cpu_at_ns.is_none_or(|due_ns| at_ns < due_ns) {
            node.cpu_at_ns = Some(at_ns);
            self.agenda.at(at_ns, Happening::Cpu(side));
        }
    }

    /// Tells a process something from its own host.
    pub fn tell(&mut self, side: Side, told: FromCpu) {
        self.nodes[side.index()].inbox.put(told);
        self.poke(side);
    }

    fn cpu(&mut self, side: Side) {
        let now_ns = self.now_ns;
        let node = &mut self.nodes[side.index()];
        if node.cpu_at_ns != Some(now_ns) {
            return;
        }
        node.cpu_at_ns = None;
        if !node.cpu_runs() {
            return;
        }
        let turn = node.run(now_ns, &mut self.checker);
        self.after_turn(side);
        let node = &mut self.nodes[side.index()];
        self.marks.add(node.cpu.borrow().marks);
        let ended = node.guest_over;
        if let Turn::Again { after_ns } = turn {
            self.poke_cpu(side, after_ns);
        }
        if ended && side == Side::Primary {
            self.strike_after_end();
        }
        self.poke(side);
    }

    fn wake(&mut self, side: Side) {
        let node = &mut self.nodes[side.index()];
        let Some(wake_at_ns) = node.wake_at_ns else { return };
        if !node.is_up() {
            return;
        }
        if node.clock.read(self.now_ns) >= wake_at_ns {
            node.wake_at_ns = None;
            node.woken = true;
            self.poke(side);
        }
    }

    fn arrive(&mut self, to: Side, number: u64, parcel: Parcel, late: bool) {
        let link = &self.links[to.other().index()];
        let lost = number <= link.lost_before && !matches!(parcel, Parcel::Closed);
        if lost || number <= link.earlier {
            return;
        }
        let parcel = match parcel {
            Parcel::State(image) => return self.load(to, *image),
            parcel => parcel,
        };
        let node = &mut self.nodes[to.index()];
        if node.life == Life::Dead || !(node.standing.connected || node.sends_state) {
            return;
        }
        if late {
            self.marks.reach(Mark::Delayed);
        }
        node.inbox.put_from_peer(match parcel {
            Parcel::Bytes(bytes) => Item::Bytes(bytes),
            Parcel::Again(bytes) => Item::Again(bytes),
            Parcel::Closed | Parcel::State(_) => Item::Closed,
        });
        self.poke(to);
    }

    /// Sends bytes to the peer, at times in two pieces, and in more where they are many.
    pub fn send(&mut self, from: Side, mut bytes: Vec<u8>) {
        while bytes.len() > PIECE_BYTES_MAX {
            let rest = bytes.split_off(PIECE_BYTES_MAX);
            self.send_parcel(from, Parcel::Bytes(bytes));
            bytes = rest;
        }
        if bytes.len() > 1 && self.rng.once_in(16) {
            let cut = self.rng.within(1, bytes.len() as u64 - 1) as usize;
            let rest = bytes.split_off(cut);
            self.send_parcel(from, Parcel::Bytes(bytes));
            bytes = rest;
        }
        self.send_parcel(from, Parcel::Bytes(bytes));
    }

    /// Sends a parcel to the peer.
    pub fn send_parcel(&mut self, from: Side, mut parcel: Parcel) {
        let latency_ns = self.plan.latency_ns + self.rng.below(self.plan.latency_ns);
        let link = &mut self.links[from.index()];
        if let Parcel::Bytes(bytes) = &mut parcel {
            if self.repeats {
                link.remember(bytes);
            }
            if !bytes.is_empty() && std::mem::take(&mut link.corrupt) {
                let bit = self.rng.below(bytes.len() as u64 * 8);
                bytes[bit as usize / 8] ^= 1 << (bit % 8);
            }
        }
        link.sent += 1;
        let number = link.sent;
        let count = match &parcel {
            Parcel::Bytes(bytes) | Parcel::Again(bytes) => bytes.len(),
            Parcel::State(_) => STATE_BYTES,
            Parcel::Closed => 0,
        };
        let at_ns = link.arrival_ns(self.now_ns, latency_ns, count);
        let late = link.delay.0 > self.plan.timeout_ns / 4 && self.now_ns < link.delay.1;
        self.agenda.at(
            at_ns,
            Happening::Arrive {
                to: from.other(),
                number,
                parcel,
                late,
            },
        );
    }

    fn client(&mut self, index: usize) {
        let patience_ns = self.plan.timeout_ns / 2;
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        if let Some((request, again)) = client.ask(self.now_ns, patience_ns) {
            if again {
                self.marks.reach(Mark::Retransmitted);
            }
            self.agenda
                .at(self.now_ns + patience_ns, Happening::Client(index));
            self.transmit(request);
        }
    }

    fn transmit(&mut self, request: Request) {
        if self.plan.loss != u64::MAX && self.rng.once_in(self.plan.loss) {
            return;
        }
        let frame = request.to_frame(self.plan.payload_bytes as usize);
        let after_ns = 50 * US + self.rng.below(100 * US);
        self.agenda.at(self.now_ns + after_ns, Happening::Frame(frame));
    }

    /// A frame of a client reaches the switch, and by it whoever is taken for the guest.
    fn frame(&mut self, frame: &[u8]) {
        let frames = self.switch.request(frame, self.now_ns);
        for (side, frame) in Side::BOTH.into_iter().zip(frames) {
            let node = &mut self.nodes[side.index()];
            let cut = self.uplinks.is_cut(side, self.now_ns);
            let Some(frame) = frame.filter(|_| node.is_up() && node.standing.receives && !cut) else {
                continue;
            };
            if !node.cpu.borrow_mut().frame(frame) {
                self.marks.reach(Mark::FramesLost);
            }
            self.poke_cpu(side, 0);
        }
    }

    /// An output of a side reaches the switch, and by it the clients.
    fn output(&mut self, side: Side, port: u32, generation: u32, payload: &[u8]) {
        let over = self.switch.is_over(generation);
        match self.switch.output(port, payload, self.now_ns) {
            Passed::ToClients(bytes) => {
                self.checker.heard(side, generation, over);
                self.reply(&bytes);
            }
            Passed::Refused if over => self.marks.reach(Mark::Overtaken),
            Passed::Refused => (),
        }
    }

    fn reply(&mut self, bytes: &[u8]) {
        let Some(reply) = Reply::of_bytes(bytes) else {
            return;
        };
        let calm = self.now_ns >= self.plan.calm_at_ns;
        let think_ns = 1 + self.rng.below(self.plan.think_ns);
        let Some(client) = self.clients.get_mut(usize::from(reply.client)) else {
            return;
        };
        let next_ns = (!calm).then_some(self.now_ns + think_ns);
        match client.hear(reply, next_ns) {
            Heard::Wrong(what) => self.checker.fail(|| what),
            Heard::Repeated => (),
            Heard::Answer => {
                self.trace
                    .say(self.now_ns, || format!("client {}: {reply:?}", reply.client));
                if let Some(next_ns) = next_ns {
                    self.agenda
                        .at(next_ns, Happening::Client(usize::from(reply.client)));
                }
            }
        }
    }

    fn ask_to_power_off(&mut self) {
        self.power_off = true;
        if self.nodes.iter().any(Node::has_ended) || self.nodes.iter().all(|node| !node.is_up()) {
            return;
        }
        self.transmit(Request {
            client: 0,
            number: 0,
            power_off: true,
        });
        self.agenda
            .at(self.now_ns + self.plan.timeout_ns / 4, Happening::PowerOff);
    }

    fn go_on(&mut self, side: Side) {
        let timeout_ns = self.plan.timeout_ns;
        let node = &mut self.nodes[side.index()];
        if node.life != Life::Stopped {
            return;
        }
        node.life = Life::Running;
        let mail = node.inbox.has_mail();
        let long = self.now_ns - node.stopped_since_ns > timeout_ns;
        if side == Side::Primary && mail && long {
            self.marks.reach(Mark::WokeWithMail);
        }
        let first = side == Side::Backup && self.nodes[side.index()].actions_done == 0;
        if self.has_won(side.other()) && !self.plan.heals {
            self.marks.reach(match side {
                Side::Primary => Mark::PrimaryWokeTooLate,
                Side::Backup if first => Mark::JoinedLate,
                Side::Backup => Mark::BackupWokeTooLate,
            });
        }
        let node = &mut self.nodes[side.index()];
        let (claims_then, half_sent) = (std::mem::take(&mut node.claims_then), node.half_sent.take());
        for (claim, half) in claims_then {
            self.agenda.at(self.now_ns, Happening::StoreWork(claim, half));
        }
        if let Some(rest) = half_sent.filter(|_| self.nodes[side.index()].connected) {
            self.send_parcel(side, Parcel::Bytes(rest));
        }
        self.trace.say(self.now_ns, || format!("{side:?} goes on"));
        self.poke(side);
        self.poke_cpu(side, 0);
    }

    /// The connection breaks at this side.
    pub fn break_connection(&mut self, side: Side) {
        if self.nodes[side.index()].standing.connected {
            let why = "its kernel gave it up".to_owned();
            self.tell(side, Input::PeerClosed(Closed::Here { why }));
        }
    }
}
