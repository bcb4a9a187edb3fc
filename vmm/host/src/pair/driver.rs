//! The replica loop: steps the role machine with everything that happens, and carries its actions
//! out.

mod carry_out;
mod disks;
mod diverged;
mod halting;
mod joining;
mod switching;

use super::clock::role_ns;
use super::diverging::Again;
use super::failing::Failing;
use super::happened::{self, Happened, Sources, Waits};
use super::heard::Heard;
use super::holding::Noticed;
use super::last_text;
use super::link::was_reset;
use super::newcomers::Place;
use super::parts::Parts;
use super::received;
use super::sending::Transferred;
use super::stop_point::{self, Step, common_point, pass};
use super::witness::{self, Due};
use super::{Carried, FromCpu, Payload};
use crate::error::RunError;
use crate::outside::propose;
use lockstep_core::machine::MachineError;
use lockstep_core::machine::divergence::Divergence;
use lockstep_core::machine::door::DoorError;
use lockstep_core::machine::run::Ended;
use lockstep_core::replica::driving::{Carrying, Hearing, Received, Standing, Turns, telling};
use lockstep_core::replica::role::{Action, Batch, Closed, Halt, Input};
use lockstep_logging_channel::transport::ChannelError;
use lockstep_logging_channel::{Message, Record};
use lockstep_process::status::Status;
use std::time::Duration;

/// Frames that are taken together where more than one waits: what follows from them leaves in one
/// write. A bound, so that they do not keep the loop from the peer.
const FRAMES_TOGETHER_MAX: usize = 256;

/// A side with disks that is stopped while it takes over goes live first, if it can in this time:
/// its images are the newest once it has written everything that it received. Stopped before, it
/// would have won the machine for images that lack some of it, and no image could begin it again.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(2);

/// Outcome of a replica that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// It is at its end.
    Ended(Status),
    /// Its replay has differed from the log, and it joins the machine again.
    JoinsAgain(Again),
}

/// The loop's own state.
pub struct Driver {
    parts: Parts,
    wake_at_ns: Option<u64>,
    standing: Standing,
    /// The peer has said Goodbye: it asks the storage for nothing any more.
    peer_left: bool,
    ended: Option<Ended>,
    diverged: Option<Box<Divergence>>,
    halted: Option<Halt>,
    actions: Vec<Action<Carried, Payload>>,
    carrying: Carrying,
    /// Frames that came before this vCPU receives.
    heard: Heard,
    turns: Turns,
    /// The place of a newcomer that has joined and is not armed.
    place: Option<Place>,
    /// The role machine knows of a newcomer.
    knows_newcomer: bool,
    /// Time at which a stop is carried out that was asked for while this side took over.
    stops_at_ns: Option<u64>,
    /// Disks whose host fails.
    failing: Failing,
}

impl Driver {
    /// A loop about to start.
    #[must_use]
    pub fn new(parts: Parts, standing: Standing) -> Self {
        Self {
            parts,
            wake_at_ns: None,
            standing,
            peer_left: false,
            ended: None,
            diverged: None,
            halted: None,
            actions: Vec::new(),
            carrying: Carrying::default(),
            heard: Heard::default(),
            turns: Turns::default(),
            place: None,
            knows_newcomer: false,
            stops_at_ns: None,
            failing: Failing::default(),
        }
    }

    /// Runs until the replica halts.
    ///
    /// # Errors
    /// The machine's, the network's; a divergence is one.
    pub async fn run(mut self) -> Result<Over, RunError> {
        self.step(Input::Wake)?;
        let outcome = loop {
            if let Some(halt) = self.halted.take() {
                break self.halt(halt).await;
            }
            let happened = self.next().await;
            if let Err(error) = self.take(happened).and_then(|()| self.stop_if_due()) {
                break Err(error);
            }
            self.parts.reporter.statistics();
        };
        last_text::written(&mut self.parts.signals).await;
        self.parts.reporter.summary();
        outcome
    }

    async fn next(&mut self) -> Happened {
        let waits = Waits {
            wake_at_ns: self.wake_at_ns.into_iter().chain(self.stops_at_ns).min(),
            connected: self.standing.connected,
            closing: self.standing.closing,
            runs: self.ended.is_none() && self.diverged.is_none(),
        };
        happened::next(Sources::of(&mut self.parts), waits, &mut self.turns).await
    }

    fn take(&mut self, happened: Happened) -> Result<(), RunError> {
        match happened {
            Happened::Cpu(message) => telling::said(self, message),
            Happened::Peer(record) => self.take_from_peer(record),
            Happened::Frame(frame) => self.take_frames(frame),
            Happened::Answer((generation, outcome)) => self.step(Input::Claimed { generation, outcome }),
            Happened::Witness(Due::Answer(answer)) => self.witnessed(answer),
            Happened::Witness(Due::Probes(frames)) => {
                frames.iter().for_each(|frame| self.parts.outlets.probe(frame));
                Ok(())
            }
            Happened::Wake => self.wake(),
            Happened::Disk => self.disk_noticed(),
            Happened::Stop if self.parts.replica.takes_over() && self.parts.disks.has_any() => {
                self.stops_at_ns = Some(role_ns() + TAKE_OVER_LIMIT.as_nanos() as u64);
                Ok(())
            }
            Happened::Stop => self.step(Input::StopRequested),
            Happened::Ended(outcome) => self.machine_ended(outcome),
            Happened::Arrival(arrival) => self.arrived(arrival),
            Happened::Transferred(Transferred::Further) => {
                self.publish();
                Ok(())
            }
            Happened::Transferred(Transferred::Over(outcome)) => self.sent(*outcome),
            Happened::Noticed(Noticed::Later(generation)) => self.step(Input::LaterGeneration { generation }),
            Happened::Noticed(Noticed::Asked(asked)) => self.switchover_asked(&asked),
            // What cannot be closed is closed already.
            Happened::Flushed(_) if self.standing.closing => {
                self.standing.closed();
                Ok(())
            }
            Happened::Flushed(Ok(())) => {
                pass(Step::AfterSend);
                common_point::sent();
                Ok(())
            }
            Happened::Flushed(Err(error)) => self.connection_broke(&error),
        }
    }

    /// Carries out a stop that has waited for this side to be live.
    fn stop_if_due(&mut self) -> Result<(), RunError> {
        let is_due = |at_ns: &mut u64| !self.parts.replica.takes_over() || *at_ns <= role_ns();
        match self.stops_at_ns.take_if(is_due) {
            Some(_) => self.step(Input::StopRequested),
            None => Ok(()),
        }
    }

    fn wake(&mut self) -> Result<(), RunError> {
        let statistics = self.parts.replica.statistics();
        self.parts.reporter.counters.sample(&statistics);
        self.publish();
        telling::woken(self)
    }

    fn take_from_cpu(&mut self, message: FromCpu) -> Result<(), RunError> {
        match &message {
            Input::Appended { batch, .. } => self.count(batch),
            Input::Replayed {
                sequence, outputs, ..
            } => {
                common_point::met(*sequence);
                self.parts.asking.replayed(outputs, role_ns());
            }
            Input::LiveAt { .. } => pass(Step::Live),
            _ => {}
        }
        let saved = matches!(message, Input::SavedAt { .. });
        self.step(message)?;
        if saved { self.saved() } else { Ok(()) }
    }

    fn count(&mut self, batch: &Batch<Carried>) {
        let counters = &mut self.parts.reporter.counters;
        let entries = batch.count();
        counters.log_entries += entries;
        counters.log_bytes += batch.bytes;
        stop_point::pass_several(Step::LogEntry, entries);
    }

    fn witnessed(&mut self, answer: witness::Answer) -> Result<(), RunError> {
        let witness::Answer { witness, asked_at_ns } = answer;
        self.step(Input::Witnessed { witness, asked_at_ns })?;
        self.parts.reporter.counters.witness_reached = self.parts.replica.statistics().witness_reached;
        Ok(())
    }

    /// Takes a frame, and what was read with it.
    fn take_frames(&mut self, frame: Vec<u8>) -> Result<(), RunError> {
        self.take_frame(frame)?;
        for _ in 1..FRAMES_TOGETHER_MAX {
            let Some(frame) = self.parts.frames.buffered() else {
                break;
            };
            self.take_frame(frame)?;
        }
        if self.standing.receives && self.parts.kicks {
            self.parts.control.kick();
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: Vec<u8>) -> Result<(), RunError> {
        let mut answer = None;
        let sifted = self.parts.witnesses.sift(frame, |given| answer = Some(given));
        match sifted {
            Some(frame) if self.standing.receives => propose(&self.parts.frames_in, frame),
            Some(frame) => self.heard.keep(frame, role_ns()),
            None => (),
        }
        answer.map_or(Ok(()), |answer| self.witnessed(answer))
    }

    fn take_from_peer(&mut self, record: Result<Option<Record>, ChannelError>) -> Result<(), RunError> {
        let first = match record {
            Ok(Some(record)) => record,
            Ok(None) => return self.connection_closed(),
            Err(error) => return self.connection_broke(&error),
        };
        let Some(reader) = self.parts.link.reader() else {
            return Ok(());
        };
        let (received, broken) = received::with_what_follows(reader, first);
        for received in received {
            match received {
                Received::Message(message) => self.take_message(message)?,
                Received::Entries(batch) => {
                    self.count(&batch);
                    common_point::received(&batch);
                    self.step(Input::ReceivedEntries(batch))?;
                }
            }
        }
        broken.map_or(Ok(()), |error| self.connection_broke(&error))
    }

    fn take_message(&mut self, message: Message) -> Result<(), RunError> {
        if let Message::Acknowledge(acknowledge) = &message {
            common_point::acknowledged(acknowledge.received);
        }
        let acknowledges = matches!(message, Message::Acknowledge(_));
        let arms = matches!(message, Message::Armed(_));
        let hands_over = matches!(message, Message::Handover(_));
        if hands_over {
            pass(Step::HandoverRead);
        } else if acknowledges {
            pass(Step::BeforeAcknowledge);
        } else if arms {
            pass(Step::BeforeArmed);
        }
        self.peer_left |= matches!(message, Message::Goodbye(_));
        self.step(Input::Received(message))?;
        if acknowledges {
            pass(Step::AfterAcknowledge);
        } else if arms {
            pass(Step::AfterArmed);
        }
        Ok(())
    }

    fn connection_closed(&mut self) -> Result<(), RunError> {
        self.step(Input::PeerClosed(Closed::ByPeer))
    }

    fn connection_broke(&mut self, error: &ChannelError) -> Result<(), RunError> {
        let closed = if was_reset(error) {
            Closed::ByPeer
        } else {
            Closed::Here {
                why: error.to_string(),
            }
        };
        self.step(Input::PeerClosed(closed))
    }

    fn machine_ended(&mut self, outcome: Result<Ended, RunError>) -> Result<(), RunError> {
        let ended = match outcome {
            Err(RunError::Machine(MachineError::Door(DoorError::Diverged(divergence)))) => {
                return self.replay_diverged(divergence);
            }
            outcome => outcome?,
        };
        let reason = ended.reason.clone();
        self.ended = Some(ended);
        telling::ended(self, Input::GuestEnded { reason })
    }
}

impl Hearing for Driver {
    type Error = RunError;

    fn waiting(&mut self) -> Option<FromCpu> {
        self.parts.from_cpu.try_recv().ok()
    }

    fn passed_exits(&self) -> Option<u64> {
        self.standing.live.then(|| self.parts.shared.passed_exits())
    }

    fn tell(&mut self, told: FromCpu) -> Result<(), RunError> {
        self.take_from_cpu(told)
    }
}
