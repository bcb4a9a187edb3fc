//! Guest memory as the vCPU sees it: by its own addresses.

use super::{Core, failed};
use crate::machine::cpu::CpuError;
use vm_memory::{Bytes, GuestAddress};

/// No instruction is longer (Intel SDM volume 2, 2.3.11).
const INSTRUCTION_BYTES_MAX: usize = 15;
const PAGE_BYTES: u64 = 4096;
const WORD_BYTES: u64 = 8;

impl Core {
    /// The bytes at the instruction pointer; fewer where they cross into what is not mapped.
    pub(in crate::kvm) fn instruction_bytes(&mut self) -> Result<Vec<u8>, CpuError> {
        let rip = self.registers()?.rip;
        self.bytes_at(rip)
    }

    /// The bytes of the instruction at `rip`.
    pub(in crate::kvm) fn bytes_at(&self, rip: u64) -> Result<Vec<u8>, CpuError> {
        let translation = self
            .vcpu
            .translate_gva(rip)
            .map_err(failed("translate an address"))?;
        let in_page = (PAGE_BYTES - rip % PAGE_BYTES) as usize;
        let mut bytes = vec![0; INSTRUCTION_BYTES_MAX.min(in_page)];
        let read = translation.valid != 0
            && self
                .memory
                .read_slice(&mut bytes, GuestAddress(translation.physical_address))
                .is_ok();
        Ok(if read { bytes } else { Vec::new() })
    }

    /// Where the 8 bytes at `address` of the guest are in its memory, if they are mapped and in one page.
    fn place_of_word(&self, address: u64) -> Result<Option<GuestAddress>, CpuError> {
        let translation = self
            .vcpu
            .translate_gva(address)
            .map_err(failed("translate an address"))?;
        let whole = translation.valid != 0 && address % PAGE_BYTES <= PAGE_BYTES - WORD_BYTES;
        Ok(whole.then_some(GuestAddress(translation.physical_address)))
    }

    /// The 8 bytes at `address` of the guest.
    pub(in crate::kvm) fn word_at(&self, address: u64) -> Result<Option<u64>, CpuError> {
        let place = self.place_of_word(address)?;
        Ok(place.and_then(|place| self.memory.read_obj(place).ok()))
    }

    /// Writes them.
    pub(in crate::kvm) fn set_word_at(&self, address: u64, word: u64) -> Result<(), CpuError> {
        match self.place_of_word(address)? {
            Some(place) => self
                .memory
                .write_obj(word, place)
                .map_err(failed("write guest memory")),
            None => Ok(()),
        }
    }
}
