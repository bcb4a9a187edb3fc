//! Lines, input, and what Linux's 8250 driver does with the UART.

use super::*;

#[test]
fn lines_leave_whole() {
    let mut serial = Serial::default();
    let lines: Vec<Vec<u8>> = b"one\ntwo"
        .iter()
        .filter_map(|byte| serial.write(0, *byte))
        .collect();
    assert_eq!(lines, [b"one\n".to_vec()]);
    assert_eq!(serial.flush(), Some(b"two".to_vec()));
    assert_eq!(serial.flush(), None);
}

#[test]
fn a_long_line_leaves_in_parts() {
    let mut serial = Serial::default();
    let parts: Vec<usize> = (0..600)
        .filter_map(|_| serial.write(0, b'x'))
        .map(|part| part.len())
        .collect();
    assert_eq!(parts, [LINE_BYTES_MAX, LINE_BYTES_MAX]);
}

#[test]
fn input_is_read_back_and_interrupts_when_enabled() {
    let mut serial = Serial::default();
    serial.write(1, 1);
    serial.receive(b"k");
    assert!(serial.take_interrupt());
    assert_eq!(serial.read(0), b'k');
}

#[test]
fn input_beyond_the_room_is_dropped() {
    let mut serial = Serial::default();
    let room = serial.input_bytes_free();
    serial.receive(&vec![7; room]);
    serial.receive(b"more");
    assert_eq!(serial.input_bytes_free(), 0);
}

const RX: u8 = 0;
const TX: u8 = 0;
const IER: u8 = 1;
const IIR: u8 = 2;
const EFR: u8 = 2;
const FCR: u8 = 2;
const LCR: u8 = 3;
const MCR: u8 = 4;
const LSR: u8 = 5;
const MSR: u8 = 6;

const IER_RECEIVE: u8 = 1;
const IER_TRANSMIT: u8 = 2;
const IIR_NONE: u8 = 1;
const LSR_DATA: u8 = 1;
const LSR_EMPTY: u8 = 0x60;
const MCR_READY: u8 = 1;
const MCR_LOOP: u8 = 0x10;

/// `autoconfig` and `autoconfig_16550a` of 8250_port.c: every question by which it tells a 16550A
/// from what came before and after it.
#[test]
fn linux_finds_a_16550a() {
    let mut uart = Serial::default();
    let mut ask = |writes: &[(u8, u8)], register| {
        for (offset, value) in writes {
            uart.write(*offset, *value);
        }
        uart.read(register)
    };
    assert_eq!(ask(&[(IER, 0)], IER), 0);
    assert_eq!(ask(&[(IER, 0x0f)], IER), 0x0f);
    assert_eq!(
        ask(&[(IER, 0), (MCR, MCR_LOOP | 0x0a)], MSR) & 0xf0,
        0x90,
        "loop-back"
    );
    assert_eq!(
        ask(&[(MCR, 8), (LCR, 0xbf), (EFR, 0), (LCR, 0), (FCR, 1)], IIR) >> 6,
        3,
        "FIFO"
    );
    assert_ne!(ask(&[(LCR, 0x80)], EFR), 0, "not a 16650");
    assert_ne!(ask(&[(LCR, 0xbf)], EFR), 0, "not a 16650V2");
    let control = ask(&[(LCR, 0)], MCR);
    assert_eq!((ask(&[(LCR, 0xe0)], EFR) ^ control) & MCR_LOOP, 0);
    let bank = ask(&[(LCR, 0), (MCR, control ^ MCR_LOOP), (LCR, 0xe0)], EFR);
    assert_eq!(
        (bank ^ control) & MCR_LOOP,
        0,
        "not a National Semiconductor SuperIO"
    );
    let short = ask(&[(LCR, 0), (MCR, control), (FCR, 0x21)], IIR) >> 5;
    let long = ask(&[(FCR, 1), (LCR, 0x80), (FCR, 0x21)], IIR) >> 5;
    assert_eq!((short, long), (6, 6), "not a TI16750");
    assert_eq!(
        ask(&[(FCR, 1), (LCR, 3), (IER, 0x40)], IER) & 0x40,
        0,
        "not an XScale"
    );
    assert_eq!(ask(&[], MSR) & 0xf0, 0xb0, "ready, clear to send, carrier");
    assert_eq!(ask(&[(7, 0xa5)], 7), 0xa5);
}

/// `serial8250_do_startup`: an interrupt that is enabled again has to ask again, or the driver
/// polls by a timer.
#[test]
fn linux_trusts_its_transmit_interrupt() {
    let mut uart = Serial::default();
    for register in [LSR, RX, IIR, MSR] {
        uart.read(register);
    }
    for _ in 0..3 {
        assert_eq!(uart.read(LSR) & LSR_EMPTY, LSR_EMPTY);
        uart.write(IER, IER_TRANSMIT);
        assert!(uart.take_interrupt());
        assert_eq!(uart.read(IIR) & 0x0f, 2);
        uart.write(IER, 0);
        assert!(!uart.take_interrupt());
    }
    assert_eq!(uart.read(IIR) & IIR_NONE, IIR_NONE);
    assert!(uart.is_quiet());
}

/// `serial8250_interrupt`: one pass reads what came and fills the FIFO, and it goes on until
/// nothing is pending.
fn interrupt(uart: &mut Serial, mut to_send: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    let mut passes = 0;
    while uart.read(IIR) & IIR_NONE == 0 {
        passes += 1;
        assert!(passes < 512, "too much work for an interrupt");
        while uart.read(LSR) & LSR_DATA != 0 {
            received.push(uart.read(RX));
        }
        if uart.read(IER) & IER_TRANSMIT == 0 {
            continue;
        }
        let (now, rest) = to_send.split_at(to_send.len().min(16));
        for byte in now {
            sent.extend(uart.write(TX, *byte).into_iter().flatten());
        }
        to_send = rest;
        if to_send.is_empty() {
            uart.write(IER, uart.saved().registers[2] & !IER_TRANSMIT);
        }
    }
    assert!(to_send.is_empty());
    (received, sent)
}

#[test]
fn linux_sends_and_receives_by_interrupts() {
    let mut uart = Serial::default();
    uart.write(IER, IER_RECEIVE);
    uart.receive(b"ls\n");
    assert!(uart.take_interrupt());
    let text = b"a line of more than sixteen bytes\n";
    uart.write(IER, IER_RECEIVE | IER_TRANSMIT);
    assert!(uart.take_interrupt());

    let (received, sent) = interrupt(&mut uart, text);

    assert_eq!(
        (received.as_slice(), sent.as_slice()),
        (b"ls\n".as_slice(), text.as_slice())
    );
    assert!(uart.is_quiet(), "and the line is low again");
}

/// The console of the kernel polls with interrupts off: what came in the meantime has to ask when
/// they are on again.
#[test]
fn input_that_came_while_linux_was_polling_interrupts_afterwards() {
    let mut uart = Serial::default();
    uart.write(IER, 0);
    uart.receive(b"k");
    assert!(!uart.take_interrupt());
    for byte in b"[    0.000000] Linux version" {
        assert_eq!(uart.read(LSR) & LSR_EMPTY, LSR_EMPTY);
        uart.write(TX, *byte);
    }
    uart.write(IER, IER_RECEIVE);
    assert!(uart.take_interrupt());
    assert_eq!(interrupt(&mut uart, b"").0, b"k");
}

#[test]
fn it_is_listened_to_while_it_is_ready_and_input_interrupts() {
    let mut serial = Serial::default();
    assert!(!serial.listens());
    // What a driver does that looks whether there is a UART.
    serial.write(IER, 0xF);
    assert!(!serial.listens());
    serial.write(IER, 0);
    serial.write(MCR, MCR_READY);
    assert!(!serial.listens(), "a console that only prints");
    serial.write(IER, IER_RECEIVE);
    assert!(serial.listens());
    let restored = Serial::restore(serial.saved()).unwrap();
    assert!(restored.listens());
    serial.write(IER, 0);
    assert!(!serial.listens());
}
