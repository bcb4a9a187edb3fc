//! Network attachments: where the frames of the guest go, and where those for it come from.
//!
//! ```text
//!   --network switch:PATH   Unix stream socket of `lockstep switch`   4-byte length + Ethernet frame
//!   --network tap:NAME      TAP interface of the host                 one frame a read or write
//!   --network none          nothing arrives, nothing leaves
//! ```
//!
//! [`Attachment::attach`] opens the link; [`Link::split`] gives a [`FrameSender`], which never
//! waits, and a [`FrameReceiver`], which waits in tokio ([`Link::split_blocking`] gives one that
//! needs no runtime). Like any network the link may drop: what the other side does not take at once
//! is dropped and counted, and the guest's own protocols make up for it. A machine uses [`open`],
//! whose halves survive the end of a link. Nothing here knows the log, the gate or a role.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod announcement;
mod announcing;
mod attaching;
mod attachment;
mod error;
mod framing;
mod lasting;
mod link;
mod tap;
#[cfg(test)]
mod tests;

pub use announcement::{Announcement, CONTROL_ETHERTYPE, MacAddress, PairName, Refusal, gratuitous_arp};
pub use announcement::{ArpPacket, EthernetHeader, IPV4_ETHERTYPE};
pub use attachment::{Attachment, AttachmentParseError};
pub use error::NetworkError;
pub use framing::{FRAME_BYTES_MAX, FramingError};
pub use framing::{FrameDecoder, append_frame};
pub use lasting::{NetworkCounts, NetworkReceiver, NetworkSender, open};
pub use link::{BlockingReceiver, FrameReceiver, FrameSender, Link};
