//! Power management as ACPI finds it: event and control registers, the timer, and reset.
//!
//! Source: ACPI 6.4, section 4.8.3 (fixed hardware registers). The machine is always in ACPI mode:
//! no SMI command switches it. No event is ever pending: buttons are not there, and the carry of
//! the timer is not reported. The timer is not run: it is computed from the guest time at which it
//! is read, which comes through the door.

use super::effect::Effect;
use super::saved::Impossible;
use crate::machine::door::{Ask, DoorError, asking};
use serde::{Deserialize, Serialize};

/// Registers, an address each: events, control, two that are not there, the timer, and reset.
pub const REGISTERS: u64 = 13;
/// Event status and enable, two bytes each.
pub const EVENTS: u64 = 0;
/// Bytes of them.
pub const EVENTS_BYTES: u8 = 4;
/// Control.
pub const CONTROL: u64 = 4;
/// Bytes of it.
pub const CONTROL_BYTES: u8 = 2;
/// The timer.
pub const TIMER: u64 = 8;
/// Bytes of it.
pub const TIMER_BYTES: u8 = 4;
/// Reset.
pub const RESET: u64 = 12;

/// Rate of the timer, in Hz.
pub const TIMER_HZ: u64 = 3_579_545;
const TIMER_BITS: u64 = 0x00ff_ffff;
const NS_PER_SECOND: u128 = 1_000_000_000;
const WORD_BYTES: u64 = 4;

const EVENTS_ENABLE: u64 = EVENTS + 2;
/// Timer, global lock, power button, sleep button, clock.
const ENABLE_BITS: u16 = 1 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 10;

/// ACPI mode.
const SCI_ENABLE: u16 = 1;
const BUS_MASTER_RELOAD: u16 = 1 << 1;
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_TYPE_BITS: u16 = 0b111;
const SLEEP_ENABLE: u16 = 1 << 13;
/// Bits of the control register that are kept.
const CONTROL_BITS: u16 = BUS_MASTER_RELOAD | SLEEP_TYPE_BITS << SLEEP_TYPE_SHIFT;
/// Sleep type of the state in which the power is off.
pub const SLEEP_TYPE_OFF: u8 = 5;

/// Value that resets the machine: the processor, and everything.
pub const RESET_VALUE: u8 = 0b110;
/// The bit of it that starts the reset.
const RESET_PROCESSOR: u8 = 1 << 2;

/// The registers that keep something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Power {
    enabled: u16,
    control: u16,
}

/// State of the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPower {
    enabled: u16,
    control: u16,
}

impl Power {
    /// Reads what begins at `offset`.
    ///
    /// # Errors
    /// The door's.
    pub fn read(&self, offset: u64, ask: Ask<'_>) -> Result<u32, DoorError> {
        let word = match offset / WORD_BYTES * WORD_BYTES {
            EVENTS => u32::from(self.enabled) << 16,
            CONTROL => u32::from(SCI_ENABLE | self.control),
            TIMER => ticks(asking::monotonic(ask)?),
            _ => 0,
        };
        Ok(word >> (8 * (offset % WORD_BYTES)))
    }

    /// Writes a register as a whole. Gives what the guest wants done by it.
    pub fn write(&mut self, offset: u64, value: u32) -> Option<Effect> {
        match offset {
            EVENTS_ENABLE => self.enabled = value as u16 & ENABLE_BITS,
            CONTROL => return self.write_control(value as u16),
            RESET => return (value as u8 & RESET_PROCESSOR != 0).then_some(Effect::Reset),
            _ => {}
        }
        None
    }

    fn write_control(&mut self, value: u16) -> Option<Effect> {
        self.control = value & CONTROL_BITS;
        let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_BITS;
        let off = value & SLEEP_ENABLE != 0 && sleep_type == u16::from(SLEEP_TYPE_OFF);
        off.then_some(Effect::PowerOff(0))
    }

    /// The state as a value.
    #[must_use]
    pub fn saved(&self) -> SavedPower {
        let Self { enabled, control } = *self;
        SavedPower { enabled, control }
    }

    /// The registers in a saved state.
    ///
    /// # Errors
    /// [`Impossible`] for a value that they never have.
    pub fn restore(saved: SavedPower) -> Result<Self, Impossible> {
        let SavedPower { enabled, control } = saved;
        Impossible::unless(enabled & !ENABLE_BITS == 0, "its enabled events", enabled)?;
        Impossible::unless(control & !CONTROL_BITS == 0, "its control register", control)?;
        Ok(Self { enabled, control })
    }
}

/// The timer at guest time `now_ns`.
fn ticks(now_ns: u64) -> u32 {
    let ticks = u128::from(now_ns) * u128::from(TIMER_HZ) / NS_PER_SECOND;
    (ticks as u64 & TIMER_BITS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::Value;

    fn read(power: &Power, offset: u64) -> u32 {
        let silent = &mut |question| panic!("{question:?} was asked");
        power.read(offset, silent).unwrap()
    }

    fn timer_at(now_ns: u64) -> u32 {
        let mut ask = |_| Ok(Value::Monotonic(now_ns));
        Power::default().read(TIMER, &mut ask).unwrap()
    }

    #[test]
    fn the_timer_counts_at_its_rate_and_wraps_at_24_bits() {
        assert_eq!(timer_at(0), 0);
        assert_eq!(timer_at(1_000_000_000), TIMER_HZ as u32);
        let wraps_ns = (1_u64 << 24) * 1_000_000_000 / TIMER_HZ;
        assert_eq!([timer_at(wraps_ns), timer_at(wraps_ns + 1_000)], [0x00ff_ffff, 3]);
        assert!(timer_at(u64::MAX) <= 0x00ff_ffff);
    }

    /// Does as ACPICA: the type alone, then the type with the bit that begins the sleep.
    #[test]
    fn the_off_state_turns_the_power_off_and_no_other() {
        let mut power = Power::default();
        let control = |kind: u32| read(&Power::default(), CONTROL) & !(0b1111 << 10) | kind << 10;
        assert_eq!(power.write(CONTROL, control(5)), None);
        assert_eq!(read(&power, CONTROL), 5 << 10 | 1);
        for kind in [0, 1, 3, 4, 7] {
            assert_eq!(power.write(CONTROL, control(kind) | 1 << 13), None);
        }
        assert_eq!(
            power.write(CONTROL, control(5) | 1 << 13),
            Some(Effect::PowerOff(0))
        );
        assert_eq!(read(&power, CONTROL) & 1 << 13, 0, "the bit reads as 0");
    }

    #[test]
    fn acpi_mode_cannot_be_left_and_no_event_is_pending() {
        let mut power = Power::default();
        power.write(CONTROL, 0);
        assert_eq!(read(&power, CONTROL), 1);
        power.write(EVENTS, 0xffff);
        assert_eq!(read(&power, EVENTS) & 0xffff, 0);
    }

    /// ACPICA enables the event of the global lock and reads it back.
    #[test]
    fn an_enabled_event_is_read_back() {
        let mut power = Power::default();
        power.write(EVENTS_ENABLE, 1 << 5);
        assert_eq!(
            [read(&power, EVENTS_ENABLE), read(&power, EVENTS)],
            [1 << 5, 1 << 21]
        );
        power.write(EVENTS_ENABLE, 0xffff);
        assert_eq!(read(&power, EVENTS_ENABLE), u32::from(ENABLE_BITS));
        assert_eq!(Power::restore(power.saved()), Ok(power));
    }

    #[test]
    fn the_reset_value_resets_and_what_comes_before_it_does_not() {
        let mut power = Power::default();
        assert_eq!(read(&power, RESET), 0);
        assert_eq!(power.write(RESET, 2), None);
        assert_eq!(power.write(RESET, RESET_VALUE.into()), Some(Effect::Reset));
    }

    #[test]
    fn a_state_that_it_never_has_is_refused() {
        let refused = |enabled, control| Power::restore(SavedPower { enabled, control }).unwrap_err();
        assert_eq!(refused(1 << 1, 0).field, "its enabled events");
        assert_eq!(refused(0, SCI_ENABLE).field, "its control register");
    }
}
