//! Work of this host's processors beside a test.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Memory that is written over and over: more than a processor's own caches hold.
const WRITTEN_BYTES: usize = 64 << 20;
const PAGE_BYTES: usize = 4096;

/// Kind of work beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// None.
    Nothing,
    /// A thread that computes.
    Computing,
    /// A thread that writes memory, a page after the other.
    Writing,
}

impl Beside {
    /// Begins the work, which ends with what it gives.
    #[must_use]
    pub fn start(self) -> Busy {
        let ends = Arc::new(AtomicBool::new(false));
        let works = {
            let ends = ends.clone();
            move || !ends.load(Ordering::Relaxed)
        };
        let thread = match self {
            Self::Nothing => None,
            Self::Computing => Some(thread::spawn(move || {
                let mut sum = 0_u64;
                while works() {
                    sum = black_box(sum.wrapping_mul(3).wrapping_add(1));
                }
            })),
            Self::Writing => Some(thread::spawn(move || {
                let mut bytes = vec![0_u8; WRITTEN_BYTES];
                while works() {
                    for page in bytes.chunks_mut(PAGE_BYTES) {
                        page[0] = black_box(page[0].wrapping_add(1));
                    }
                }
            })),
        };
        Busy { ends, thread }
    }
}

/// Work that ends when this is dropped.
#[derive(Debug)]
pub struct Busy {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
