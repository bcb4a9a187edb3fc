//! Everything that a replica loop works with.

use super::asking::Asking;
use super::diverging::Diverging;
use super::feed::Items;
use super::follows::Follows;
use super::holding::Holding;
use super::journal::Shared;
use super::link::Link;
use super::newcomers::Newcomers;
use super::ownership::Ownership;
use super::report::Reporter;
use super::sending::Sending;
use super::storage::{Answer, Storage};
use super::witness::Witnesses;
use super::{Carried, FromCpu, Payload};
use crate::configuration::Pace;
use crate::disk::{DiskThreads, Images};
use crate::live::Control;
use crate::live::control::Ordered;
use crate::machine::MachineThread;
use crate::outlets::Outlets;
use crate::outside::Signals;
use crossbeam_channel::Sender;
use lockstep_core::replica::role::Replica;
use lockstep_logging_channel::Generation;
use lockstep_network::NetworkReceiver;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// Parts of a replica loop.
pub struct Parts {
    /// The role machine.
    pub replica: Replica<Carried, Payload>,
    /// The connection to the peer.
    pub link: Link,
    /// From the vCPU thread.
    pub from_cpu: mpsc::Receiver<FromCpu>,
    /// To the loop itself, for what the vCPU thread says at a pause.
    pub to_loop: mpsc::Sender<FromCpu>,
    /// Orders, as the vCPU thread sees them.
    pub ordered: Ordered,
    /// State that journal and loop share.
    pub shared: Arc<Shared>,
    /// To the replaying vCPU; a primary has none.
    pub items: Option<Items>,
    /// The generation to go live in, for the vCPU thread.
    pub won: Arc<OnceLock<Generation>>,
    /// Claims.
    pub storage: Storage,
    /// Their answers.
    pub answers: mpsc::UnboundedReceiver<Answer>,
    /// Destinations of released outputs.
    pub outlets: Outlets,
    /// Frames for the guest.
    pub frames: NetworkReceiver,
    /// To the live vCPU.
    pub frames_in: Sender<Vec<u8>>,
    /// The threads of the machine's disks.
    pub disks: DiskThreads,
    /// Images of those.
    pub images: Arc<Images>,
    /// Records beside the images.
    pub ownership: Ownership,
    /// Arrivals interrupt the guest between exits.
    pub kicks: bool,
    /// Orders to the vCPU.
    pub control: Control,
    /// SIGTERM and SIGINT.
    pub signals: Signals,
    /// The vCPU thread.
    pub machine: MachineThread,
    /// Reports.
    pub reporter: Reporter,
    /// Stations whose answers show that clients reach this side.
    pub witnesses: Witnesses,
    /// Requests to clients to send again.
    pub asking: Asking,
    /// The pair's name.
    pub pair: [u8; 16],
    /// Ethernet address of the guest.
    pub mac: [u8; 6],
    /// The reception, open while this side acts alone.
    pub newcomers: Newcomers,
    /// The transfer to a newcomer.
    pub sending: Option<Sending>,
    /// Bandwidth of that.
    pub pace: Pace,
    /// The machine in the store.
    pub holding: Holding,
    /// Address that the other side is connected from.
    pub peer: Option<String>,
    /// Divergences of this side.
    pub diverging: Diverging,
    /// Method by which the backup follows.
    pub follows: Follows,
}
