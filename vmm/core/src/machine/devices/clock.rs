//! Clock and entropy ports, and the clock page (docs/guest-interface.md).

use super::saved::Impossible;
use crate::machine::memory::PAGE_BYTES;
use serde::{Deserialize, Serialize};

/// Asks for monotonic time and gives its low half.
pub const MONOTONIC_PORT: u16 = 0x508;
/// The high half of the same answer.
pub const MONOTONIC_HIGH_PORT: u16 = MONOTONIC_PORT + 4;
/// The same for wall time.
pub const WALL_PORT: u16 = 0x510;
/// The high half of the same answer.
pub const WALL_HIGH_PORT: u16 = WALL_PORT + 4;
/// Address of the clock page.
pub const PAGE_PORT: u16 = 0x518;
/// Four random bytes.
pub const RANDOM_PORT: u16 = 0x520;

/// The clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    answered_ns: u64,
    page_address: Option<u64>,
    last_event_ns: u64,
}

/// State of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedClock {
    answered_ns: u64,
    page_address: Option<u64>,
    last_event_ns: u64,
}

impl Clock {
    /// Takes an answer of monotonic or wall time: its low half.
    pub fn answer(&mut self, time_ns: u64) -> u32 {
        self.answered_ns = time_ns;
        time_ns as u32
    }

    /// High half of the last answer.
    #[must_use]
    pub fn high_half(&self) -> u32 {
        (self.answered_ns >> 32) as u32
    }

    /// Sets the clock page: a page-aligned address, or 0 for none.
    pub fn set_page(&mut self, address: u32) {
        let address = u64::from(address) & !0xfff;
        self.page_address = (address != 0).then_some(address);
    }

    /// An event entered at `monotonic_ns`: where its time is to be written.
    pub fn event(&mut self, monotonic_ns: u64) -> Option<u64> {
        self.last_event_ns = monotonic_ns;
        self.page_address
    }

    /// The state as a value.
    #[must_use]
    pub fn saved(&self) -> SavedClock {
        let Self {
            answered_ns,
            page_address,
            last_event_ns,
        } = *self;
        SavedClock {
            answered_ns,
            page_address,
            last_event_ns,
        }
    }

    /// The clock in a saved state.
    ///
    /// # Errors
    /// [`Impossible`] for a value that it never has.
    pub fn restore(saved: SavedClock) -> Result<Self, Impossible> {
        let SavedClock {
            answered_ns,
            page_address,
            last_event_ns,
        } = saved;
        let page = page_address.unwrap_or(PAGE_BYTES);
        let possible = page != 0 && page % PAGE_BYTES == 0 && u32::try_from(page).is_ok();
        Impossible::unless(possible, "the address of its page", page)?;
        Ok(Self {
            answered_ns,
            page_address,
            last_event_ns,
        })
    }
}
