//! Guest memory as a guest's own page tables show it.
//!
//! A walk only reads: it sets no accessed bit, and so changes nothing that a guest could see.
//! Source: Intel SDM volume 3A, 4.5 (4-level paging).

use super::memory::Memory;
use vm_memory::{ByteValued, Bytes, GuestAddress};

const PRESENT: u64 = 1;
/// The entry maps a page, and is no table.
const LARGE: u64 = 1 << 7;
/// Address bits of an entry: 51 to 12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Lowest address bit that the tables of each level translate, from the top.
const SHIFTS: [u32; 4] = [39, 30, 21, 12];

/// The linear addresses that the tables at `cr3` map.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    memory: &'a Memory,
    cr3: u64,
}

impl<'a> Linear<'a> {
    /// The address space of CR3.
    #[must_use]
    pub fn new(memory: &'a Memory, cr3: u64) -> Self {
        Self { memory, cr3 }
    }

    /// Physical address of `linear`; none where it is not mapped.
    #[must_use]
    pub fn physical(&self, linear: u64) -> Option<u64> {
        let mut table = self.cr3 & ADDRESS;
        for shift in SHIFTS {
            let index = linear >> shift & 0x1ff;
            let entry: u64 = self.memory.read_obj(GuestAddress(table + 8 * index)).ok()?;
            if entry & PRESENT == 0 {
                return None;
            }
            let is_page = shift == 12 || shift < 39 && entry & LARGE != 0;
            if is_page {
                let within = (1 << shift) - 1;
                return Some(entry & ADDRESS & !within | linear & within);
            }
            table = entry & ADDRESS;
        }
        None
    }

    /// Bytes from `linear` on, across pages.
    #[must_use]
    pub fn bytes<const COUNT: usize>(&self, linear: u64) -> Option<[u8; COUNT]> {
        let mut bytes = [0; COUNT];
        for (byte, offset) in bytes.iter_mut().zip(0..) {
            let physical = self.physical(linear.checked_add(offset)?)?;
            *byte = self.memory.read_obj(GuestAddress(physical)).ok()?;
        }
        Some(bytes)
    }

    /// The value at `linear`, which is aligned.
    #[must_use]
    pub fn aligned<T: ByteValued>(&self, linear: u64) -> Option<T> {
        let physical = self.physical(linear)?;
        self.memory.read_obj(GuestAddress(physical)).ok()
    }

    /// Writes `bytes` from `linear` on. False, and nothing is written, where one is not mapped.
    #[must_use]
    pub fn write(&self, linear: u64, bytes: &[u8]) -> bool {
        let places: Option<Vec<u64>> = (0..bytes.len() as u64)
            .map(|offset| self.physical(linear.checked_add(offset)?))
            .collect();
        let Some(places) = places else { return false };
        places.iter().zip(bytes).all(|(physical, byte)| {
            let written = self.memory.write_obj(*byte, GuestAddress(*physical));
            written.is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory;

    const CR3: u64 = 0x1000;
    const KERNEL: u64 = 0xffff_ffff_8100_0000;

    /// KERNEL is at 2 MiB in a large page; 0x7000_1000 at 0x5000 in a small one.
    fn mapped() -> Memory {
        let memory = memory::allocate(8 << 20).unwrap();
        let entry = |table: u64, index: u64, value: u64| {
            memory.write_obj(value, GuestAddress(table + 8 * index)).unwrap();
        };
        entry(CR3, 511, 0x2000 | PRESENT);
        entry(0x2000, 510, 0x3000 | PRESENT);
        entry(0x3000, 8, 0x20_0000 | PRESENT | LARGE | 1 << 63);
        entry(CR3, 0, 0x4000 | PRESENT);
        entry(0x4000, 1, 0x6000 | PRESENT);
        entry(0x6000, 0x180, 0x7000 | PRESENT);
        entry(0x7000, 1, 0x5000 | PRESENT);
        memory
    }

    #[test]
    fn large_and_small_pages_are_found_and_others_are_not() {
        let memory = mapped();
        let linear = Linear::new(&memory, CR3 | 0xfff);
        assert_eq!(linear.physical(KERNEL + 0x1234), Some(0x20_1234));
        assert_eq!(linear.physical(0x7000_1008), Some(0x5008));
        assert_eq!(linear.physical(0x7000_2000), None);
        assert_eq!(linear.physical(u64::MAX), None);
    }

    #[test]
    fn what_reaches_into_a_page_that_is_not_there_is_neither_read_nor_written() {
        let memory = mapped();
        let linear = Linear::new(&memory, CR3);
        assert!(linear.write(0x7000_1ffe, &[1, 2]));
        assert_eq!(linear.bytes(0x7000_1ffe), Some([1, 2]));
        assert!(!linear.write(0x7000_1fff, &[3, 4]));
        assert_eq!(linear.bytes::<2>(0x7000_1fff), None);
        assert_eq!(linear.bytes(0x7000_1fff), Some([2]));
    }

    #[test]
    fn tables_outside_memory_and_tables_that_are_their_own_map_nothing_more() {
        let memory = memory::allocate(8 << 20).unwrap();
        assert_eq!(Linear::new(&memory, 0x000f_ffff_ffff_f000).physical(0), None);
        memory.write_obj(CR3 | PRESENT, GuestAddress(CR3)).unwrap();
        assert_eq!(Linear::new(&memory, CR3).physical(0), Some(CR3));
    }
}
