//! Behaviour of a process: it reads, steps its replica, and carries out one action after the other.
//! Between any two of these it may be stopped or die.

use lockstep_core::replica::cpu::{self, Carried, FromCpu, Payload};
use lockstep_core::replica::driving::{Doing, telling};
use lockstep_core::replica::role::{Action, Closed, Halt, Input, Output, Report};
use lockstep_logging_channel::{Generation, Message, OutputKind, Sequence, codec};

use super::agenda::Happening;
use super::check::Place;
use super::inbox::{Item, Source};
use super::marks::Mark;
use super::network::Parcel;
use super::node::Claim;
use super::node::Life;
use super::plan::{Fault, Side, US};
use super::points::{Moment, Step};
use super::store::Half;
use super::witness::asked_at_ns;
use super::world::World;

impl World {
    /// A process does the next thing it has to: it takes a step, or carries out an action, or
    /// mostly the one and then the other. What nobody outside can see does not count.
    pub(super) fn act(&mut self, side: Side) {
        self.nodes[side.index()].act_due = false;
        let mut stepped = false;
        while self.nodes[side.index()].life == Life::Running {
            let node = &mut self.nodes[side.index()];
            if let Some(step) = node.carrying.next().as_ref().map(Step::of) {
                let nth = node.steps[step as usize] + 1;
                if let Some(blow) = self.blow_at(side, step, nth, Moment::Before) {
                    self.strike(blow);
                    continue;
                }
                let node = &mut self.nodes[side.index()];
                node.steps[step as usize] = nth;
                node.actions_done += 1;
                let done = node.actions_done;
                match node.carrying.begin() {
                    Some(Doing::Act(action)) => self.carry_out(side, action),
                    Some(Doing::LetOut) => self.let_out(side),
                    None => (),
                }
                if let Some(blow) = self.blow_at(side, step, nth, Moment::After) {
                    self.strike(blow);
                }
                self.strike_between_actions(side, done);
                let seen = !matches!(step, Step::WakeAt | Step::Report | Step::Advance | Step::Release);
                if seen {
                    break;
                }
            } else if node.standing.closing {
                node.standing.closed();
                self.close(side);
            } else if stepped {
                break;
            } else if let Some(told) = self.read(side) {
                self.step(side, told);
                stepped = true;
                if self.rng.once_in(4) {
                    break;
                }
            } else {
                break;
            }
        }
        self.poke(side);
    }

    /// The next thing that a process is told.
    fn read(&mut self, side: Side) -> Option<FromCpu> {
        let node = &mut self.nodes[side.index()];
        while node.told.is_empty() {
            if std::mem::take(&mut node.woken) {
                let Ok(()) = telling::woken(node);
                continue;
            }
            let crowded = self.now_ns < node.crowded_until_ns;
            let (source, item) = node.inbox.take(crowded)?;
            match item {
                Item::Told(told) if source == Source::Cpu => {
                    let Ok(()) = telling::said(node, told);
                }
                Item::Told(told) if source == Source::Ended => {
                    let Ok(()) = telling::ended(node, told);
                }
                Item::Told(told) => node.told.push_back(told),
                Item::Bytes(bytes) => node.told = node.decoder.take(&bytes),
                Item::Again(bytes) => {
                    node.told = node.decoder.take(&bytes);
                    let ignored = |told: &FromCpu| matches!(told, Input::Received(_));
                    if !node.told.is_empty() && node.told.iter().all(ignored) {
                        self.marks.reach(Mark::RepeatIgnored);
                    }
                }
                Item::Stray => return None,
                Item::Closed => node.told.push_back(Input::PeerClosed(Closed::ByPeer)),
            }
        }
        let told = node.told.pop_front()?;
        Some(self.while_sending(side, told))
    }

    fn step(&mut self, side: Side, told: FromCpu) {
        self.note_input(side, &told);
        let asked_at_ns = asked_at_ns(&told);
        let node = &mut self.nodes[side.index()];
        let clock_ns = node.clock.read(self.now_ns);
        node.standing.told(&told);
        let mut actions = Vec::new();
        let renews = matches!(told, Input::Received(Message::Heartbeat(_)));
        let was_alone = node.replica.acts_alone();
        let before = node.replica.statistics().protection;
        node.replica.step(clock_ns, told, &mut actions);
        if renews
            && actions
                .iter()
                .any(|action| matches!(action, Action::Release { .. }))
        {
            self.marks.reach(Mark::HeldByLease);
        }
        self.check_wait(side, asked_at_ns, &actions);
        self.check_joining(side, (was_alone, before), &actions);
        let node = &mut self.nodes[side.index()];
        node.carrying.take(&mut actions);
        let round_trip_ns = node.replica.statistics().round_trip_ns;
        if self.plan.only_narrow && round_trip_ns > self.plan.timeout_ns * 3 / 8 {
            self.checker
                .fail(|| format!("the lease ends on a channel that is only narrow: {round_trip_ns} ns"));
        }
        self.check_kept(side);
        let node = &self.nodes[side.index()];
        if node.replica.acts_alone() {
            let generation = node.replica.generation().0;
            let winner = self.store.claims.winner(generation);
            let won = self.has_won(side) || (self.plan.alone && generation == 1);
            self.checker.acts_alone(side, won, winner);
        }
        let alone = self
            .nodes
            .each_ref()
            .map(|node| node.is_up() && node.replica.acts_alone());
        if alone == [true, true] {
            self.checker.fail(|| "both sides act alone".to_owned());
        }
    }

    fn note_input(&mut self, side: Side, told: &FromCpu) {
        if !self.trace.is_kept() {
            return;
        }
        let text = match told {
            Input::Wake | Input::Ran { .. } | Input::Replayed { .. } | Input::Witnessed { .. } => return,
            Input::Appended { batch, .. } => format!("logs entries to {}", batch.last.0),
            Input::ReceivedEntries(batch) => format!("receives entries to {}", batch.last.0),
            Input::Received(message) => format!("hears {message:?}"),
            other => format!("{other:?}"),
        };
        self.trace.say(self.now_ns, || format!("{side:?} {text}"));
    }

    fn carry_out(&mut self, side: Side, action: Action<Carried, Payload>) {
        let now_ns = self.now_ns;
        let node = &mut self.nodes[side.index()];
        node.standing.acts(&action);
        if !node.standing.connected && !node.sends_state {
            node.inbox.part();
        }
        match action {
            Action::Send(message) => {
                let step = match message {
                    Message::Handover(_) => Step::Handover,
                    _ => Step::Send,
                };
                let mut bytes = Vec::new();
                if let Err(why) = codec::encode_message(&message, &mut bytes) {
                    self.checker
                        .fail(|| format!("a message that cannot be sent: {why}"));
                }
                self.send_if_connected(side, step, bytes);
            }
            Action::SendEntries(batch) => {
                if let Carried::Encoded(entries) = batch.entries {
                    self.send_if_connected(side, Step::SendEntries, entries);
                }
            }
            // Closed, if it is, behind the actions.
            Action::Disconnect => (),
            Action::Deliver(batch) => {
                node.stored = batch.last;
                if let Carried::Decoded(entries) = batch.entries {
                    self.hand(side, cpu::Item::Entries(entries));
                }
            }
            Action::Advance { exits } => self.hand(side, cpu::Item::Advance(exits)),
            Action::Release { output, until_ns, .. } => node.carrying.leaving.push(output, until_ns),
            Action::Claim { generation } => self.claim(side, generation),
            Action::Announce { generation } => {
                self.trace
                    .say(now_ns, || format!("{side:?} announces {generation:?}"));
                // It is announced again when clients are reached again.
                let mended_ns = self.uplinks.cut_until_ns[side.index()];
                let at_ns = self.reaches_switch_ns(side).max(mended_ns);
                let port = self.switch.port(side);
                self.agenda.at(at_ns, Happening::Announced(port, generation.0));
            }
            Action::GoLive { generation, .. } => self.go_live(side, generation),
            Action::Throttle(throttled) => self.throttle(side, throttled),
            Action::Stand(stands) => self.stand(side, stands),
            Action::WakeAt { at_ns } => {
                node.wake_at_ns = Some(at_ns);
                let at_ns = node.clock.when(at_ns).max(now_ns);
                self.agenda.at(at_ns, Happening::Wake(side));
            }
            Action::Report(report) => self.note_report(side, &report),
            Action::Halt(halt) => self.halt(side, halt),
        }
    }

    fn send_if_connected(&mut self, side: Side, step: Step, mut bytes: Vec<u8>) {
        let node = &self.nodes[side.index()];
        if !node.connected || !node.standing.connected {
            return;
        }
        let nth = self.nodes[side.index()].steps[step as usize];
        let Some(blow) = self.blow_at(side, step, nth, Moment::Halfway) else {
            return self.send(side, bytes);
        };
        let rest = bytes.split_off(bytes.len() / 2);
        self.send_parcel(side, Parcel::Bytes(bytes));
        self.strike(blow);
        if let Life::Stopped = self.nodes[side.index()].life {
            // It goes on where it stood still: with the other half.
            self.nodes[side.index()].half_sent = Some(rest);
        }
    }

    /// A process closes its end of the connection.
    pub(super) fn close(&mut self, side: Side) {
        if std::mem::take(&mut self.nodes[side.index()].connected) {
            self.send_parcel(side, Parcel::Closed);
        }
    }

    fn hand(&mut self, side: Side, item: cpu::Item) {
        self.nodes[side.index()].cpu.borrow_mut().items.give(item);
        self.poke_cpu(side, 0);
    }

    /// Lets released outputs leave together, except those that are late.
    fn let_out(&mut self, side: Side) {
        let node = &mut self.nodes[side.index()];
        let leaving = std::mem::take(&mut node.carrying.leaving);
        // Those of one entry are released together, so that their targets tell them apart.
        let which = |output: &Output<Payload>| (output.sequence, output.payload.0);
        let leaves: Vec<_> = leaving.at(node.clock.read(self.now_ns)).map(which).collect();
        for (output, until_ns) in leaving.into_all() {
            let place = self.nodes[side.index()].place_of_next(output.sequence);
            if leaves.contains(&which(&output)) {
                self.output_leaves(side, place, output, until_ns);
            } else {
                self.marks.reach(Mark::LateRelease);
                // Whoever reads the console must not miss a line for it.
                if output.payload.0.kind == OutputKind::Frame {
                    self.dropped.push(place);
                }
            }
        }
    }

    fn output_leaves(&mut self, side: Side, place: Place, output: Output<Payload>, until_ns: u64) {
        let node = &self.nodes[side.index()];
        let (generation, alone) = (node.replica.generation().0, node.alone_in_step);
        let won = self.has_won(side) || self.plan.alone && generation == 1;
        let node = &self.nodes[side.index()];
        let halts = |action: &Action<_, _>| matches!(action, Action::Halt(_));
        let ended = node.has_ended() || node.carrying.actions().any(halts);
        // What was released alone may be carried out just before the end of a guest that has ended.
        let alone = won && (alone || (ended && until_ns == u64::MAX));
        let process = node.process;
        if node.leader.is_some() && alone {
            let again = self.checker.was_said(process, place);
            self.marks.reach(if again {
                Mark::SaidTwice
            } else {
                Mark::SaidByBackup
            });
        }
        // Entries that an armed backup holds explain the outputs of its primary.
        let backup = &self.nodes[side.other().index()];
        let stored = if backup.armed { backup.stored } else { Sequence(0) };
        self.trace.say(self.now_ns, || {
            format!("{side:?} says {} in {generation}", output.sequence.0)
        });
        let (target, payload) = output.payload;
        self.release_disk(side, target.kind, &payload);
        let said = (place, payload.clone());
        // Text at the console of a host that has been overtaken disturbs nobody; a frame would.
        let is_late = self.nodes[side.index()].clock.read(self.now_ns) > until_ns;
        if target.kind == OutputKind::Frame || !is_late {
            self.checker.speaks(process, generation);
        }
        self.checker.output(process, alone, stored, said);
        let is_lost = self.plan.loss != u64::MAX && self.rng.once_in(self.plan.loss);
        if target.kind == OutputKind::Frame && !is_lost && !self.uplinks.is_cut(side, self.now_ns) {
            let at_ns = self.reaches_switch_ns(side);
            let port = self.switch.port(side);
            let output = Happening::Output {
                side,
                port,
                generation,
                payload,
            };
            self.agenda.at(at_ns, output);
        }
    }

    /// When what a side sends to the switch now arrives there.
    fn reaches_switch_ns(&mut self, side: Side) -> u64 {
        let under_way_ns = 50 * US + self.rng.below(self.plan.jitter_ns);
        self.switch.arrival_ns(side, self.now_ns + under_way_ns)
    }

    /// A side's process ends, and with it its connection to the switch.
    pub(super) fn leave_switch(&mut self, side: Side) {
        let at_ns = self.reaches_switch_ns(side);
        let port = self.switch.port(side);
        self.agenda.at(at_ns, Happening::Detached(port));
    }

    fn claim(&mut self, side: Side, generation: Generation) {
        if self.nodes[side.other().index()].claims > 0 {
            self.marks.reach(Mark::BothClaimed);
        }
        self.nodes[side.index()].claims += 1;
        let after_ns = (100 * US + self.rng.below(1_000 * US)) * self.store.slowness(self.now_ns);
        let process = self.nodes[side.index()].process;
        let claim = Claim {
            side,
            process,
            generation,
        };
        let at_ns = self.now_ns + after_ns;
        self.agenda.at(at_ns, Happening::StoreWork(claim, Half::Test));
    }

    fn go_live(&mut self, side: Side, generation: Generation) {
        {
            let cpu = &mut *self.nodes[side.index()].cpu.borrow_mut();
            (cpu.won, cpu.alone) = (generation, true);
            if cpu.items.entries() > 0 {
                self.marks.reach(Mark::BackupLiveWithBacklog);
            }
        }
        self.hand(side, cpu::Item::GoLive);
    }

    fn throttle(&mut self, side: Side, throttled: bool) {
        let node = &mut self.nodes[side.index()];
        node.cpu.borrow_mut().throttled = throttled;
        if throttled {
            let statistics = node.replica.statistics();
            self.marks
                .reach(if statistics.held_bytes > self.plan.held_bytes_max {
                    Mark::ThrottledByOutput
                } else if statistics.lag_ns > self.plan.timeout_ns {
                    Mark::ThrottledByLag
                } else {
                    Mark::ThrottledByWindow
                });
        }
        self.trace
            .say(self.now_ns, || format!("{side:?} throttled: {throttled}"));
        self.poke_cpu(side, 0);
    }

    fn halt(&mut self, side: Side, halt: Halt) {
        self.trace
            .say(self.now_ns, || format!("{side:?} halts: {halt:?}"));
        let mark = match (&halt, side) {
            (Halt::NotArmed, _) => Mark::NotArmed,
            (Halt::Diverged { again }, _) => self.left_diverged(side, *again),
            (Halt::SwitchedOver, _) => Mark::SwitchedOver,
            (Halt::Fenced, Side::Primary) => Mark::PrimaryFenced,
            (Halt::Fenced, Side::Backup) => Mark::BackupFenced,
            (Halt::Stopped, _) => Mark::Stopped,
            (Halt::Ended { .. }, _) if self.nodes[side.other().index()].has_ended() => Mark::EndedTogether,
            (Halt::Ended { .. }, Side::Backup) if self.nodes[1].replica.generation().0 > 1 => {
                Mark::EndedByBackup
            }
            (Halt::Ended { .. }, _) => Mark::EndedAlone,
        };
        self.marks.reach(mark);
        self.joins_after_switchover(side, &halt);
        self.nodes[side.index()].halted = Some(halt);
        self.close_disk(side);
        self.ends_joining(side);
        self.close(side);
        self.leave_switch(side);
    }

    /// A crash or stop that was planned for just after this action.
    fn strike_between_actions(&mut self, side: Side, done: u64) {
        if self.now_ns >= self.plan.calm_at_ns {
            return;
        }
        let strikes = |fault: &Fault| match fault {
            Fault::CrashAtAction { side: at, action, .. } | Fault::StopAtAction { side: at, action, .. } => {
                *at == side && *action == done
            }
            _ => false,
        };
        let fault = self.plan.faults.iter().find(|planned| strikes(&planned.fault));
        match fault.map(|planned| planned.fault.clone()) {
            Some(Fault::CrashAtAction { reset, .. }) => self.crash(side, reset),
            Some(Fault::StopAtAction { for_ns, .. }) => self.stop(side, for_ns),
            _ => (),
        }
    }

    fn note_report(&mut self, side: Side, report: &Report) {
        self.trace
            .say(self.now_ns, || format!("{side:?} reports {report:?}"));
        if matches!(report, Report::Solo { .. } | Report::NewcomerLost { .. }) {
            self.nodes[side.index()].cpu.borrow_mut().alone = true;
        }
        self.mark_report(side, report);
    }
}
