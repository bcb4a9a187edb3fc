//! Serial console: a 16550A of vm-superio.
//!
//! Bytes leave a line at a time (at a newline, at [`LINE_BYTES_MAX`] bytes, or when the guest halts
//! or ends): one output, one log entry, instead of one each byte.

use super::saved::Impossible;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart, SerialState};

/// Registers, a byte each.
pub const REGISTERS: u64 = 8;
/// A longer line leaves in parts.
pub const LINE_BYTES_MAX: usize = 256;

/// The bit of the interrupt enable register that asks for one at each byte that is received.
const RECEIVED: u8 = 1;
/// The bit of the modem control register by which a terminal is there.
const TERMINAL_READY: u8 = 1;
/// The bit of the interrupt identification that is set while no interrupt is.
const NOTHING_PENDING: u8 = 1;

/// Remembers that the UART asked for an interrupt. Shared only with the UART it is in.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<AtomicBool>);

impl Trigger for Asked {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// The console.
pub struct Serial {
    uart: Uart<Asked, NoEvents, Vec<u8>>,
    asked: Asked,
}

/// Its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSerial {
    registers: [u8; 9],
    input: Vec<u8>,
    line: Vec<u8>,
    interrupt: bool,
}

impl Default for Serial {
    fn default() -> Self {
        let asked = Asked::default();
        Self {
            uart: Uart::new(asked.clone(), Vec::new()),
            asked,
        }
    }
}

impl Serial {
    /// Reads the register at `offset` (0 to 7).
    pub fn read(&mut self, offset: u8) -> u8 {
        self.uart.read(offset)
    }

    /// Writes it. Returns a line that is complete.
    pub fn write(&mut self, offset: u8, value: u8) -> Option<Vec<u8>> {
        // Writing into memory cannot fail, nor can the flag; a full receive FIFO in loop-back mode
        // drops the byte, as a UART does.
        let _ = self.uart.write(offset, value);
        let line = self.uart.writer();
        (line.last() == Some(&b'\n') || line.len() >= LINE_BYTES_MAX).then(|| self.take_line())
    }

    fn take_line(&mut self) -> Vec<u8> {
        std::mem::take(self.uart.writer_mut())
    }

    /// Takes the bytes that have been written and have not left yet.
    pub fn flush(&mut self) -> Option<Vec<u8>> {
        (!self.uart.writer().is_empty()).then(|| self.take_line())
    }

    /// Bytes of input it has room for.
    #[must_use]
    pub fn input_bytes_free(&self) -> usize {
        self.uart.fifo_capacity()
    }

    /// True while the guest has it open for input, as far as registers tell: it is ready, and asks
    /// for an interrupt at each byte. A driver that only looks for UARTs sets one of them at a time.
    #[must_use]
    pub fn listens(&self) -> bool {
        let state = self.uart.state();
        state.interrupt_enable & RECEIVED != 0 && state.modem_control & TERMINAL_READY != 0
    }

    /// Takes input; what does not fit is dropped, as a UART does.
    pub fn receive(&mut self, bytes: &[u8]) {
        let _ = self.uart.enqueue_raw_bytes(bytes);
    }

    /// True if an interrupt was asked for since the last call.
    pub fn take_interrupt(&mut self) -> bool {
        self.asked.0.swap(false, Ordering::Relaxed)
    }

    /// True while nothing is pending: the interrupt output of the UART is low.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.uart.state().interrupt_identification & NOTHING_PENDING != 0
    }

    /// The state as a value.
    #[must_use]
    pub fn saved(&self) -> SavedSerial {
        let Self { uart, asked } = self;
        let SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer,
        } = uart.state();
        SavedSerial {
            registers: [
                baud_divisor_low,
                baud_divisor_high,
                interrupt_enable,
                interrupt_identification,
                line_control,
                line_status,
                modem_control,
                modem_status,
                scratch,
            ],
            input: in_buffer,
            line: uart.writer().clone(),
            interrupt: asked.0.load(Ordering::Relaxed),
        }
    }

    /// The console in a saved state.
    ///
    /// # Errors
    /// [`Impossible`] for a value that it never has.
    pub fn restore(saved: SavedSerial) -> Result<Self, Impossible> {
        let SavedSerial {
            registers,
            input,
            line,
            interrupt,
        } = saved;
        let line_bytes = line.len() as u64;
        Impossible::unless(line.len() < LINE_BYTES_MAX, "the length of its line", line_bytes)?;
        Impossible::unless(!line.contains(&b'\n'), "a byte of its unfinished line", b'\n')?;
        let [
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
        ] = registers;
        let input_bytes = input.len() as u64;
        let state = SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer: input,
        };
        let asked = Asked::default();
        // The flag and the line cannot fail, so only the length of the input is left to be refused.
        let uart =
            Uart::from_state(&state, asked.clone(), NoEvents, line).map_err(|_refused| Impossible {
                field: "the length of its input",
                value: input_bytes,
            })?;
        // Building the UART may have asked for an interrupt that had been taken already.
        asked.0.store(interrupt, Ordering::Relaxed);
        Ok(Self { uart, asked })
    }
}

#[cfg(test)]
mod tests;
