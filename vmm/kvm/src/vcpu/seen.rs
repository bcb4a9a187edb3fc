//! Guest memory as the vCPU sees it: by its own addresses.

use super::{Core, failed};
use lockstep_core::machine::cpu::CpuError;
use lockstep_core::machine::memory::PAGE_BYTES;
use vm_memory::{Bytes, GuestAddress};

/// No instruction is longer (Intel SDM volume 2, 2.3.11).
const INSTRUCTION_BYTES_MAX: usize = 15;
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

    /// Place of the guest's `address` in its memory, if it is mapped.
    fn place_of(&self, address: u64) -> Result<Option<GuestAddress>, CpuError> {
        let translation = self
            .vcpu
            .translate_gva(address)
            .map_err(failed("translate an address"))?;
        Ok((translation.valid != 0).then_some(GuestAddress(translation.physical_address)))
    }

    /// Places in the guest's memory of the 8 bytes at its `address`, if they are mapped: in one
    /// piece, or in two over a page.
    fn places_of_word(&self, address: u64) -> Result<Option<[(GuestAddress, usize); 2]>, CpuError> {
        let first = WORD_BYTES.min(PAGE_BYTES - address % PAGE_BYTES);
        let behind = match WORD_BYTES - first {
            // No bytes, anywhere.
            0 => self.place_of(address)?,
            _ => self.place_of(address.wrapping_add(first))?,
        };
        let rest = (WORD_BYTES - first) as usize;
        Ok(self
            .place_of(address)?
            .zip(behind)
            .map(|(place, behind)| [(place, first as usize), (behind, rest)]))
    }

    /// The 8 bytes at `address` of the guest; none where they are not all in its memory.
    pub(crate) fn word_at(&self, address: u64) -> Result<Option<u64>, CpuError> {
        let mut word = [0; WORD_BYTES as usize];
        let Some([first, behind]) = self.places_of_word(address)? else {
            return Ok(None);
        };
        let (low, high) = word.split_at_mut(first.1);
        let read =
            self.memory.read_slice(low, first.0).is_ok() && self.memory.read_slice(high, behind.0).is_ok();
        Ok(read.then(|| u64::from_le_bytes(word)))
    }

    /// Stack with which ring 3 enters ring 0: the one that the task-state segment names, if there
    /// is one (Intel SDM volume 3A, 7.7).
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
        let Some([first, behind]) = self.places_of_word(address)? else {
            return Ok(());
        };
        let word = word.to_le_bytes();
        let (low, high) = word.split_at(first.1);
        self.memory
            .write_slice(low, first.0)
            .and_then(|()| self.memory.write_slice(high, behind.0))
            .map_err(failed("write guest memory"))
    }
}
