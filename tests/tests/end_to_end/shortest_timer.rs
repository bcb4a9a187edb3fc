//! A guest whose interval timer has the shortest period that there is, 0.8 µs: each expiry is due
//! before the one before was taken. Frames that arrive meanwhile have their turn, the guest's own
//! code goes on, and the recording replays to the same.
//!
//! The guest is assembled here, and stays in ring 0: virtio registers and rings by virtio 1.2,
//! 4.2.2 and 2.7; encodings by Intel SDM volume 2.

use lockstep_tests::harness::bare::{CODE, elf};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Process, Scratch, Switch, kvm, lockstep};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const DATA: u32 = 0x20_0000;
const IDT: u32 = DATA;
const IDT_POINTER: u32 = DATA + 0x1000;
const DESCRIPTORS: u32 = DATA + 0x2000;
const AVAILABLE: u32 = DATA + 0x3000;
const USED: u32 = DATA + 0x4000;
const BUFFERS: u32 = DATA + 0x1_0000;
const DATA_BYTES: usize = 0x4000;
const BUFFER_BYTES: u32 = 2048;
const DEVICE: u32 = 0xd000_0000;
/// Frames that the guest takes before it ends, each in a buffer of its own.
const FRAMES: u16 = 64;
/// Interrupts of the timer that it takes at least.
const TICKS: u32 = 500;
/// Rounds of its own that it makes at least.
const ROUNDS: u32 = 500;
/// The status with which it ends.
const STATUS: u8 = 7;
/// A broadcast of no known protocol.
const FRAME: [u8; 60] = {
    let mut frame = [0xff; 60];
    (frame[6], frame[12], frame[13]) = (0x02, 0x88, 0xb6);
    frame
};
const TIMER_VECTOR: u32 = 0x20;
const NETWORK_VECTOR: u32 = 0x25;

fn with_u32(opcode: &[u8], operands: &[u32]) -> Vec<u8> {
    let mut code = opcode.to_vec();
    code.extend(operands.iter().flat_map(|operand| operand.to_le_bytes()));
    code
}

/// MOV AL; OUT.
fn out(port: u8, value: u8) -> Vec<u8> {
    vec![0xb0, value, 0xe6, port]
}

/// MOV DWORD [RBX + register], value.
fn set(register: u32, value: u32) -> Vec<u8> {
    with_u32(&[0xc7, 0x83], &[register, value])
}

/// INC R12, the ticks; end of interrupt.
fn timer_handler() -> Vec<u8> {
    [
        &[0x49, 0xff, 0xc4, 0x50][..],
        &out(0x20, 0x20),
        &[0x58, 0x48, 0xcf],
    ]
    .concat()
}

/// Acknowledges what the device says is the interrupt's cause; end of interrupt.
fn network_handler() -> Vec<u8> {
    let (status, acknowledge) = (0x60, 0x64);
    [
        &[0x50, 0x8b, 0x83][..],
        &u32::to_le_bytes(status),
        &[0x89, 0x83],
        &u32::to_le_bytes(acknowledge),
        &out(0x20, 0x20),
        &[0x58, 0x48, 0xcf],
    ]
    .concat()
}

/// Sets up interrupts, the network's receiving queue and the timer; then makes rounds of `round`
/// until there was enough of each.
fn main_code(round: &[u8]) -> Vec<u8> {
    let mut code = with_u32(&[0x0f, 0x01, 0x1c, 0x25], &[IDT_POINTER]);
    for (port, value) in [
        (0x20, 0x11),
        (0x21, TIMER_VECTOR as u8),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0),
    ] {
        code.extend(out(port, value));
    }
    // MOV EBX, device; R12 and R13 are 0.
    code.extend(with_u32(&[0xbb], &[DEVICE]));
    code.extend([0x4d, 0x31, 0xe4, 0x4d, 0x31, 0xed]);
    for (register, value) in [
        // Status: acknowledged, driver; features: version 1; features are right.
        (0x70, 1),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        // Queue 0.
        (0x30, 0),
        (0x38, FRAMES.into()),
        (0x80, DESCRIPTORS),
        (0x84, 0),
        (0x90, AVAILABLE),
        (0x94, 0),
        (0xa0, USED),
        (0xa4, 0),
        (0x44, 1),
        (0x70, 15),
        (0x50, 0),
    ] {
        code.extend(set(register, value));
    }
    // Channel 0, mode 2, count 1; STI.
    for (port, value) in [(0x43, 0x34), (0x40, 1), (0x40, 0)] {
        code.extend(out(port, value));
    }
    code.push(0xfb);
    let top = code.len();
    code.extend(round);
    // INC R13; then back where anything is below what is wanted: CMP; JB.
    code.extend([0x49, 0xff, 0xc5]);
    let back_if_below = |code: &mut Vec<u8>| {
        let back = top as i32 - (code.len() as i32 + 6);
        code.extend([0x0f, 0x82]);
        code.extend(back.to_le_bytes());
    };
    code.extend([0x66, 0x81, 0x3c, 0x25]);
    code.extend((USED + 2).to_le_bytes());
    code.extend(FRAMES.to_le_bytes());
    back_if_below(&mut code);
    code.extend(with_u32(&[0x49, 0x81, 0xfc], &[TICKS]));
    back_if_below(&mut code);
    code.extend(with_u32(&[0x49, 0x81, 0xfd], &[ROUNDS]));
    back_if_below(&mut code);
    // MOV EAX, status; OUT.
    code.extend(with_u32(&[0xb8], &[STATUS.into()]));
    code.extend([0xe7, 0xf4]);
    code
}

fn data(handlers: [(u32, u32); 2]) -> Vec<u8> {
    let mut data = vec![0; DATA_BYTES];
    let mut put = |address: u32, bytes: &[u8]| {
        let at = (address - DATA) as usize;
        data[at..at + bytes.len()].copy_from_slice(bytes);
    };
    for (vector, handler) in handlers {
        let handler = u64::from(handler);
        let gate = handler & 0xffff | 0x08 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        put(IDT + vector * 16, &gate.to_le_bytes());
    }
    put(IDT_POINTER, &0xfff_u16.to_le_bytes());
    put(IDT_POINTER + 2, &u64::from(IDT).to_le_bytes());
    for number in 0..u32::from(FRAMES) {
        let at = DESCRIPTORS + number * 16;
        put(at, &u64::from(BUFFERS + number * BUFFER_BYTES).to_le_bytes());
        put(at + 8, &BUFFER_BYTES.to_le_bytes());
        // The device writes it.
        put(at + 12, &[2, 0]);
        put(AVAILABLE + 4 + number * 2, &(number as u16).to_le_bytes());
    }
    put(AVAILABLE + 2, &FRAMES.to_le_bytes());
    data
}

fn guest(round: &[u8]) -> Vec<u8> {
    let mut code = main_code(round);
    let timer = CODE + code.len() as u32;
    code.extend(timer_handler());
    let network = CODE + code.len() as u32;
    code.extend(network_handler());
    let data = data([(TIMER_VECTOR, timer), (NETWORK_VECTOR, network)]);
    elf(&[(CODE, 5, &code), (DATA, 6, &data)])
}

/// Sends frames through `switch` until it is told to stop.
fn flood(switch: &Switch, stop: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let attachment = switch.attachment();
    let mut station = UnixStream::connect(attachment.strip_prefix("switch:").unwrap()).unwrap();
    // Frames in a stream have their length before them.
    let framed = [&(FRAME.len() as u32).to_be_bytes()[..], &FRAME].concat();
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            station.write_all(&framed).unwrap();
        }
    })
}

fn command(verb: &str, image: &Path, log: &Path, clock: &str) -> Command {
    let mut command = lockstep();
    command.arg(verb).arg(image).arg("--log").arg(log);
    if verb == "record" {
        command.arg("--clock").arg(clock);
    }
    command
}

fn has_its_turn(round: &[u8], clock: &str) {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let switch = Switch::start_quiet(&scratch);
    let image = scratch.write("guest.elf", guest(round));
    let log = scratch.join("log");
    let stop = Arc::new(AtomicBool::new(false));
    let sending = flood(&switch, stop.clone());
    let mut record = command("record", &image, &log, clock);
    record.arg("--network").arg(switch.attachment());

    let recorded = Process::start("record", &mut record).wait();
    stop.store(true, Ordering::Relaxed);
    sending.join().unwrap();

    recorded.expect_named(&[&format!("status={STATUS}")]);
    let replayed = run(&mut command("replay", &image, &log, clock));
    replayed.expect_named(&["the replay equals the log", &format!("status={STATUS}")]);
}

#[test]
fn a_guest_that_waits_under_the_shortest_period_gets_frames_and_goes_on() {
    // HLT.
    has_its_turn(&[0xf4], "none");
}

#[test]
fn a_guest_that_makes_exits_under_the_shortest_period_gets_frames_and_goes_on() {
    has_its_turn(&out(0x80, 0), "none");
}

#[test]
fn a_guest_that_is_stepped_under_the_shortest_period_gets_frames_and_goes_on() {
    // NOP, NOP; OUT.
    let round = [&[0x90, 0x90][..], &out(0x80, 0)].concat();
    has_its_turn(&round, "step");
}
