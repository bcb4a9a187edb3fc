//! The heap, and the memory functions the compiler expects.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use talc::TalcCell;
use talc::source::Manual;

core::arch::global_asm!(include_str!("memory.s"));

struct Heap(TalcCell<Manual>);

// SAFETY: a guest has one processor and one thread, and no interrupt handler allocates.
unsafe impl Sync for Heap {}

// SAFETY: hands everything on to an allocator.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised to this function.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised to this function.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as promised to this function.
        unsafe { self.0.realloc(pointer, layout, bytes) }
    }
}

#[cfg_attr(not(test), global_allocator)]
static HEAP: Heap = Heap(TalcCell::new(Manual));

unsafe extern "C" {
    static image_end: u8;
}

/// Takes everything from the end of the image to the end of memory as the heap.
pub(crate) fn claim_heap(memory_bytes: u64) {
    let start = (&raw const image_end).addr();
    let bytes = (memory_bytes as usize).saturating_sub(start);
    // SAFETY: RAM that nothing else uses. Too little of it leaves no heap, which the first allocation says.
    unsafe { HEAP.0.claim(start as *mut u8, bytes) };
}

/// Bytes the program has allocated.
#[must_use]
pub fn allocated_bytes() -> usize {
    HEAP.0.counters().allocated_bytes
}

/// Bytes of the whole heap.
#[must_use]
pub fn heap_bytes() -> usize {
    HEAP.0.counters().claimed_bytes
}
