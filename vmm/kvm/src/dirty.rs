//! The dirty log: which pages were written since it was last taken, by the guest (KVM's log) and by
//! our own devices (the marks in [`Memory`]). Usable from any thread, while the vCPU runs.
//!
//! ```text
//!   DirtyLog --start--> Logging --take, take, …--> dropped: off with the last reader
//! ```
//!
//! It may have several readers at a time: a machine that makes common points is sent to a newcomer.
//! What one of them takes is kept for the others.
//!
//! A page is reported when it may have been written after it was last reported, so whoever reads a
//! page after taking the log and before taking it again has its newest content, or gets the page
//! reported again. Source: KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG and KVM_SET_USER_MEMORY_REGION in
//! Documentation/virt/kvm/api.rst.
//!
//! Protecting pages against writes holds a lock of KVM's that the guest's page faults need. So it
//! is done in parts ([`CLEARED_AT_ONCE`]), where the host's KVM has
//! KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.

#![allow(unsafe_code, reason = "memory slots")]

use super::vcpu::failed;
use super::vm::slot;
use kvm_bindings::{
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_INITIALLY_SET, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_MEM_LOG_DIRTY_PAGES, KVMIO, kvm_clear_dirty_log, kvm_clear_dirty_log__bindgen_ty_1, kvm_enable_cap,
    kvm_userspace_memory_region,
};
use kvm_ioctls::VmFd;
use lockstep_core::machine::cpu::CpuError;
use lockstep_core::machine::memory::{self, Memory, PAGE_BYTES};
use lockstep_core::machine::page_set::PageSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iowr_nr;

/// The only slot: guest memory is one region.
const SLOT: usize = 0;
/// Pages that are protected against writes at once: 64 MiB, under a millisecond. A multiple of 64,
/// as KVM_CLEAR_DIRTY_LOG has it.
const CLEARED_AT_ONCE: usize = 16_384;
const WORD_PAGES: usize = u64::BITS as usize;

/// A virtual machine whose writes can be logged.
#[derive(Clone)]
pub struct DirtyLog {
    // Declared before the memory: KVM lets go of it first.
    vm: Arc<VmFd>,
    memory: Memory,
    readers: Arc<Mutex<Readers>>,
    /// KVM protects pages when it is told, and not when the log is switched on or read.
    in_parts: bool,
}

/// Readers of a log, and what each has not taken yet.
#[derive(Debug, Default)]
struct Readers {
    waiting: Vec<(u64, PageSet)>,
    next: u64,
}

impl Readers {
    fn add(&mut self, pages: &PageSet) {
        self.waiting
            .iter_mut()
            .for_each(|(_, waiting)| waiting.add(pages));
    }

    fn take(&mut self, reader: u64) -> PageSet {
        let mut waiting = self.waiting.iter_mut();
        let own = waiting.find(|(number, _)| *number == reader);
        own.map(|(_, pages)| std::mem::take(pages)).unwrap_or_default()
    }
}

/// A reader of the dirty log, which is on until the last of them is dropped.
pub struct Logging {
    log: DirtyLog,
    reader: u64,
}

impl DirtyLog {
    pub(super) fn new(vm: Arc<VmFd>, memory: Memory) -> Self {
        let protect_when_told = kvm_enable_cap {
            cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
            args: [
                (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET).into(),
                0,
                0,
                0,
            ],
            ..Default::default()
        };
        let in_parts = vm.enable_cap(&protect_when_told).is_ok();
        Self {
            vm,
            memory,
            readers: Arc::default(),
            in_parts,
        }
    }

    /// Guest memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        // Nothing panics while it is held.
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches the log on, or adds a reader to it. What was written before is not in it.
    ///
    /// # Errors
    /// The host's failure.
    pub fn start(&self) -> Result<Logging, CpuError> {
        let mut readers = self.readers();
        if readers.waiting.is_empty() {
            self.switch_on()?;
        } else {
            let written = self.take()?;
            readers.add(&written);
        }
        let reader = readers.next;
        readers.next += 1;
        readers.waiting.push((reader, PageSet::default()));
        drop(readers);
        let log = self.clone();
        Ok(Logging { log, reader })
    }

    fn switch_on(&self) -> Result<(), CpuError> {
        self.log_from_now().inspect_err(|_| self.switch_off())?;
        let _written_before = memory::take_written(&self.memory);
        Ok(())
    }

    fn log_from_now(&self) -> Result<(), CpuError> {
        self.set_flags(KVM_MEM_LOG_DIRTY_PAGES)?;
        if self.in_parts {
            // All pages count as written at first, and none is protected.
            let pages = memory::size_bytes(&self.memory) / PAGE_BYTES;
            self.protect(PageSet::first(pages).words())?;
        }
        Ok(())
    }

    /// Has KVM forget what it has taken from the guest's page tables: it does not notice when this
    /// program changes them (a shadow page table follows the guest's own writes only). It does so
    /// when the memory is taken away, and with it the log: what that had is kept for its readers.
    /// To be called while the vCPU does not run.
    pub(super) fn map_anew(&self) -> Result<(), CpuError> {
        let mut readers = self.readers();
        let is_on = !readers.waiting.is_empty();
        if is_on {
            readers.add(&self.take_from_guest()?);
        }
        let there = self.region(0)?;
        self.set_region(kvm_userspace_memory_region {
            memory_size: 0,
            ..there
        })?;
        if is_on {
            self.log_from_now()
        } else {
            self.set_region(there)
        }
    }

    fn switch_off(&self) {
        // A log that stays on costs the guest time, and nothing else.
        if let Err(why) = self.set_flags(0) {
            tracing::warn!("the dirty log stays on: {why}");
        }
    }

    /// Pages that were written since any reader has asked.
    fn take(&self) -> Result<PageSet, CpuError> {
        let mut pages = self.take_from_guest()?;
        pages.add(&memory::take_written(&self.memory));
        Ok(pages)
    }

    fn take_from_guest(&self) -> Result<PageSet, CpuError> {
        let bytes = memory::size_bytes(&self.memory) as usize;
        let words = self.vm.get_dirty_log(SLOT as u32, bytes);
        let words = words.map_err(failed("read the dirty log"))?;
        if self.in_parts {
            // A page that is written before it is protected is in this set: it is read after that.
            self.protect(&words)?;
        }
        Ok(PageSet::from_words(words))
    }

    /// Protects pages against writes, and clears them in the log.
    fn protect(&self, words: &[u64]) -> Result<(), CpuError> {
        ioctl_iowr_nr!(KVM_CLEAR_DIRTY_LOG, KVMIO, 0xc0, kvm_clear_dirty_log);
        let pages = (memory::size_bytes(&self.memory) / PAGE_BYTES) as usize;
        let words = words.get(..pages.div_ceil(WORD_PAGES)).unwrap_or(words);
        for (number, part) in words.chunks(CLEARED_AT_ONCE / WORD_PAGES).enumerate() {
            if part.iter().all(|word| *word == 0) {
                continue;
            }
            let first = number * CLEARED_AT_ONCE;
            let clear = kvm_clear_dirty_log {
                slot: SLOT as u32,
                num_pages: (pages - first).min(part.len() * WORD_PAGES) as u32,
                first_page: first as u64,
                __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 {
                    dirty_bitmap: part.as_ptr().cast_mut().cast(),
                },
            };
            // SAFETY: the structure of this request, which KVM only reads, as it does the bitmap:
            // that one has a bit for each of `num_pages` pages.
            if unsafe { ioctl_with_ref(&*self.vm, KVM_CLEAR_DIRTY_LOG(), &clear) } != 0 {
                return Err(failed("protect pages")(io::Error::last_os_error()));
            }
        }
        Ok(())
    }

    fn region(&self, flags: u32) -> Result<kvm_userspace_memory_region, CpuError> {
        slot(&self.memory, SLOT, flags).map_err(failed("find guest memory"))
    }

    fn set_flags(&self, flags: u32) -> Result<(), CpuError> {
        self.set_region(self.region(flags)?)
    }

    fn set_region(&self, region: kvm_userspace_memory_region) -> Result<(), CpuError> {
        // SAFETY: the region is mapped for as long as `memory` lives, which is as long as `vm`
        // does: whoever has the one has the other.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(failed("map guest memory"))
    }
}

/// Pages of `memory` that the host has given: all others were never written, and are zeros. All
/// pages where the host does not say.
#[must_use]
pub fn given(memory: &Memory) -> PageSet {
    let count = memory::size_bytes(memory) / PAGE_BYTES;
    page_map(memory, count).unwrap_or_else(|_| PageSet::first(count))
}

/// Reads `/proc/self/pagemap` (Documentation/admin-guide/mm/pagemap.rst).
fn page_map(memory: &Memory, count: u64) -> io::Result<PageSet> {
    const ENTRY_BYTES: u64 = 8;
    /// The page is in memory (bit 63), or swapped out or on its way elsewhere (bit 62).
    const EXISTS: u64 = 0b11 << 62;
    const ENTRIES: usize = 4096;
    let host = memory
        .get_host_address(GuestAddress(0))
        .map_err(io::Error::other)?;
    let map = File::open("/proc/self/pagemap")?;
    let mut pages = PageSet::default();
    let mut index = 0;
    let mut bytes = vec![0; ENTRIES * ENTRY_BYTES as usize];
    while index < count {
        let entries = (count - index).min(ENTRIES as u64);
        let part = bytes
            .get_mut(..(entries * ENTRY_BYTES) as usize)
            .unwrap_or_default();
        map.read_exact_at(part, (host as u64 / PAGE_BYTES + index) * ENTRY_BYTES)?;
        for (number, entry) in part.as_chunks().0.iter().enumerate() {
            if u64::from_ne_bytes(*entry) & EXISTS != 0 {
                pages.insert(index + number as u64);
            }
        }
        index += entries;
    }
    Ok(pages)
}

impl Logging {
    /// Pages that were written since this reader last asked.
    ///
    /// # Errors
    /// The host's failure.
    pub fn take(&self) -> Result<PageSet, CpuError> {
        let mut readers = self.log.readers();
        let written = self.log.take()?;
        readers.add(&written);
        Ok(readers.take(self.reader))
    }

    /// The same without what our own devices have written since.
    ///
    /// # Errors
    /// The host's failure.
    pub fn take_from_guest(&self) -> Result<PageSet, CpuError> {
        let mut readers = self.log.readers();
        let written = self.log.take_from_guest()?;
        readers.add(&written);
        Ok(readers.take(self.reader))
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let mut readers = self.log.readers();
        readers.waiting.retain(|(reader, _)| *reader != self.reader);
        if readers.waiting.is_empty() {
            self.log.switch_off();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_core::machine::memory::MEMORY_BYTES_MIN;
    use vm_memory::Bytes;

    #[test]
    fn a_page_that_was_written_was_given() {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        memory.write_obj(1_u8, GuestAddress(5 * PAGE_BYTES)).unwrap();
        let pages = page_map(&memory, MEMORY_BYTES_MIN / PAGE_BYTES).unwrap();
        assert!(pages.contains(5));
    }
}
