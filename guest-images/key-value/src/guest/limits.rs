//! How the heap is divided.
//!
//! Keys and values get three eighths, the buffers of connections at most two, requests and replies
//! on their way what is left of six. The last two eighths are for what one command may need beyond:
//! with the smallest heap in use, 60 MiB, they are 15 MiB, and a request of 2 MiB grows to some 12
//! MiB of list.

use super::Options;
use super::connection;
use crate::Limits;
use core::fmt;
use lockstep_guest_runtime::memory;

/// More clients than this share one processor badly.
const CLIENTS_MAX: usize = 1000;

/// The division of this machine's heap.
#[derive(Clone, Copy)]
pub struct Division {
    /// For the database.
    pub database: Limits,
    /// Above this, a client that needs more still loses its connection.
    allocated_bytes_max: usize,
}

impl Division {
    /// The division of the heap there is; `options` may ask for less, or for clients to pay for
    /// keys. `taken_bytes` of the heap are in use for something else for ever.
    pub fn of_heap(options: &Options, taken_bytes: usize) -> Self {
        let eighth = memory::heap_bytes().saturating_sub(taken_bytes) / 8;
        let fitting = 2 * eighth / connection::COST_BYTES;
        let clients_max = options.clients_max.unwrap_or(CLIENTS_MAX).min(fitting).max(1);
        let memory_bytes_max = options.memory_bytes_max.unwrap_or(usize::MAX).min(3 * eighth);
        Self {
            database: Limits {
                memory_bytes_max,
                clients_max,
            },
            allocated_bytes_max: taken_bytes + 6 * eighth,
        }
    }

    /// True if so much is in use that no client gets more.
    pub fn is_used_up(&self) -> bool {
        memory::allocated_bytes() > self.allocated_bytes_max
    }
}

impl fmt::Display for Division {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits {
            memory_bytes_max,
            clients_max,
        } = self.database;
        write!(
            formatter,
            "up to {clients_max} clients and {} KiB of keys and values",
            memory_bytes_max >> 10
        )
    }
}
