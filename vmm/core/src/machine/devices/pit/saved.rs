//! The saved form of the interval timer.

use super::{Access, CHANNELS, Channel, FULL_COUNT, Pit};
use crate::machine::devices::saved::Impossible;
use serde::{Deserialize, Serialize};

/// The highest mode: 6 and 7 are 2 and 3 written differently.
const MODE_MAX: u8 = 5;
/// Bits of port 0x61 that are kept.
const PORT_61_BITS: u8 = 0b11;

/// State of the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPit {
    channels: [SavedChannel; CHANNELS],
    deadline_ns: Option<u64>,
    port_61: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedChannel {
    mode: u8,
    access: SavedAccess,
    count: u64,
    loaded_at_ns: u64,
    low_written: Option<u8>,
    latched: Option<u16>,
    low_read: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SavedAccess {
    Low,
    High,
    LowThenHigh,
}

impl Pit {
    /// The state as a value.
    #[must_use]
    pub fn saved(&self) -> SavedPit {
        let Self {
            channels,
            deadline_ns,
            port_61,
        } = *self;
        SavedPit {
            channels: channels.map(|channel| channel.saved()),
            deadline_ns,
            port_61,
        }
    }

    /// The timer in a saved state.
    ///
    /// # Errors
    /// [`Impossible`] for a value that it never has.
    pub fn restore(saved: SavedPit) -> Result<Self, Impossible> {
        let SavedPit {
            channels,
            deadline_ns,
            port_61,
        } = saved;
        let [first, second, third] = channels;
        Impossible::unless(port_61 & !PORT_61_BITS == 0, "port 0x61", port_61)?;
        Ok(Self {
            channels: [
                Channel::restore(first)?,
                Channel::restore(second)?,
                Channel::restore(third)?,
            ],
            deadline_ns,
            port_61,
        })
    }
}

impl Channel {
    fn saved(&self) -> SavedChannel {
        let Self {
            mode,
            access,
            count,
            loaded_at_ns,
            low_written,
            latched,
            low_read,
        } = *self;
        let access = match access {
            Access::Low => SavedAccess::Low,
            Access::High => SavedAccess::High,
            Access::LowThenHigh => SavedAccess::LowThenHigh,
        };
        SavedChannel {
            mode,
            access,
            count,
            loaded_at_ns,
            low_written,
            latched,
            low_read,
        }
    }

    fn restore(saved: SavedChannel) -> Result<Self, Impossible> {
        let SavedChannel {
            mode,
            access,
            count,
            loaded_at_ns,
            low_written,
            latched,
            low_read,
        } = saved;
        Impossible::unless(mode <= MODE_MAX, "the mode of a channel", mode)?;
        Impossible::unless(count <= FULL_COUNT, "the count of a channel", count)?;
        let access = match access {
            SavedAccess::Low => Access::Low,
            SavedAccess::High => Access::High,
            SavedAccess::LowThenHigh => Access::LowThenHigh,
        };
        Ok(Self {
            mode,
            access,
            count,
            loaded_at_ns,
            low_written,
            latched,
            low_read,
        })
    }
}
