//! The entropy device (VIRTIO 1.2, 5.4): one queue of buffers that are filled with random bytes.
//!
//! The bytes come through the door, at the exit by which the guest notifies the device. A buffer
//! gets at most what one question may ask for; a driver that wants more asks again.

use super::queue::{self, Notify, QUEUE_SIZE, SavedQueue, is_too_long, next_chain, notify};
use super::{Mmio, Virtio};
use crate::machine::devices::saved::Impossible;
use crate::machine::door::{Ask, DoorError, RANDOM_BYTES_MAX, asking};
use crate::machine::memory::Memory;
use serde::{Deserialize, Serialize};
use std::io::Write;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::{DescriptorChain, Error, Queue, QueueT};

/// The queue from which buffers are filled.
const REQUEST_QUEUE: u32 = 0;

/// The device.
pub struct Entropy {
    requests: Queue,
}

/// State of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedEntropy {
    requests: SavedQueue,
}

impl Entropy {
    /// A device without a driver.
    ///
    /// # Errors
    /// Never for the constant queue size; the library's signature.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            requests: Queue::new(QUEUE_SIZE)?,
        })
    }

    /// Fills the buffers that the guest has given. The door's error comes first, then the queue's.
    fn fill(&mut self, memory: &Memory, ask: Ask<'_>) -> Result<Result<Notify, Error>, DoorError> {
        // At most a queue's worth each time: a guest that adds on cannot hold the vCPU thread here.
        for _ in 0..QUEUE_SIZE {
            let chain = match next_chain(&mut self.requests, memory) {
                Ok(Some(chain)) => chain,
                Ok(None) => break,
                Err(broken) => return Ok(Err(broken)),
            };
            let head = chain.head_index();
            let written_bytes = fill_chain(chain, memory, &mut *ask)?;
            if let Err(broken) = self.requests.add_used(memory, head, written_bytes) {
                return Ok(Err(broken));
            }
        }
        Ok(notify(&mut self.requests, memory))
    }
}

impl Virtio for Entropy {
    const DEVICE_ID: u32 = VIRTIO_ID_RNG;
    type Made = ();
    type Saved = SavedEntropy;

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
    }

    fn reset(&mut self) {
        self.requests.reset();
    }

    fn queue(&self, number: u32) -> Option<&Queue> {
        (number == REQUEST_QUEUE).then_some(&self.requests)
    }

    fn queue_mut(&mut self, number: u32) -> Option<&mut Queue> {
        (number == REQUEST_QUEUE).then_some(&mut self.requests)
    }

    /// The device has no configuration.
    fn read_configuration(&self, _at: u32, _size_bytes: u8) -> u64 {
        0
    }

    fn saved(&self) -> SavedEntropy {
        let Self { requests } = self;
        SavedEntropy {
            requests: queue::saved(requests),
        }
    }

    fn restore(saved: SavedEntropy, (): ()) -> Result<Self, Impossible> {
        let SavedEntropy { requests } = saved;
        Ok(Self {
            requests: queue::restore(requests)?,
        })
    }
}

impl Mmio<Entropy> {
    /// Fills the guest's buffers, where `queue` has been notified.
    ///
    /// # Errors
    /// The door's.
    pub fn fill(&mut self, queue: u32, memory: &Memory, ask: Ask<'_>) -> Result<(), DoorError> {
        if queue == REQUEST_QUEUE {
            let outcome = self.device.fill(memory, ask)?;
            self.finish(outcome);
        }
        Ok(())
    }
}

/// Bytes written; 0 for a chain that has no room that the device may write.
fn fill_chain(chain: DescriptorChain<&Memory>, memory: &Memory, ask: Ask<'_>) -> Result<u32, DoorError> {
    if is_too_long(&chain) {
        return Ok(0);
    }
    let Ok(mut writer) = chain.writer(memory) else {
        return Ok(0);
    };
    let room_bytes = writer.available_bytes().min(RANDOM_BYTES_MAX as usize) as u32;
    if room_bytes == 0 {
        return Ok(0);
    }
    let bytes = asking::random(ask, room_bytes)?;
    Ok(writer.write_all(&bytes).map_or(0, |()| room_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::door::Question;
    use crate::machine::memory::{self, MEMORY_BYTES_MIN};
    use lockstep_logging_channel::Value;
    use vm_memory::{Bytes, GuestAddress};

    const TABLE: u64 = 0x1000;
    const AVAILABLE: u64 = 0x2000;
    const USED: u64 = 0x3000;
    const BUFFER: u64 = 0x4000;
    const WRITABLE: u16 = 2;

    const NOTIFY: u64 = 0x50;
    const INTERRUPT_STATUS: u64 = 0x60;

    /// A device that a driver has set up as VIRTIO 1.2, 3.1.1 says.
    fn live() -> Mmio<Entropy> {
        let mut mmio = Mmio::new(Entropy::new().unwrap());
        let setup = [
            (0x70, 0),
            (0x70, 1),
            (0x70, 3),
            (0x24, 1),
            (0x20, 1),
            (0x70, 11),
            (0x30, 0),
            (0x38, 8),
            (0x80, TABLE as u32),
            (0x90, AVAILABLE as u32),
            (0xa0, USED as u32),
            (0x44, 1),
            (0x70, 15),
        ];
        for (offset, value) in setup {
            assert_eq!(mmio.write(offset, value), None);
        }
        assert_eq!(mmio.read(0x70, 4), 15, "the features were accepted");
        mmio
    }

    /// One descriptor for each, all available.
    fn offer(memory: &Memory, descriptors: &[(u32, u16)]) {
        for (index, (length, flags)) in (0_u16..).zip(descriptors) {
            let place = TABLE + 16 * u64::from(index);
            let buffer = BUFFER + 0x1000 * u64::from(index);
            memory.write_obj(buffer, GuestAddress(place)).unwrap();
            memory.write_obj(*length, GuestAddress(place + 8)).unwrap();
            memory.write_obj(*flags, GuestAddress(place + 12)).unwrap();
            let slot = GuestAddress(AVAILABLE + 4 + 2 * u64::from(index));
            memory.write_obj(index, slot).unwrap();
        }
        let offered = descriptors.len() as u16;
        memory.write_obj(offered, GuestAddress(AVAILABLE + 2)).unwrap();
    }

    /// Notifies the device; the lengths that were asked for, answered with bytes of 1, 2, 3...
    fn notify_it(mmio: &mut Mmio<Entropy>, memory: &Memory) -> Vec<u32> {
        let queue = mmio.write(NOTIFY, 0).unwrap();
        let mut asked = Vec::new();
        let mut ask = |question| match question {
            Question::Random { length_bytes } => {
                asked.push(length_bytes);
                Ok(Value::Random((1..).take(length_bytes as usize).collect()))
            }
            other => panic!("{other:?} was asked"),
        };
        mmio.fill(queue, memory, &mut ask).unwrap();
        asked
    }

    fn used_bytes(memory: &Memory, index: u64) -> u32 {
        memory.read_obj(GuestAddress(USED + 4 + 8 * index + 4)).unwrap()
    }

    #[test]
    fn a_buffer_gets_what_one_question_may_ask_for() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let mut mmio = live();
        assert_eq!(mmio.read(8, 4), 4, "its type");
        offer(&memory, &[(2048, WRITABLE), (5, WRITABLE)]);

        assert_eq!(notify_it(&mut mmio, &memory), [64, 5]);

        assert_eq!([used_bytes(&memory, 0), used_bytes(&memory, 1)], [64, 5]);
        let mut filled = [0; 65];
        memory.read_slice(&mut filled, GuestAddress(BUFFER)).unwrap();
        assert_eq!([filled[0], filled[63], filled[64]], [1, 64, 0]);
        assert!(mmio.line());
        assert_eq!(mmio.read(INTERRUPT_STATUS, 4), 1);
    }

    #[test]
    fn a_buffer_without_room_is_given_back_and_nothing_is_asked() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let mut mmio = live();
        offer(&memory, &[(64, 0), (0, WRITABLE)]);
        assert_eq!(notify_it(&mut mmio, &memory), Vec::<u32>::new());
        assert_eq!(memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap(), 2);
    }

    #[test]
    fn a_ring_that_claims_too_much_stops_the_device_until_it_is_reset() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let mut mmio = live();
        offer(&memory, &[(64, WRITABLE)]);
        memory.write_obj(999_u16, GuestAddress(AVAILABLE + 2)).unwrap();
        assert_eq!(notify_it(&mut mmio, &memory), Vec::<u32>::new());
        assert_eq!(mmio.read(0x70, 4), 15 | 64);
        assert_eq!(mmio.write(NOTIFY, 0), None);
        assert_eq!(mmio.write(0x70, 0), None);
        assert_eq!(mmio.read(0x70, 4), 0);
    }

    #[test]
    fn the_door_s_error_is_the_machine_s() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let mut mmio = live();
        offer(&memory, &[(64, WRITABLE)]);
        let queue = mmio.write(NOTIFY, 0).unwrap();
        let refused = mmio.fill(queue, &memory, &mut |_| Err(DoorError::Stopped));
        assert!(matches!(refused, Err(DoorError::Stopped)));
    }

    #[test]
    fn its_saved_form_is_restored() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        let mut mmio = live();
        offer(&memory, &[(64, WRITABLE)]);
        notify_it(&mut mmio, &memory);
        let restored = Mmio::<Entropy>::restore(mmio.saved(), ()).unwrap();
        assert_eq!(restored.saved(), mmio.saved());
        assert!(restored.line());
    }
}
