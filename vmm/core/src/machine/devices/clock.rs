//! Clock and entropy registers, and the clock page (docs/guest-interface.md).

use super::saved::Impossible;
use crate::machine::door::{Ask, DoorError, asking};
use crate::machine::memory::PAGE_BYTES;
use serde::{Deserialize, Serialize};

/// Bytes of registers, each of which has four.
pub const REGISTERS: u64 = RANDOM + 4;
/// Asks for monotonic time and gives its low half.
const MONOTONIC: u64 = 0;
/// The high half of the same answer.
const MONOTONIC_HIGH: u64 = MONOTONIC + 4;
/// The same for wall time.
const WALL: u64 = 8;
/// The high half of the same answer.
const WALL_HIGH: u64 = WALL + 4;
/// Address of the clock page.
const PAGE: u64 = 16;
/// Four random bytes.
const RANDOM: u64 = 24;
const RANDOM_BYTES: u32 = 4;

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
    /// Reads the register at `offset`.
    ///
    /// # Errors
    /// The door's.
    pub fn read(&mut self, offset: u64, ask: Ask<'_>) -> Result<u32, DoorError> {
        Ok(match offset {
            MONOTONIC => self.answer(asking::monotonic(ask)?),
            WALL => self.answer(asking::wall(ask)?),
            MONOTONIC_HIGH | WALL_HIGH => (self.answered_ns >> 32) as u32,
            RANDOM => random_of(&asking::random(ask, RANDOM_BYTES)?),
            _ => u32::MAX,
        })
    }

    /// Writes it.
    pub fn write(&mut self, offset: u64, value: u32) {
        if offset == PAGE {
            self.set_page(value);
        }
    }

    /// Takes an answer of monotonic or wall time: its low half.
    fn answer(&mut self, time_ns: u64) -> u32 {
        self.answered_ns = time_ns;
        time_ns as u32
    }

    /// Sets the clock page: a page-aligned address, or 0 for none.
    fn set_page(&mut self, address: u32) {
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

fn random_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
