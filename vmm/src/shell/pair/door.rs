//! The doors of a replica's vCPU: live from the start, or a replay that goes live.

use super::FromCpu;
use super::feed::{ItemsOut, LoopItems};
use super::journal::{ChannelJournal, LoopEnd, Shared, tell};
use crate::kvm::ClockKind;
use crate::machine::MachineError;
use crate::machine::door::{Door, DoorError};
use crate::replica::recorder::Start;
use crate::replica::replayer::TimeFloor;
use crate::replica::standby::TakenOver;
use crate::replica::{Recorder, Replayer, Standby};
use crate::shell::live::{Arrivals, GuestTime, World, control::Ordered};
use crate::shell::machine::thread::MakeDoor;
use lockstep_logging_channel::Generation;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// What the vCPU thread needs of the replica loop and of the host, to log what enters a live machine.
pub struct CpuSide {
    /// To the replica loop.
    pub to_loop: mpsc::Sender<FromCpu>,
    /// What journal and loop share.
    pub shared: Arc<Shared>,
    /// The generation to go live in.
    pub won: Arc<OnceLock<Generation>>,
    /// Proposals of the host.
    pub arrivals: Arrivals,
    /// Orders.
    pub ordered: Ordered,
    /// Instruction clock.
    pub clock: ClockKind,
}

impl CpuSide {
    /// The door of a machine that is live from the start: logs from `first` on.
    #[must_use]
    pub fn live(self, first: Start) -> MakeDoor {
        Box::new(move || {
            let recorder = self
                .recorder(TimeFloor::default(), first)
                .map_err(MachineError::from)?;
            Ok(Box::new(recorder) as Box<dyn Door>)
        })
    }

    /// The door of a machine that replays what comes through `items`, until it goes live.
    #[must_use]
    pub fn replaying(self, items: ItemsOut) -> MakeDoor {
        Box::new(move || {
            let feed = LoopItems::feed(items, self.to_loop.clone(), self.ordered.clone());
            let replayer = Replayer::new(feed, self.clock != ClockKind::None);
            let go_live = Box::new(move |taken_over| self.taken_over(taken_over));
            Ok(Box::new(Standby::new(replayer, Some(go_live))) as Box<dyn Door>)
        })
    }

    fn taken_over(self, taken_over: TakenOver) -> Result<Recorder<World, ChannelJournal>, DoorError> {
        let generation = self.won.get().copied().unwrap_or_default();
        tell(&self.to_loop, &self.ordered, taken_over.live_at())?;
        self.recorder(taken_over.floor, taken_over.start(generation))
    }

    fn recorder(self, floor: TimeFloor, first: Start) -> Result<Recorder<World, ChannelJournal>, DoorError> {
        let journal = LoopEnd::journal(self.to_loop, self.shared, self.ordered.clone());
        let time = GuestTime::starting_at(floor);
        let outside =
            World::new(time, self.arrivals, self.ordered, self.clock).map_err(|why| DoorError::Host {
                what: "kick timer",
                why: why.to_string(),
            })?;
        Ok(Recorder::new(outside, journal, first))
    }
}
