//! Interrupt controller: a pair of 8259A, the second on line 2 of the first.
//!
//! Source: Intel 8259A data sheet (231468); edge/level control registers as on PIIX. Not there:
//! poll mode and special fully nested mode, which no 64-bit guest uses.

mod saved;

pub use saved::SavedPic;

/// Registers: command and data of each chip, then its edge/level control.
pub const REGISTERS: u64 = 6;
const FIRST_COMMAND: u64 = 0;
const FIRST_DATA: u64 = 1;
const SECOND_COMMAND: u64 = 2;
const SECOND_DATA: u64 = 3;
const FIRST_LEVELS: u64 = 4;
const SECOND_LEVELS: u64 = 5;

/// Interrupt lines of the pair.
pub const LINES: u8 = 16;
/// The line of the first chip on which the second is: no device's.
pub const CASCADE_LINE: u8 = 2;
const LINES_PER_CHIP: u8 = 8;
const ICW1: u8 = 1 << 4;
const ICW1_NEEDS_ICW4: u8 = 1;
const ICW1_SINGLE: u8 = 1 << 1;
const ICW4_AUTO_EOI: u8 = 1 << 1;
const OCW3: u8 = 1 << 3;

/// Which initialisation word a chip waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Initialisation {
    #[default]
    Done,
    Vector,
    Cascade,
    Mode,
}

/// One 8259A.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chip {
    request: u8,
    in_service: u8,
    mask: u8,
    line_levels: u8,
    level_triggered: u8,
    vector_base: u8,
    lowest_priority: u8,
    initialisation: Initialisation,
    needs_mode: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_mask: bool,
    read_in_service: bool,
}

impl Chip {
    fn new() -> Self {
        Self {
            lowest_priority: 7,
            mask: 0xff,
            ..Self::default()
        }
    }

    fn set_line(&mut self, line: u8, high: bool) {
        let bit = 1 << line;
        if self.level_triggered & bit != 0 {
            self.request = if high {
                self.request | bit
            } else {
                self.request & !bit
            };
        } else if high && self.line_levels & bit == 0 {
            self.request |= bit;
        } else if !high {
            // An edge request withdrawn before its acknowledgement is spurious on real chips too.
            self.request &= !bit;
        }
        self.line_levels = if high {
            self.line_levels | bit
        } else {
            self.line_levels & !bit
        };
    }

    /// Lines from the highest priority to the lowest.
    fn by_priority(&self) -> impl Iterator<Item = u8> + use<> {
        let first = self.lowest_priority + 1;
        (0..LINES_PER_CHIP).map(move |step| (first + step) % LINES_PER_CHIP)
    }

    fn highest(&self, lines: u8) -> Option<u8> {
        self.by_priority().find(|line| lines & 1 << line != 0)
    }

    /// The line to be served next, if it outranks what is in service.
    fn pending(&self) -> Option<u8> {
        let wanting = self.request & !self.mask;
        let blocking = if self.special_mask {
            self.in_service & !self.mask
        } else {
            self.in_service
        };
        self.by_priority()
            .take_while(|line| blocking & 1 << line == 0)
            .find(|line| wanting & 1 << line != 0)
    }

    fn acknowledge(&mut self, line: u8) {
        let bit = 1 << line;
        if self.level_triggered & bit == 0 {
            self.request &= !bit;
        }
        if !self.auto_eoi {
            self.in_service |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest_priority = line;
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            let levels = self.line_levels;
            *self = Self {
                level_triggered: self.level_triggered,
                line_levels: levels,
                ..Self::new()
            };
            self.mask = 0;
            // Edges are forgotten; a level that stands asks on.
            self.request = self.line_levels & self.level_triggered;
            self.needs_mode = value & ICW1_NEEDS_ICW4 != 0;
            self.single = value & ICW1_SINGLE != 0;
            self.initialisation = Initialisation::Vector;
        } else if value & OCW3 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn write_ocw3(&mut self, value: u8) {
        match value & 0b11 {
            0b10 => self.read_in_service = false,
            0b11 => self.read_in_service = true,
            _ => {}
        }
        match value >> 5 & 0b11 {
            0b10 => self.special_mask = false,
            0b11 => self.special_mask = true,
            _ => {}
        }
    }

    fn write_ocw2(&mut self, value: u8) {
        let named = value & 0b111;
        match value >> 5 {
            0b000 => self.rotate_on_auto_eoi = false,
            0b001 => self.end_of_interrupt(self.highest(self.in_service), false),
            0b011 => self.end_of_interrupt(Some(named), false),
            0b100 => self.rotate_on_auto_eoi = true,
            0b101 => self.end_of_interrupt(self.highest(self.in_service), true),
            0b110 => self.lowest_priority = named,
            0b111 => self.end_of_interrupt(Some(named), true),
            _ => {}
        }
    }

    fn end_of_interrupt(&mut self, line: Option<u8>, rotate: bool) {
        if let Some(line) = line {
            self.in_service &= !(1 << line);
            if rotate {
                self.lowest_priority = line;
            }
        }
    }

    fn write_data(&mut self, value: u8) {
        let after_vector = if self.single {
            self.after_cascade()
        } else {
            Initialisation::Cascade
        };
        match self.initialisation {
            Initialisation::Done => self.mask = value,
            Initialisation::Vector => {
                self.vector_base = value & 0xf8;
                self.initialisation = after_vector;
            }
            Initialisation::Cascade => self.initialisation = self.after_cascade(),
            Initialisation::Mode => {
                self.auto_eoi = value & ICW4_AUTO_EOI != 0;
                self.initialisation = Initialisation::Done;
            }
        }
    }

    fn after_cascade(&self) -> Initialisation {
        if self.needs_mode {
            Initialisation::Mode
        } else {
            Initialisation::Done
        }
    }

    fn read_command(&self) -> u8 {
        if self.read_in_service {
            self.in_service
        } else {
            self.request
        }
    }
}

/// The pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pic {
    first: Chip,
    second: Chip,
}

/// Lines of the pair that may be set level-triggered (not timer, keyboard, cascade, clock,
/// coprocessor).
const LEVEL_CAPABLE_FIRST: u8 = 0xf8;
const LEVEL_CAPABLE_SECOND: u8 = 0xde;

impl Default for Pic {
    fn default() -> Self {
        Self {
            first: Chip::new(),
            second: Chip::new(),
        }
    }
}

/// True where `line` may be set level-triggered.
#[must_use]
pub fn can_be_level(line: u8) -> bool {
    let capable = if line < LINES_PER_CHIP {
        LEVEL_CAPABLE_FIRST
    } else {
        LEVEL_CAPABLE_SECOND
    };
    capable & 1 << (line % LINES_PER_CHIP) != 0
}

impl Pic {
    /// Makes `line` (0 to 15) level-triggered, as the platform wires it.
    pub fn wire_level(&mut self, line: u8) {
        self.chip(line).level_triggered |= 1 << (line % LINES_PER_CHIP);
    }

    fn chip(&mut self, line: u8) -> &mut Chip {
        if line < LINES_PER_CHIP {
            &mut self.first
        } else {
            &mut self.second
        }
    }

    /// Sets the level of `line` (0 to 15).
    pub fn set_line(&mut self, line: u8, high: bool) {
        self.chip(line).set_line(line % LINES_PER_CHIP, high);
        self.cascade();
    }

    /// A rising edge on `line`.
    pub fn pulse(&mut self, line: u8) {
        self.set_line(line, false);
        self.set_line(line, true);
    }

    fn cascade(&mut self) {
        let waiting = self.second.pending().is_some();
        let bit = 1 << CASCADE_LINE;
        self.first.request = if waiting {
            self.first.request | bit
        } else {
            self.first.request & !bit
        };
    }

    /// True where an interrupt waits for the vCPU.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.first.pending().is_some()
    }

    /// The vCPU takes the interrupt: its vector.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let line = self.first.pending()?;
        self.first.acknowledge(line);
        if line != CASCADE_LINE {
            return Some(self.first.vector_base + line);
        }
        let second_line = self.second.pending()?;
        self.second.acknowledge(second_line);
        self.cascade();
        Some(self.second.vector_base + second_line)
    }

    /// Reads the register at `offset`.
    #[must_use]
    pub fn read(&self, offset: u64) -> u8 {
        match offset {
            FIRST_COMMAND => self.first.read_command(),
            FIRST_DATA => self.first.mask,
            SECOND_COMMAND => self.second.read_command(),
            SECOND_DATA => self.second.mask,
            FIRST_LEVELS => self.first.level_triggered,
            SECOND_LEVELS => self.second.level_triggered,
            _ => 0xff,
        }
    }

    /// Writes it.
    pub fn write(&mut self, offset: u64, value: u8) {
        match offset {
            FIRST_COMMAND => self.first.write_command(value),
            FIRST_DATA => self.first.write_data(value),
            SECOND_COMMAND => self.second.write_command(value),
            SECOND_DATA => self.second.write_data(value),
            FIRST_LEVELS => self.first.level_triggered = value & LEVEL_CAPABLE_FIRST,
            SECOND_LEVELS => self.second.level_triggered = value & LEVEL_CAPABLE_SECOND,
            _ => {}
        }
        self.cascade();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialised(mode: u8) -> Pic {
        let mut pic = Pic::default();
        for (command, data, base, cascade) in [
            (FIRST_COMMAND, FIRST_DATA, 0x20, 4),
            (SECOND_COMMAND, SECOND_DATA, 0x28, 2),
        ] {
            pic.write(command, 0x11);
            pic.write(data, base);
            pic.write(data, cascade);
            pic.write(data, mode);
        }
        pic
    }

    #[test]
    fn an_edge_gives_its_vector_once() {
        let mut pic = initialised(1);
        pic.pulse(4);
        assert_eq!(pic.acknowledge(), Some(0x24));
        pic.write(FIRST_COMMAND, 0x20);
        assert!(!pic.is_pending());
    }

    #[test]
    fn a_level_asks_again_until_it_falls() {
        let mut pic = initialised(1);
        pic.wire_level(5);
        pic.set_line(5, true);
        assert_eq!(pic.acknowledge(), Some(0x25));
        pic.write(FIRST_COMMAND, 0x20);
        assert!(pic.is_pending());
        pic.set_line(5, false);
        assert!(!pic.is_pending());
    }

    #[test]
    fn lower_priority_waits_for_the_end_of_interrupt() {
        let mut pic = initialised(1);
        pic.pulse(0);
        assert_eq!(pic.acknowledge(), Some(0x20));
        pic.pulse(4);
        assert!(!pic.is_pending());
        pic.write(FIRST_COMMAND, 0x20);
        assert_eq!(pic.acknowledge(), Some(0x24));
    }

    #[test]
    fn automatic_end_of_interrupt_needs_none() {
        let mut pic = initialised(3);
        pic.pulse(0);
        assert_eq!(pic.acknowledge(), Some(0x20));
        pic.pulse(4);
        assert_eq!(pic.acknowledge(), Some(0x24));
    }

    #[test]
    fn the_second_chip_comes_through_the_first() {
        let mut pic = initialised(1);
        pic.pulse(11);
        assert_eq!(pic.acknowledge(), Some(0x2b));
        assert_eq!(
            pic.read(FIRST_COMMAND),
            0,
            "request register of the first is clear"
        );
        pic.write(SECOND_COMMAND, 0x20);
        pic.write(FIRST_COMMAND, 0x20);
        assert!(!pic.is_pending());
    }

    #[test]
    fn masked_lines_stay_silent() {
        let mut pic = initialised(1);
        pic.write(FIRST_DATA, 1 << 4);
        pic.pulse(4);
        assert!(!pic.is_pending());
        pic.write(FIRST_DATA, 0);
        assert_eq!(pic.acknowledge(), Some(0x24));
    }

    #[test]
    fn initialisation_forgets_edges_and_keeps_levels() {
        let mut pic = initialised(1);
        pic.wire_level(5);
        pic.set_line(5, true);
        pic.pulse(4);
        pic.write(FIRST_COMMAND, 0x11);
        for value in [0x20, 4, 1] {
            pic.write(FIRST_DATA, value);
        }
        assert_eq!(pic.acknowledge(), Some(0x25));
        pic.write(FIRST_COMMAND, 0x20);
        pic.set_line(5, false);
        assert!(!pic.is_pending());
    }

    #[test]
    fn a_new_chip_keeps_quiet_until_it_is_initialised() {
        let mut pic = Pic::default();
        pic.pulse(0);
        assert!(!pic.is_pending());
    }
}
