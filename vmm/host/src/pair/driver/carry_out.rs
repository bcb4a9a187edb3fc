//! Steps the role machine, and does what it wants done.

use super::Driver;
use crate::error::RunError;
use crate::outside::propose;
use crate::pair::asking::Asking;
use crate::pair::stop_point::{Step, common_point, pass, pass_several};
use crate::pair::{Carried, Payload};
use lockstep_core::machine::MachineError;
use lockstep_core::replica::cpu::Item;
use lockstep_core::replica::driving::Doing;
use lockstep_core::replica::role::{Action, Batch, Input, Report};
use lockstep_logging_channel::Message;
use lockstep_process::clock::role_ns;
use lockstep_process::console;

impl Driver {
    /// Takes what has happened, and does what follows from it.
    pub(super) fn step(&mut self, input: Input<Carried, Payload>) -> Result<(), RunError> {
        self.standing.told(&input);
        self.parts.replica.step(role_ns(), input, &mut self.actions);
        let until_ns = self.parts.replica.may_speak_until_ns();
        self.parts.outlets.network().may_speak_until(until_ns);
        self.carrying.take(&mut self.actions);
        while let Some(doing) = self.carrying.begin() {
            match doing {
                Doing::Act(action) => self.carry_out(action)?,
                Doing::LetOut => self.let_out()?,
            }
        }
        Ok(())
    }

    fn let_out(&mut self) -> Result<(), RunError> {
        let leaving = &mut self.carrying.leaving;
        let outputs = leaving.at(role_ns()).map(|output| {
            let (target, bytes) = &output.payload;
            (*target, bytes.as_slice())
        });
        self.parts.outlets.release(outputs).map_err(MachineError::from)?;
        pass_several(Step::AfterRelease, leaving.len() as u64);
        leaving.clear();
        Ok(())
    }

    fn carry_out(&mut self, action: Action<Carried, Payload>) -> Result<(), RunError> {
        self.standing.acts(&action);
        let parts = &mut self.parts;
        match action {
            Action::Send(message) => {
                if matches!(message, Message::Acknowledge(_)) {
                    pass(Step::BeforeAcknowledge);
                }
                let hands_over = matches!(message, Message::Handover(_));
                let arms = matches!(message, Message::Armed(_));
                if arms {
                    pass(Step::BeforeArming);
                } else if hands_over {
                    pass(Step::BeforeHandover);
                }
                if let Some(Err(error)) = parts.link.writer().map(|writer| writer.queue(&message)) {
                    tracing::warn!("not sent: {error}");
                }
                if arms {
                    pass(Step::AfterArming);
                } else if hands_over {
                    pass(Step::AfterHandover);
                }
            }
            Action::SendEntries(batch) => return self.send(&batch),
            // Closed, if it is, once what is queued is written.
            Action::Disconnect => {}
            Action::Deliver(batch) => self.deliver(batch),
            Action::Advance { exits } => self.hand(Item::Advance(exits)),
            Action::Release {
                output,
                held_ns,
                until_ns,
            } => {
                parts.reporter.counters.held(held_ns);
                // Outputs without a time limit leave because this replica acts alone.
                let alone = until_ns == u64::MAX;
                pass(if alone {
                    Step::OutputAlone
                } else {
                    Step::BeforeRelease
                });
                self.carrying.leaving.push(output, until_ns);
            }
            Action::Claim { generation } => parts.storage.claim(generation),
            Action::Announce { generation } => {
                pass(Step::BeforeAnnounce);
                parts
                    .outlets
                    .network()
                    .announce(parts.pair, generation, parts.mac);
                pass(Step::AfterAnnounce);
            }
            Action::GoLive { generation, .. } => {
                pass(Step::GoingLive);
                console::want();
                if self.heard.hears_all(role_ns()) {
                    parts.asking = Asking::default();
                }
                for frame in self.heard.take(role_ns()) {
                    propose(&parts.frames_in, frame);
                }
                // Set once: a replica goes live once.
                let _ = parts.won.set(generation);
                parts.shared.go_alone();
                self.hand(Item::GoLive);
            }
            Action::Throttle(on) => parts.shared.throttle(on),
            Action::Stand(true) => {
                pass(Step::BeforeStand);
                self.stand();
            }
            Action::Stand(false) => parts.shared.stand(false),
            Action::WakeAt { at_ns } => self.wake_at_ns = Some(at_ns),
            Action::Report(report) => {
                parts.reporter.role(&report);
                self.reported(&report);
                let parts = &mut self.parts;
                match report {
                    Report::Solo { .. } => parts.shared.go_alone(),
                    Report::Live { .. } => {
                        parts.asking.ask(parts.outlets.network(), role_ns());
                        self.failing.took_over();
                    }
                    _ => {}
                }
            }
            Action::Halt(halt) => self.halted = Some(halt),
        }
        Ok(())
    }

    fn send(&mut self, batch: &Batch<Carried>) -> Result<(), RunError> {
        let Carried::Encoded(records) = &batch.entries else {
            return Ok(());
        };
        pass(Step::BeforeSend);
        let queued = self
            .parts
            .link
            .writer()
            .map(|writer| writer.queue_encoded_entries(records));
        match queued {
            None => Ok(()),
            Some(Ok(())) => {
                common_point::queued(records);
                Ok(())
            }
            // The window is smaller than the queue; were it not, the log would have a gap: part
            // from the peer.
            Some(Err(error)) => self.connection_broke(&error),
        }
    }

    fn deliver(&mut self, batch: Batch<Carried>) {
        if let Carried::Decoded(entries) = batch.entries {
            self.heard.logged(&entries);
            self.hand(Item::Entries(entries));
        }
    }

    fn hand(&mut self, item: Item) {
        if let Some(items) = &self.parts.items {
            items.give(item);
        }
    }
}
