//! Real-time clock and CMOS memory: an MC146818 at the ports of a PC.
//!
//! The clock does not run: it shows the wall time that came through the door when status register A
//! was last read. Drivers read that register around the time itself, so the fields of one reading
//! belong together, and the update bit is never set. Source: Motorola MC146818A data sheet; the
//! century at 0x32 is where the ACPI tables say it is.
//!
//! Not there: interrupts (alarm, periodic, update ended), and memory that keeps anything. The time
//! is the host's: what a guest sets is dropped.

use super::saved::Impossible;
use crate::machine::door::{Ask, DoorError, asking};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Registers: index and data.
pub const REGISTERS: u64 = 2;
/// Index of the century, in the memory of the clock.
pub const CENTURY: u8 = 0x32;

const INDEX: u64 = 0;
const DATA: u64 = 1;
/// The bit of the index port above them masks NMIs, of which there are none.
const INDEX_BITS: u8 = 0x7f;

const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const WEEKDAY: u8 = 6;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const STATUS_A: u8 = 0xa;
const STATUS_B: u8 = 0xb;
const STATUS_D: u8 = 0xd;

/// A divider for 32,768 Hz and the default rate.
const DIVIDER_AND_RATE: u8 = 0x26;
/// 24 hours; binary-coded decimals; no interrupt.
const HOURS_24: u8 = 0x02;
/// The battery is good.
const VALID: u8 = 0x80;

const NS_PER_SECOND: u64 = 1_000_000_000;
/// Seconds that wall time reaches: 64 bits of nanoseconds.
const SECONDS_MAX: u64 = u64::MAX / NS_PER_SECOND;

/// The clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cmos {
    index: u8,
    /// The time shown, in seconds since 1970.
    shown_s: u64,
}

/// State of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCmos {
    index: u8,
    shown_s: u64,
}

impl Cmos {
    /// Reads the register at `offset`.
    ///
    /// # Errors
    /// The door's.
    pub fn read(&mut self, offset: u64, ask: Ask<'_>) -> Result<u8, DoorError> {
        match (offset, self.index) {
            (DATA, STATUS_A) => {
                self.shown_s = asking::wall(ask)? / NS_PER_SECOND;
                Ok(DIVIDER_AND_RATE)
            }
            (DATA, index) => Ok(self.byte(index)),
            _ => Ok(u8::MAX),
        }
    }

    /// Writes it.
    pub fn write(&mut self, offset: u64, value: u8) {
        if offset == INDEX {
            self.index = value & INDEX_BITS;
        }
    }

    fn byte(&self, index: u8) -> u8 {
        match index {
            STATUS_B => HOURS_24,
            STATUS_D => VALID,
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => self.field(index),
            _ => 0,
        }
    }

    fn field(&self, index: u8) -> u8 {
        // Every time that can be shown is one of the calendar's.
        let time = OffsetDateTime::from_unix_timestamp(self.shown_s as i64);
        let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let year = time.year().unsigned_abs();
        decimal(match index {
            SECONDS => time.second(),
            MINUTES => time.minute(),
            HOURS => time.hour(),
            WEEKDAY => time.weekday().number_from_sunday(),
            DAY => time.day(),
            MONTH => time.month().into(),
            YEAR => (year % 100) as u8,
            _ => (year / 100) as u8,
        })
    }

    /// The state as a value.
    #[must_use]
    pub fn saved(&self) -> SavedCmos {
        let Self { index, shown_s } = *self;
        SavedCmos { index, shown_s }
    }

    /// The clock in a saved state.
    ///
    /// # Errors
    /// [`Impossible`] for a value that it never has.
    pub fn restore(saved: SavedCmos) -> Result<Self, Impossible> {
        let SavedCmos { index, shown_s } = saved;
        Impossible::unless(index <= INDEX_BITS, "its index", index)?;
        Impossible::unless(shown_s <= SECONDS_MAX, "the time shown", shown_s)?;
        Ok(Self { index, shown_s })
    }
}

/// Two decimal digits, four bits each.
fn decimal(value: u8) -> u8 {
    16 * (value / 10) + value % 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::door::Question;
    use lockstep_logging_channel::Value;

    /// 2026-11-28 18:20:59 UTC, a Saturday.
    const NOW_S: u64 = 1_795_890_059;

    /// A clock outside that goes on by `step_s` with each question.
    struct Wall {
        now_s: u64,
        step_s: u64,
        asked: u64,
    }

    impl Wall {
        fn new(now_s: u64, step_s: u64) -> Self {
            Self {
                now_s,
                step_s,
                asked: 0,
            }
        }

        fn read(&mut self, cmos: &mut Cmos, index: u8) -> u8 {
            cmos.write(INDEX, index);
            let mut ask = |question| {
                assert_eq!(question, Question::Wall);
                let time_ns = self.now_s * NS_PER_SECOND + 999_999_999;
                self.now_s += self.step_s;
                self.asked += 1;
                Ok(Value::Wall(time_ns))
            };
            cmos.read(DATA, &mut ask).unwrap()
        }

        /// Does as Linux's `mc146818_avoid_UIP`, and gives the attempts that it took.
        fn read_as_linux(&mut self, cmos: &mut Cmos) -> ([u8; 7], u32) {
            const FIELDS: [u8; 7] = [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, CENTURY];
            const UPDATING: u8 = 0x80;
            for attempt in 1..=10 {
                let seconds = self.read(cmos, SECONDS);
                if self.read(cmos, STATUS_A) & UPDATING != 0 || seconds != self.read(cmos, SECONDS) {
                    continue;
                }
                let fields = FIELDS.map(|field| self.read(cmos, field));
                if self.read(cmos, STATUS_A) & UPDATING == 0 && seconds == self.read(cmos, SECONDS) {
                    return (fields, attempt);
                }
            }
            panic!("the clock does not work");
        }
    }

    #[test]
    fn linux_reads_the_time() {
        let (mut cmos, mut wall) = (Cmos::default(), Wall::new(NOW_S, 0));
        let (fields, attempts) = wall.read_as_linux(&mut cmos);
        assert_eq!(fields, [0x59, 0x20, 0x18, 0x28, 0x11, 0x26, 0x20]);
        assert_eq!(attempts, 2, "the first finds the time of an earlier reading");
        assert_eq!(wall.read(&mut cmos, WEEKDAY), 7);
    }

    #[test]
    fn the_fields_are_of_one_time_until_status_a_is_read() {
        let (mut cmos, mut wall) = (Cmos::default(), Wall::new(NOW_S, 1));
        assert_eq!(wall.read(&mut cmos, STATUS_A), DIVIDER_AND_RATE);
        let read = [SECONDS, MINUTES, SECONDS, MINUTES].map(|field| wall.read(&mut cmos, field));
        assert_eq!(read, [0x59, 0x20, 0x59, 0x20]);
        assert_eq!(wall.asked, 1);
        wall.read(&mut cmos, STATUS_A);
        assert_eq!(
            [SECONDS, MINUTES].map(|field| wall.read(&mut cmos, field)),
            [0x00, 0x21]
        );
    }

    /// `rtc_cmos` refuses a clock with other bits: 12 hours, or bit 6 of status D.
    #[test]
    fn the_status_is_that_of_a_clock_that_works() {
        let (mut cmos, mut wall) = (Cmos::default(), Wall::new(NOW_S, 0));
        let status = [STATUS_A, STATUS_B, 0xc, STATUS_D].map(|index| wall.read(&mut cmos, index));
        assert_eq!(status, [0x26, 0x02, 0x00, 0x80]);
        cmos.write(INDEX, STATUS_B);
        cmos.write(DATA, 0x72);
        assert_eq!(
            wall.read(&mut cmos, STATUS_B),
            0x02,
            "no interrupt can be enabled"
        );
    }

    #[test]
    fn memory_is_zeros_whatever_is_written() {
        let (mut cmos, mut wall) = (Cmos::default(), Wall::new(NOW_S, 0));
        for index in (0xe..=INDEX_BITS).filter(|index| *index != CENTURY) {
            cmos.write(INDEX, index | 0x80);
            cmos.write(DATA, 0xa5);
            assert_eq!(wall.read(&mut cmos, index), 0, "{index:#x}");
        }
        assert_eq!(wall.asked, 0);
    }

    #[test]
    fn the_last_second_of_wall_time_is_shown() {
        let mut cmos = Cmos::default();
        cmos.write(INDEX, STATUS_A);
        cmos.read(DATA, &mut |_| Ok(Value::Wall(u64::MAX))).unwrap();
        assert_eq!([YEAR, CENTURY].map(|index| cmos.byte(index)), [0x54, 0x25]);
        assert_eq!(Cmos::restore(cmos.saved()), Ok(cmos));
    }

    #[test]
    fn a_state_that_it_never_has_is_refused() {
        let refused = |index, shown_s| Cmos::restore(SavedCmos { index, shown_s }).unwrap_err().field;
        assert_eq!(refused(0x80, 0), "its index");
        assert_eq!(refused(0, SECONDS_MAX + 1), "the time shown");
    }
}
