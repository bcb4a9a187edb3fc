//! Queues: what every device does with its own.

use crate::machine::devices::saved::Impossible;
use crate::machine::memory::Memory;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// Entries in each queue.
pub const QUEUE_SIZE: u16 = 256;

/// The guest's wish to be notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Interrupt.
    Yes,
    /// Do not.
    No,
}

/// State of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedQueue {
    next_available: u16,
    next_used: u16,
    size: u16,
    ready: bool,
    descriptor_table: u64,
    available_ring: u64,
    used_ring: u64,
}

/// The queue as a value.
pub(super) fn saved(queue: &Queue) -> SavedQueue {
    let QueueState {
        // The same for every device, and a feature that is not offered.
        max_size: _,
        event_idx_enabled: _,
        next_avail,
        next_used,
        size,
        ready,
        desc_table,
        avail_ring,
        used_ring,
    } = queue.state();
    SavedQueue {
        next_available: next_avail,
        next_used,
        size,
        ready,
        descriptor_table: desc_table,
        available_ring: avail_ring,
        used_ring,
    }
}

/// The queue in a saved state. The queue library refuses what a guest could not have set.
///
/// # Errors
/// [`Impossible`] for a value that it never has.
pub(super) fn restore(saved: SavedQueue) -> Result<Queue, Impossible> {
    let SavedQueue {
        next_available,
        next_used,
        size,
        ready,
        descriptor_table,
        available_ring,
        used_ring,
    } = saved;
    let refused = |why| match why {
        Error::InvalidSize => ("the size of a queue", u64::from(size)),
        Error::InvalidDescTableAlign => ("the address of a descriptor table", descriptor_table),
        Error::InvalidAvailRingAlign => ("the address of an available ring", available_ring),
        _ => ("the address of a used ring", used_ring),
    };
    Queue::try_from(QueueState {
        max_size: QUEUE_SIZE,
        event_idx_enabled: false,
        next_avail: next_available,
        next_used,
        size,
        ready,
        desc_table: descriptor_table,
        avail_ring: available_ring,
        used_ring,
    })
    .map_err(|why| {
        let (field, value) = refused(why);
        Impossible { field, value }
    })
}

/// The next chain that the guest has made available.
///
/// # Errors
/// The queue is not one.
pub(super) fn next_chain<'a>(
    queue: &mut Queue,
    memory: &'a Memory,
) -> Result<Option<DescriptorChain<&'a Memory>>, Error> {
    if !queue.ready() {
        return Ok(None);
    }
    if !queue.is_valid(memory) {
        return Err(Error::InvalidDescriptorIndex);
    }
    Ok(queue.iter(memory)?.next())
}

/// Chains that wait in the queue; 0 when its ring cannot be read.
pub(super) fn waiting_chains(queue: &Queue, memory: &Memory) -> usize {
    if !queue.ready() {
        return 0;
    }
    let available = queue.avail_idx(memory, Ordering::Acquire).map(|index| index.0);
    let waiting = available.map_or(0, |index| index.wrapping_sub(queue.next_avail()));
    usize::from(waiting.min(queue.size()))
}

/// True where a chain has more descriptors than a queue, which no driver may make (2.7.5.3.1). An
/// indirect table, which is not offered but which the queue library follows, may claim 65,535 of
/// them: 256 such chains hold the vCPU thread for seconds.
pub(super) fn is_too_long(chain: &DescriptorChain<&Memory>) -> bool {
    chain.clone().nth(usize::from(QUEUE_SIZE)).is_some()
}

/// The guest's wish to be notified of what was used.
///
/// # Errors
/// The queue is not one.
pub(super) fn notify(queue: &mut Queue, memory: &Memory) -> Result<Notify, Error> {
    Ok(
        if queue.needs_notification(memory)? && !interrupts_suppressed(queue, memory) {
            Notify::Yes
        } else {
            Notify::No
        },
    )
}

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (2.7.7), which the queue library leaves to the device.
fn interrupts_suppressed(queue: &Queue, memory: &Memory) -> bool {
    const NO_INTERRUPT: u16 = 1;
    memory
        .read_obj::<u16>(GuestAddress(queue.avail_ring()))
        .is_ok_and(|flags| u16::from_le(flags) & NO_INTERRUPT != 0)
}
