//! Interval timer: an 8254 with three channels at 1,193,182 Hz.
//!
//! A counter is not run: it is computed from the guest time at which it was loaded, which comes
//! through the door. Channel 0 interrupts; its expiry is an event, so that the machine never looks
//! at a clock. Channel 2 has its gate and output in a port of their own. Source: Intel 8254 data
//! sheet (231164). Not there: BCD counting, modes 1 and 5.

mod saved;

pub use saved::SavedPit;

/// Input clock of the counters, in Hz.
pub const FREQUENCY_HZ: u64 = 1_193_182;
const NS_PER_SECOND: u128 = 1_000_000_000;
const FULL_COUNT: u64 = 0x1_0000;
const CHANNELS: usize = 3;
/// Registers: a counter of each channel, control, and the port with gate and output of channel 2.
pub const REGISTERS: u64 = 5;
const LAST_COUNTER: u64 = 2;
const CONTROL: u64 = 3;
const GATE_PORT: u64 = 4;
const GATE_2: u8 = 1;
const OUTPUT_2: u8 = 1 << 5;

/// A device access's need for guest time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeedsTime {
    /// Yes: give the guest time.
    Yes,
    /// No.
    No,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Access {
    #[default]
    Low,
    High,
    LowThenHigh,
}

/// One channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Channel {
    mode: u8,
    access: Access,
    /// Reload value; 0x1_0000 for a written 0. 0 while nothing was loaded.
    count: u64,
    loaded_at_ns: u64,
    low_written: Option<u8>,
    latched: Option<u16>,
    low_read: bool,
}

impl Channel {
    fn is_periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    fn control(&mut self, access: u8, mode: u8) {
        let access = match access {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowThenHigh,
        };
        // Modes 6 and 7 are 2 and 3 written differently.
        let mode = if mode >= 6 { mode - 4 } else { mode };
        *self = Self {
            mode,
            access,
            ..Self::default()
        };
    }

    /// Takes a byte; whether that completed a count.
    fn write(&mut self, value: u8, now_ns: u64) {
        let count = match (self.access, self.low_written) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::LowThenHigh, None) => {
                self.low_written = Some(value);
                return;
            }
            (Access::LowThenHigh, Some(low)) => u16::from(value) << 8 | u16::from(low),
        };
        self.low_written = None;
        self.count = if count == 0 { FULL_COUNT } else { u64::from(count) };
        self.loaded_at_ns = now_ns;
    }

    fn completes_count(&self) -> bool {
        self.access != Access::LowThenHigh || self.low_written.is_some()
    }

    fn elapsed_ticks(&self, now_ns: u64) -> u64 {
        let elapsed_ns = u128::from(now_ns.saturating_sub(self.loaded_at_ns));
        (elapsed_ns * u128::from(FREQUENCY_HZ) / NS_PER_SECOND) as u64
    }

    fn counter(&self, now_ns: u64) -> u16 {
        if self.count == 0 {
            return 0;
        }
        let elapsed = self.elapsed_ticks(now_ns);
        let remaining = match self.mode {
            2 => self.count - elapsed % self.count,
            3 => self.count - elapsed * 2 % self.count,
            _ => self.count.wrapping_sub(elapsed),
        };
        remaining as u16
    }

    fn output(&self, now_ns: u64) -> bool {
        if self.count == 0 {
            return self.mode != 0;
        }
        let elapsed = self.elapsed_ticks(now_ns);
        match self.mode {
            2 => elapsed % self.count != self.count - 1,
            3 => elapsed % self.count < self.count.div_ceil(2),
            _ => elapsed >= self.count,
        }
    }

    fn read(&mut self, now_ns: u64) -> u8 {
        let value = self.latched.unwrap_or_else(|| self.counter(now_ns));
        let [low, high] = value.to_le_bytes();
        let take_high = match self.access {
            Access::Low => false,
            Access::High => true,
            Access::LowThenHigh => self.low_read,
        };
        if self.access == Access::LowThenHigh && !self.low_read {
            // The high half must be of the same counter value.
            self.latched = Some(value);
            self.low_read = true;
        } else {
            self.latched = None;
            self.low_read = false;
        }
        if take_high { high } else { low }
    }

    fn period_ns(&self) -> u64 {
        (u128::from(self.count) * NS_PER_SECOND).div_ceil(u128::from(FREQUENCY_HZ)) as u64
    }
}

/// The timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pit {
    channels: [Channel; CHANNELS],
    deadline_ns: Option<u64>,
    port_61: u8,
}

impl Pit {
    /// Guest time at which channel 0 expires next.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.deadline_ns
    }

    /// [`NeedsTime::Yes`] where reading the register at `offset` looks at the time.
    #[must_use]
    pub fn read_needs_time(&self, offset: u64) -> NeedsTime {
        match offset {
            0..=LAST_COUNTER | GATE_PORT => NeedsTime::Yes,
            _ => NeedsTime::No,
        }
    }

    /// [`NeedsTime::Yes`] where writing `value` to it looks at the time.
    #[must_use]
    pub fn write_needs_time(&self, offset: u64, value: u8) -> NeedsTime {
        let needs = match offset {
            0..=LAST_COUNTER => self
                .channels
                .get(offset as usize)
                .is_some_and(Channel::completes_count),
            CONTROL => value >> 4 & 0b11 == 0 || value >> 6 == 0b11,
            _ => false,
        };
        if needs { NeedsTime::Yes } else { NeedsTime::No }
    }

    /// Reads the register at `offset` at guest time `now_ns`.
    pub fn read(&mut self, offset: u64, now_ns: u64) -> u8 {
        match offset {
            0..=LAST_COUNTER => self
                .channels
                .get_mut(offset as usize)
                .map_or(0xff, |channel| channel.read(now_ns)),
            GATE_PORT => {
                let [.., second] = &self.channels;
                self.port_61 | if second.output(now_ns) { OUTPUT_2 } else { 0 }
            }
            _ => 0xff,
        }
    }

    /// Writes it.
    pub fn write(&mut self, offset: u64, value: u8, now_ns: u64) {
        match offset {
            0..=LAST_COUNTER => self.write_count(offset as usize, value, now_ns),
            CONTROL => self.write_control(value, now_ns),
            GATE_PORT => self.port_61 = value & 0b11,
            _ => {}
        }
        if offset == GATE_PORT && value & GATE_2 == 0 {
            let [.., second] = &mut self.channels;
            second.count = 0;
        }
    }

    fn write_count(&mut self, number: usize, value: u8, now_ns: u64) {
        let Some(channel) = self.channels.get_mut(number) else {
            return;
        };
        let completes = channel.completes_count();
        channel.write(value, now_ns);
        if number == 0 {
            // A log may claim any time: the end of time is the last deadline.
            self.deadline_ns = completes.then(|| now_ns.saturating_add(channel.period_ns()));
        }
    }

    fn write_control(&mut self, value: u8, now_ns: u64) {
        let select = value >> 6;
        if select == 0b11 {
            let wanted = |number: usize| value & 1 << 5 == 0 && value & 2 << number != 0;
            for (number, channel) in self.channels.iter_mut().enumerate() {
                if wanted(number) {
                    channel.latched.get_or_insert(channel.counter(now_ns));
                }
            }
            return;
        }
        let Some(channel) = self.channels.get_mut(usize::from(select)) else {
            return;
        };
        match value >> 4 & 0b11 {
            0 => {
                channel.latched.get_or_insert(channel.counter(now_ns));
            }
            access => {
                channel.control(access, value >> 1 & 0b111);
                if select == 0 {
                    self.deadline_ns = None;
                }
            }
        }
    }

    /// Channel 0 expired, seen at guest time `now_ns`: whether that interrupts. Missed periods are
    /// skipped.
    pub fn expire(&mut self, now_ns: u64) -> bool {
        let Some(deadline_ns) = self.deadline_ns else {
            return false;
        };
        let [first, ..] = &self.channels;
        self.deadline_ns = first.is_periodic().then(|| {
            let period_ns = first.period_ns().max(1);
            let missed = now_ns.saturating_sub(deadline_ns) / period_ns;
            // `missed` periods lie before `now_ns`, so their product fits.
            deadline_ns
                .saturating_add(missed * period_ns)
                .saturating_add(period_ns)
        });
        true
    }
}

#[cfg(test)]
mod tests;
