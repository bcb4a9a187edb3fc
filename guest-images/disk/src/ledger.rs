//! Expected content of every sector.

use crate::content;
use crate::plan::{Operation, Step};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use lockstep_guest_runtime::requests::SECTOR_BYTES;

/// Content of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Zeros.
    Zeros,
    /// Content that this request wrote.
    Of(u64),
    /// Something that no request wrote there.
    Nonsense,
}

impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeros => formatter.write_str("zeros"),
            Self::Of(number) => write!(formatter, "what request {number} wrote"),
            Self::Nonsense => formatter.write_str("what no request wrote"),
        }
    }
}

/// A sector that does not hold what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which one, counted from the beginning of the area.
    pub sector: u64,
    /// Expected content.
    pub expected: Held,
    /// Content that was found.
    pub found: Held,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sector,
            expected,
            found,
        } = self;
        write!(
            formatter,
            "sector {sector} of the area has {found}, not {expected}"
        )
    }
}

/// What every sector of the area must hold: 0 for zeros, or the number of the request that wrote
/// it, plus 1.
#[derive(Clone, Debug)]
pub struct Ledger {
    seed: u64,
    sectors: Vec<u64>,
}

impl Ledger {
    /// Zeros everywhere.
    pub fn new(seed: u64, sectors: u64) -> Self {
        Self {
            seed,
            sectors: vec![0; sectors as usize],
        }
    }

    /// Takes note of request `number`.
    pub fn apply(&mut self, number: u64, step: &Step) {
        let mark = match step.operation {
            Operation::Read | Operation::Flush => return,
            Operation::Write => number + 1,
            Operation::Discard | Operation::WriteZeroes => 0,
        };
        let range = step.sectors.start as usize..step.sectors.end as usize;
        self.sectors.get_mut(range).unwrap_or_default().fill(mark);
    }

    /// Expected content of some sectors, as of now.
    pub fn marks(&self, from: u64, count: u64) -> &[u64] {
        let range = from as usize..(from + count) as usize;
        self.sectors.get(range).unwrap_or_default()
    }

    /// Takes note of what a sector was found to hold.
    pub fn found(&mut self, sector: u64, held: Held) {
        if let Some(mark) = self.sectors.get_mut(sector as usize) {
            *mark = match held {
                Held::Of(number) => number + 1,
                Held::Zeros | Held::Nonsense => 0,
            };
        }
    }

    /// What the sectors in `bytes`, from sector `from` on, hold, beside what they must.
    pub fn compared<'b>(
        &self,
        from: u64,
        marks: &'b [u64],
        bytes: &'b [u8],
    ) -> impl Iterator<Item = Difference> + use<'b> {
        let seed = self.seed;
        let sectors = bytes.chunks_exact(SECTOR_BYTES).zip(marks);
        sectors
            .zip(from..)
            .map(move |((bytes, mark), sector)| Difference {
                sector,
                expected: mark.checked_sub(1).map_or(Held::Zeros, Held::Of),
                found: match content::writer(seed, sector, bytes) {
                    Ok(None) => Held::Zeros,
                    Ok(Some(number)) => Held::Of(number),
                    Err(()) => Held::Nonsense,
                },
            })
    }
}
