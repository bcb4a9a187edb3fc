//! Guest memory as the vCPU sees it: by its own addresses.

use super::{Core, failed};
use lockstep_core::machine::cpu::CpuError;
use vm_memory::{Bytes, GuestAddress};

/// No instruction is longer (Intel SDM volume 2, 2.3.11).
const INSTRUCTION_BYTES_MAX: usize = 15;
const PAGE_BYTES: u64 = 4096;
const WORD_BYTES: u64 = 8;

impl Core {
    /// The bytes at the instruction pointer; fewer where they cross into what is not mapped.
    pub(crate) fn instruction_bytes(&mut self) -> Result<Vec<u8>, CpuError> {
        let rip = self.registers()?.rip;
        self.bytes_at(rip)
    }

    /// The bytes of the instruction at `rip`, which may reach into a second page.
    pub(crate) fn bytes_at(&self, rip: u64) -> Result<Vec<u8>, CpuError> {
        let in_page = (PAGE_BYTES - rip % PAGE_BYTES) as usize;
        let first = INSTRUCTION_BYTES_MAX.min(in_page);
        let mut bytes = self.bytes_in_page(rip, first)?;
        if bytes.len() == first && first < INSTRUCTION_BYTES_MAX {
            let rest = self.bytes_in_page(rip.wrapping_add(first as u64), INSTRUCTION_BYTES_MAX - first)?;
            bytes.extend(rest);
        }
        Ok(bytes)
    }

    /// So many bytes at `address`, all in one page; none where that is not mapped.
    fn bytes_in_page(&self, address: u64, count: usize) -> Result<Vec<u8>, CpuError> {
        let mut bytes = vec![0; count];
        let place = self.place_of(address)?;
        let read = place.is_some_and(|place| self.memory.read_slice(&mut bytes, place).is_ok());
        Ok(if read { bytes } else { Vec::new() })
    }

    /// Where `address` of the guest is in its memory, if it is mapped.
    fn place_of(&self, address: u64) -> Result<Option<GuestAddress>, CpuError> {
        let translation = self
            .vcpu
            .translate_gva(address)
            .map_err(failed("translate an address"))?;
        Ok((translation.valid != 0).then_some(GuestAddress(translation.physical_address)))
    }

    /// Where the 8 bytes at `address` of the guest are in its memory, if they are mapped and in one page.
    fn place_of_word(&self, address: u64) -> Result<Option<GuestAddress>, CpuError> {
        let whole = address % PAGE_BYTES <= PAGE_BYTES - WORD_BYTES;
        Ok(self.place_of(address)?.filter(|_| whole))
    }

    /// The 8 bytes at `address` of the guest.
    pub(crate) fn word_at(&self, address: u64) -> Result<Option<u64>, CpuError> {
        let place = self.place_of_word(address)?;
        Ok(place.and_then(|place| self.memory.read_obj(place).ok()))
    }

    /// Where ring 3 enters ring 0: the stack that the task-state segment names, if there is one (Intel SDM volume 3A, 7.7).
    pub(crate) fn ring_0_stack(&self) -> Result<Option<u64>, CpuError> {
        const RING_0_STACK: u64 = 4;
        let task = self.vcpu.get_sregs().map_err(failed("read system registers"))?.tr;
        if task.base == 0 {
            return Ok(None);
        }
        self.word_at(task.base.wrapping_add(RING_0_STACK))
    }

    /// Writes them.
    pub(crate) fn set_word_at(&self, address: u64, word: u64) -> Result<(), CpuError> {
        match self.place_of_word(address)? {
            Some(place) => self
                .memory
                .write_obj(word, place)
                .map_err(failed("write guest memory")),
            None => Ok(()),
        }
    }
}
