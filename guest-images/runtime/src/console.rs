//! The serial console: whole pieces of text in one ring-0 call, bytes back one at a time.
#![allow(unsafe_code)]

use crate::{port, ring0};
use core::fmt::{self, Write};

/// The received byte, or the byte to send.
pub const DATA: u16 = 0x3F8;
const INTERRUPT_ENABLE: u16 = 0x3F9;
const FIFO_CONTROL: u16 = 0x3FA;
const MODEM_CONTROL: u16 = 0x3FC;
/// Line status.
pub const LINE_STATUS: u16 = 0x3FD;

/// A byte has been received.
const DATA_READY: u8 = 0x01;
/// FIFOs on and emptied, 14 bytes to the interrupt.
const FIFO_ON: u8 = 0xC7;
/// DTR, RTS, and OUT2, which lets the interrupt through.
const MODEM_READY: u8 = 0x0B;

/// Bytes collected before they are written out.
const LINE_BYTES: usize = 256;

/// Turns the FIFOs on and, where wanted, the interrupt for received bytes (line 4).
pub fn set_up(receive_interrupt: bool) {
    port::write_u8(FIFO_CONTROL, FIFO_ON);
    port::write_u8(MODEM_CONTROL, MODEM_READY);
    port::write_u8(INTERRUPT_ENABLE, u8::from(receive_interrupt));
}

/// The next received byte, if there is one.
#[must_use]
pub fn read() -> Option<u8> {
    (port::read_u8(LINE_STATUS) & DATA_READY != 0).then(|| port::read_u8(DATA))
}

/// Writes `bytes` to the console.
pub fn write(bytes: &[u8]) {
    if !bytes.is_empty() {
        // SAFETY: the routine reads these bytes and nothing else.
        unsafe {
            ring0::call(
                ring0::ring0_console_write,
                [bytes.as_ptr() as u64, bytes.len() as u64, 0],
            )
        };
    }
}

/// Collects formatted text, so that a line is one ring-0 call.
struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

impl Line {
    fn flush(&mut self) {
        write(self.bytes.get(..self.length).unwrap_or_default());
        self.length = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.length == LINE_BYTES {
                self.flush();
            }
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

/// Prints formatted text; `print!` and `println!` lead here.
pub fn print(arguments: fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; LINE_BYTES],
        length: 0,
    };
    // Collecting text cannot fail; a failing `Display` only cuts its own text short.
    let _ = line.write_fmt(arguments);
    line.flush();
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::print(format_args!($($argument)*)) };
}

/// Prints to the console, and ends the line.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($format:expr $(, $($argument:tt)*)?) => {
        $crate::print!("{}\n", format_args!($format $(, $($argument)*)?))
    };
}
