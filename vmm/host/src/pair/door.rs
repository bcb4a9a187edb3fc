//! The doors of a replica's vCPU: live from the start, or a replay that goes live.

use super::FromCpu;
use super::feed::{ItemsOut, LoopItems};
use super::journal::{ChannelJournal, LoopEnd, Shared, tell};
use super::ownership::Ownership;
use crate::live::{Arrivals, Entering, GuestTime, World, control::Ordered};
use crate::machine::thread::MakeLiveDoor;
use lockstep_core::machine::MachineError;
use lockstep_core::machine::disk::DiskShape;
use lockstep_core::machine::door::DoorError;
use lockstep_core::machine::saved::format::LogPosition;
use lockstep_core::replica::following::Following;
use lockstep_core::replica::recorder::Start;
use lockstep_core::replica::replayer::TimeFloor;
use lockstep_core::replica::standby::TakenOver;
use lockstep_core::replica::{LiveDoor, Recorder, Replayer, Standby};
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::message::FollowsBy;
use lockstep_logging_channel::{DeviceId, Generation, Sequence};
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, oneshot};

/// Ends of the replica loop and of the host that the vCPU thread needs, to log what enters a live
/// machine.
pub struct CpuSide {
    /// To the replica loop.
    pub to_loop: mpsc::Sender<FromCpu>,
    /// State that journal and loop share.
    pub shared: Arc<Shared>,
    /// The generation to go live in.
    pub won: Arc<OnceLock<Generation>>,
    /// Proposals of the host.
    pub arrivals: Arrivals,
    /// Orders.
    pub ordered: Ordered,
    /// Places at which events enter it.
    pub entering: Entering,
    /// Method by which this side follows, or is followed.
    pub follows_by: FollowsBy,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Disks of its board.
    pub disks: Vec<(DeviceId, DiskShape)>,
    /// Records beside its images.
    pub ownership: Ownership,
}

impl CpuSide {
    /// The door of a machine that is live from the start: logs from `first` on.
    #[must_use]
    pub fn live(self, first: Start) -> MakeLiveDoor {
        Box::new(move || {
            let recorder = self
                .recorder(TimeFloor::default(), first)
                .map_err(MachineError::from)?;
            Ok(Box::new(recorder) as Box<dyn LiveDoor>)
        })
    }

    /// The door of a machine that replays what comes through `items`, until it goes live: from its
    /// beginning, or from where it was captured. `stands` is told when the machine exists.
    #[must_use]
    pub fn replaying(
        self,
        items: ItemsOut,
        captured: Option<LogPosition>,
        stands: oneshot::Sender<()>,
    ) -> MakeLiveDoor {
        Box::new(move || {
            // Nobody waits for it where the replay begins with the machine.
            let _ = stands.send(());
            let disks = self.arrivals.disks().clone();
            let feed = LoopItems::feed(items, self.to_loop.clone(), self.ordered.clone(), disks);
            if self.follows_by == FollowsBy::Checkpoints {
                let (last, floor) = captured.map_or_else(Default::default, |position| {
                    (Sequence(position.sequence), position.into())
                });
                let shares = |device| self.arrivals.disks().shares(device);
                let own = self.disks.iter().copied().filter(|(device, _)| !shares(*device));
                let following =
                    Following::new(feed, self.memory_bytes, last, floor).with_disks(own.collect());
                let go_live = Box::new(move |taken_over| self.taken_over(taken_over));
                return Ok(Box::new(Standby::following(following, go_live)) as Box<dyn LiveDoor>);
            }
            let counts = self.entering.clock != ClockKind::None;
            let replayer = match captured {
                None => Replayer::new(feed, counts),
                Some(position) => {
                    let last = Sequence(position.sequence);
                    Replayer::from_capture(feed, counts, last, position.into())
                }
            };
            let replayer = replayer.of_memory(self.memory_bytes);
            let go_live = Box::new(move |taken_over| self.taken_over(taken_over));
            Ok(Box::new(Standby::new(replayer, Some(go_live))) as Box<dyn LiveDoor>)
        })
    }

    fn taken_over(self, taken_over: TakenOver) -> Result<Recorder<World, ChannelJournal>, DoorError> {
        let generation = self.won.get().copied().unwrap_or_default();
        let (ownership, ordered) = (&self.ownership, &self.ordered);
        self.arrivals.disks().act_when_possible(
            &|image| ownership.opens(image, generation),
            ordered.woken(),
            || ordered.obey(),
        )?;
        tell(&self.to_loop, &self.ordered, taken_over.live_at())?;
        self.recorder(taken_over.floor, taken_over.start(generation))
    }

    fn recorder(self, floor: TimeFloor, first: Start) -> Result<Recorder<World, ChannelJournal>, DoorError> {
        let disks = self.arrivals.disks().clone();
        let journal = LoopEnd::journal(self.to_loop, self.shared, self.ordered.clone(), disks);
        let time = GuestTime::starting_at(floor);
        let outside =
            World::new(time, self.arrivals, self.ordered, self.entering).map_err(|why| DoorError::Host {
                what: "kick timer",
                why: why.to_string(),
            })?;
        let recorder = Recorder::new(outside, journal, first);
        Ok(match self.follows_by {
            FollowsBy::Replay => recorder,
            FollowsBy::Checkpoints => recorder.in_epochs(),
        })
    }
}
