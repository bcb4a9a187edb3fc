//! The host's side of a live machine without a peer.

use crate::configuration::Configuration;
use crate::disk::{DiskThreads, Drive, Durability};
use crate::error::RunError;
use crate::live::{Arrivals, Control, Entering, GuestTime, Order, World, control::Ordered};
use crate::machine::thread::{MachineThread, MakeDoor, MakeLiveDoor, Origin, start_live};
use crate::machine::{Plan, start};
use crate::outlets::Outlets;
use crossbeam_channel::{Sender, TrySendError, bounded};
use lockstep_core::machine::devices::board::small;
use lockstep_core::machine::run::Ended;
use lockstep_core::replica::replayer::TimeFloor;
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::EndReason;
use lockstep_network::NetworkReceiver;
use lockstep_process::console;
pub use lockstep_process::signals::Signals;
use lockstep_process::status::Status;
use lockstep_process::writing::standard;
use std::convert::Infallible;
use std::pin::pin;

/// Frames that may wait for the guest: four times its receive ring. At 64 KiB each, 64 MiB at the
/// very most.
pub const FRAMES_WAITING_MAX: usize = 1024;

/// Waits until standard output has everything. A reader may be slow: only a signal ends the wait
/// before, and then the end of the process waits a last moment.
pub async fn console_written(signals: &mut Signals) {
    if standard::is_hurried() {
        return;
    }
    tokio::select! {
        () = standard::console().written() => {}
        () = signals.received() => {}
    }
}

/// `work`, unless a signal comes first: then `None`.
///
/// # Errors
/// Those of `work`.
pub async fn unless_stopped<T>(
    work: impl Future<Output = Result<T, RunError>>,
    signals: &mut Signals,
) -> Result<Option<T>, RunError> {
    tokio::select! {
        done = work => done.map(Some),
        () = signals.received() => Ok(None),
    }
}

/// The vCPU thread's ends of the outside.
pub struct Live {
    /// Destinations of outputs.
    pub outlets: Outlets,
    /// Proposals for the machine.
    pub arrivals: Arrivals,
    /// Orders to it.
    pub ordered: Ordered,
}

/// The host's ends of the outside.
pub struct Outsides {
    /// Orders to the vCPU.
    pub control: Control,
    ordered: Ordered,
    /// Frames from the network.
    pub frames: NetworkReceiver,
    /// Proposals for the machine.
    pub frames_in: Sender<Vec<u8>>,
    /// Disks.
    pub disks: DiskThreads,
    kicks: bool,
}

impl Outsides {
    /// Attaches the network, the console and the disks of a machine with this clock; `None` when a
    /// signal came while it waited for its switch.
    ///
    /// # Errors
    /// [`RunError::Network`], or the host starts no thread.
    pub async fn open(
        configuration: &Configuration,
        clock: ClockKind,
        drives: Vec<Drive>,
        signals: &mut Signals,
    ) -> Result<Option<(Self, Live)>, RunError> {
        let (frames_in, frames_out) = bounded(FRAMES_WAITING_MAX);
        let (control, ordered) = crate::live::control::control();
        let kicks = clock != ClockKind::None;
        let typed = control.clone();
        let console = console::read_input(move || {
            if kicks {
                typed.kick();
            }
        });
        // After the console, whose keys are heard while this waits for a switch.
        let (sender, frames) = tokio::select! {
            opened = lockstep_network::open(&configuration.network) => opened?,
            () = signals.received() => return Ok(None),
        };
        let completed = control.clone();
        let (disks, requests) = DiskThreads::start(drives, move || {
            if kicks {
                completed.kick();
            }
        })?;
        // Devices that boards have in common have the same numbers.
        let arrivals = Arrivals::default()
            .with(small::NETWORK, frames_out)
            .with(small::CONSOLE, console)
            .with_disks(requests.clone());
        let live = Live {
            outlets: Outlets::new(sender).with_disks(requests.clone()),
            arrivals,
            ordered: ordered.clone(),
        };
        Ok(Some((
            Self {
                control,
                ordered,
                frames,
                frames_in,
                disks,
                kicks,
            },
            live,
        )))
    }

    /// Runs `plan` behind the door of `make_door` until it ends, or a signal stops it.
    ///
    /// # Errors
    /// The machine's, or the network's.
    pub async fn run(
        self,
        plan: Plan,
        make_door: MakeDoor,
        signals: &mut Signals,
    ) -> Result<Ended, RunError> {
        let machine = start(plan, self.ordered.clone(), make_door)?;
        self.attend(machine, std::future::pending(), signals).await
    }

    /// The same with a door behind which the machine can be captured; does `beside` meanwhile.
    ///
    /// # Errors
    /// As [`Outsides::run`].
    pub async fn run_live(
        self,
        plan: Plan,
        make_door: MakeLiveDoor,
        beside: impl Future<Output = Infallible>,
        signals: &mut Signals,
    ) -> Result<Ended, RunError> {
        let machine = start_live(plan, Origin::Boot, self.ordered.clone(), None, make_door)?;
        self.attend(machine, beside, signals).await
    }

    async fn attend(
        self,
        mut machine: MachineThread,
        beside: impl Future<Output = Infallible>,
        signals: &mut Signals,
    ) -> Result<Ended, RunError> {
        let Self {
            control,
            ordered: _,
            mut frames,
            frames_in,
            disks,
            kicks,
        } = self;
        let mut beside = pin!(beside);
        loop {
            tokio::select! {
                never = &mut beside => match never {},
                outcome = machine.outcome() => {
                    machine.join();
                    let durability = disks.finish().await;
                    console_written(signals).await;
                    let ended = outcome?;
                    if durability == Durability::Unknown {
                        let _ = conclude(&ended);
                        return Err(RunError::NotDurable);
                    }
                    return Ok(ended);
                }
                frame = frames.recv() => {
                    propose(&frames_in, frame);
                    if kicks {
                        control.kick();
                    }
                }
                () = signals.received() => control.give(Order::Stop),
            }
        }
    }
}

/// Proposes a frame; the network drops what the guest does not take in time.
pub fn propose(frames: &Sender<Vec<u8>>, frame: Vec<u8>) {
    match frames.try_send(frame) {
        Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        Err(TrySendError::Full(_)) => tracing::trace!("a frame was dropped: the guest takes none"),
    }
}

/// The outside on the vCPU thread.
///
/// # Errors
/// The host's.
pub fn world(
    floor: TimeFloor,
    arrivals: Arrivals,
    ordered: Ordered,
    entering: Entering,
) -> Result<World, RunError> {
    World::new(GuestTime::starting_at(floor), arrivals, ordered, entering)
        .map_err(RunError::other("the host gives no timer"))
}

/// Says how the guest ended, and the status that follows.
#[must_use]
pub fn conclude(ended: &Ended) -> Status {
    match &ended.reason {
        EndReason::PoweredOff(0) => {
            tracing::info!(exits = ended.point.exits, "the guest powered off");
            Status::Success
        }
        EndReason::PoweredOff(status) => {
            tracing::error!(status, "the guest powered off with a status that says it failed");
            Status::Failure
        }
        EndReason::Stopped => Status::Success,
        EndReason::GuestFault(why) => {
            tracing::error!(exits = ended.point.exits, "the guest cannot go on: {why}");
            Status::Failure
        }
    }
}
