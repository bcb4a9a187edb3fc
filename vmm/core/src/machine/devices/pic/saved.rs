//! The saved form of the interrupt controller.

use super::{Chip, Initialisation, LINES_PER_CHIP, Pic};
use crate::machine::devices::saved::Impossible;
use serde::{Deserialize, Serialize};

/// State of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPic {
    first: SavedChip,
    second: SavedChip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedChip {
    request: u8,
    in_service: u8,
    mask: u8,
    line_levels: u8,
    level_triggered: u8,
    vector_base: u8,
    lowest_priority: u8,
    initialisation: SavedInitialisation,
    needs_mode: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_mask: bool,
    read_in_service: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum SavedInitialisation {
    Done,
    Vector,
    Cascade,
    Mode,
}

impl Pic {
    /// The state as a value.
    #[must_use]
    pub fn saved(&self) -> SavedPic {
        let Self { first, second } = self;
        SavedPic {
            first: first.saved(),
            second: second.saved(),
        }
    }

    /// The controller in a saved state.
    ///
    /// # Errors
    /// [`Impossible`] for a value that it never has.
    pub fn restore(saved: SavedPic) -> Result<Self, Impossible> {
        let SavedPic { first, second } = saved;
        Ok(Self {
            first: Chip::restore(first)?,
            second: Chip::restore(second)?,
        })
    }
}

impl Chip {
    fn saved(&self) -> SavedChip {
        let Self {
            request,
            in_service,
            mask,
            line_levels,
            level_triggered,
            vector_base,
            lowest_priority,
            initialisation,
            needs_mode,
            single,
            auto_eoi,
            rotate_on_auto_eoi,
            special_mask,
            read_in_service,
        } = *self;
        let initialisation = match initialisation {
            Initialisation::Done => SavedInitialisation::Done,
            Initialisation::Vector => SavedInitialisation::Vector,
            Initialisation::Cascade => SavedInitialisation::Cascade,
            Initialisation::Mode => SavedInitialisation::Mode,
        };
        SavedChip {
            request,
            in_service,
            mask,
            line_levels,
            level_triggered,
            vector_base,
            lowest_priority,
            initialisation,
            needs_mode,
            single,
            auto_eoi,
            rotate_on_auto_eoi,
            special_mask,
            read_in_service,
        }
    }

    fn restore(saved: SavedChip) -> Result<Self, Impossible> {
        let SavedChip {
            request,
            in_service,
            mask,
            line_levels,
            level_triggered,
            vector_base,
            lowest_priority,
            initialisation,
            needs_mode,
            single,
            auto_eoi,
            rotate_on_auto_eoi,
            special_mask,
            read_in_service,
        } = saved;
        let low_bits = LINES_PER_CHIP - 1;
        Impossible::unless(vector_base & low_bits == 0, "its first vector", vector_base)?;
        Impossible::unless(
            lowest_priority <= low_bits,
            "its lowest priority",
            lowest_priority,
        )?;
        let initialisation = match initialisation {
            SavedInitialisation::Done => Initialisation::Done,
            SavedInitialisation::Vector => Initialisation::Vector,
            SavedInitialisation::Cascade => Initialisation::Cascade,
            SavedInitialisation::Mode => Initialisation::Mode,
        };
        Ok(Self {
            request,
            in_service,
            mask,
            line_levels,
            level_triggered,
            vector_base,
            lowest_priority,
            initialisation,
            needs_mode,
            single,
            auto_eoi,
            rotate_on_auto_eoi,
            special_mask,
            read_in_service,
        })
    }
}
