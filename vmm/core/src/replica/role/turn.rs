//! Data that every state of a replica has, and operations that a step may do with it.

use lockstep_logging_channel::{EndReason, Generation, Message, Sequence};

use super::standstill::Standstill;
use super::witness::Witnesses;
use super::{Action, Config, Halt, Next, Output, Report, State};
use crate::replica::Gate;
use crate::replica::mutant::{self, Mutant};

/// An output in the gate.
#[derive(Debug)]
pub(super) struct Waiting<O> {
    output: Output<O>,
    since_ns: u64,
}

/// Data that a replica keeps whatever state it is in.
#[derive(Debug)]
pub(super) struct Core<O> {
    pub config: Config,
    pub generation: Generation,
    pub gate: Gate<Waiting<O>>,
    pub witnesses: Witnesses,
    /// Time of the last step; never goes back.
    pub now_ns: u64,
    /// Reason of the guest's end, once it has ended.
    pub ended: Option<EndReason>,
    /// Record of the reports to people about outputs that wait.
    pub standstill: Standstill,
    throttled: bool,
    throttled_at_ns: u64,
    wake_at_ns: Option<u64>,
}

impl<O> Core<O> {
    pub fn new(config: Config, now_ns: u64) -> Self {
        Self {
            config,
            generation: config.generation,
            gate: Gate::default(),
            witnesses: Witnesses::new(&config, now_ns),
            now_ns,
            ended: None,
            standstill: Standstill::default(),
            throttled: false,
            throttled_at_ns: 0,
            wake_at_ns: None,
        }
    }

    /// Data of a replica that has won its generation before: outputs of its guest leave at once.
    pub fn alone(config: Config, now_ns: u64) -> Self {
        let mut core = Self::new(config, now_ns);
        core.gate.open().for_each(drop);
        core
    }

    /// Since when the oldest output waits, or the guest does.
    pub fn standing_since_ns(&self) -> Option<u64> {
        let held = self.gate.oldest().map(|(_, waiting)| waiting.since_ns);
        let throttled = self.throttled.then_some(self.throttled_at_ns);
        held.into_iter().chain(throttled).min()
    }
}

/// One step.
pub(super) struct Turn<'a, E, O> {
    pub core: &'a mut Core<O>,
    actions: &'a mut Vec<Action<E, O>>,
}

impl<'a, E, O> Turn<'a, E, O> {
    pub fn new(core: &'a mut Core<O>, now_ns: u64, actions: &'a mut Vec<Action<E, O>>) -> Self {
        core.now_ns = core.now_ns.max(now_ns);
        Self { core, actions }
    }

    pub fn now_ns(&self) -> u64 {
        self.core.now_ns
    }

    pub fn act(&mut self, action: Action<E, O>) {
        self.actions.push(action);
    }

    pub fn send(&mut self, message: Message) {
        self.act(Action::Send(message));
    }

    pub fn report(&mut self, report: Report) {
        self.act(Action::Report(report));
    }

    /// Puts outputs into the gate; where it is open, they leave.
    pub fn hold(&mut self, outputs: Vec<Output<O>>) {
        let since_ns = self.now_ns();
        for output in outputs {
            let (sequence, bytes) = (output.sequence, output.bytes);
            let passed = self.core.gate.hold(sequence, bytes, Waiting { output, since_ns });
            self.actions
                .extend(passed.map(|waiting| release(waiting, since_ns, u64::MAX)));
        }
    }

    /// Releases what waits for entries up to `sequence`, in time until `until_ns`. Gives the bytes
    /// released.
    pub fn release(&mut self, sequence: Sequence, until_ns: u64) -> usize {
        let now_ns = self.now_ns();
        let before = self.core.gate.held_bytes();
        let early = u64::from(mutant::is(Mutant::ReleaseOneEarly));
        let released = self.core.gate.acknowledge(Sequence(sequence.0 + early));
        self.actions
            .extend(released.map(|(_, waiting)| release(waiting, now_ns, until_ns)));
        before - self.core.gate.held_bytes()
    }

    /// This replica acts alone from now on: it says so, and everything it holds leaves.
    pub fn act_alone(&mut self, generation: Generation) {
        assert!(
            generation > self.core.generation,
            "{generation:?} after {:?}",
            self.core.generation
        );
        self.core.generation = generation;
        self.report(Report::Won { generation });
        self.act(Action::Announce { generation });
        let now_ns = self.now_ns();
        let released = self.core.gate.open();
        self.actions
            .extend(released.map(|(_, waiting)| release(waiting, now_ns, u64::MAX)));
    }

    /// Nothing leaves this replica any more.
    pub fn halt(&mut self, halt: Halt) -> Next<E> {
        self.core.gate.discard();
        self.act(Action::Halt(halt));
        Some(State::Halted)
    }

    /// Tells the vCPU to wait or to run, if that has changed.
    pub fn throttle(&mut self, throttled: bool) {
        if mutant::is(Mutant::ThrottleForEver) && self.core.throttled {
            return;
        }
        if self.core.throttled != throttled {
            self.core.throttled = throttled;
            self.core.throttled_at_ns = self.core.now_ns;
            self.act(Action::Throttle(throttled));
        }
    }

    /// Asks for the next step, if that has changed.
    pub fn wake_at(&mut self, at_ns: Option<u64>) {
        if mutant::is(Mutant::ForgetTimer) && self.core.wake_at_ns.is_some() {
            return;
        }
        if self.core.wake_at_ns != at_ns {
            self.core.wake_at_ns = at_ns;
            self.actions.extend(at_ns.map(|at_ns| Action::WakeAt { at_ns }));
        }
    }
}

fn release<E, O>(waiting: Waiting<O>, now_ns: u64, until_ns: u64) -> Action<E, O> {
    let held_ns = now_ns.saturating_sub(waiting.since_ns);
    Action::Release {
        output: waiting.output,
        held_ns,
        until_ns,
    }
}

/// The caller has broken its part of the agreement; going on could let two machines speak.
#[expect(clippy::panic, reason = "an assertion that stays on in release builds")]
pub(super) fn defect(what: &str) -> ! {
    panic!("replica: {what}")
}
