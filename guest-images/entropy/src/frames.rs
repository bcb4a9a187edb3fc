//! The network as a source: frames counted and digested, each answered.

use crate::devices::Deadline;
use crate::report::Report;
use lockstep_guest_runtime::command_line::CommandLine;
use lockstep_guest_runtime::interrupts::{self, NETWORK_LINE, TIMER_LINE, bit};
use lockstep_guest_runtime::network::{Network, Transmitter};
use lockstep_guest_runtime::{clock, println, timer};

/// Frames awaited, unless `frames=N` says otherwise.
const FRAMES: u64 = 16;
/// Time they are awaited for in ms, unless `frames_ms=N` says otherwise.
const WAIT_MS: u64 = 100;
/// Two addresses, then EtherType 0x88B6: the second for local experiments (IEEE 802).
const HEADER_BYTES: usize = 14;
const ETHERTYPE: [u8; 2] = [0x88, 0xB6];
/// The shortest Ethernet frame, without its check sequence.
const FRAME_BYTES: usize = 60;

/// Says hello to everybody, then digests and answers frames until `frames=N` have come or time is over.
pub fn frames(options: CommandLine<'_>) {
    let mut network = match Network::start() {
        Ok(network) => network,
        Err(error) => return println!("frames: {error}"),
    };
    let mac = network.mac();
    let mut report = Report::new("frames");
    let wanted = options.number("frames", FRAMES);
    interrupts::open(bit(NETWORK_LINE) | bit(TIMER_LINE));
    send(&mut network.transmitter, [0xFF; 6], mac, 0);
    let deadline = Deadline::after_ms(options.number("frames_ms", WAIT_MS));
    let mut count = 0;
    while count < wanted && deadline.wait_on(|| network.exchange(true)) {
        while let Some(frame) = network.receiver.peek() {
            report.value(frame.len() as u64);
            report.bytes(frame);
            let sender = frame.get(6..12).and_then(|bytes| bytes.try_into().ok());
            network.receiver.drop_frame();
            count += 1;
            send(
                &mut network.transmitter,
                sender.unwrap_or([0xFF; 6]),
                mac,
                report.digest(),
            );
        }
    }
    network.exchange(false);
    timer::stop();
    interrupts::open(0);
    report.note("frames", count);
    report.note("at ns", clock::monotonic_ns());
    report.print();
}

/// Sends a frame that carries `content`.
fn send(transmitter: &mut Transmitter, to: [u8; 6], from: [u8; 6], content: u64) {
    transmitter.send(FRAME_BYTES, |frame| {
        let parts = to
            .into_iter()
            .chain(from)
            .chain(ETHERTYPE)
            .chain(content.to_le_bytes());
        frame
            .iter_mut()
            .zip(parts.chain([0; FRAME_BYTES - HEADER_BYTES - 8]))
            .for_each(|(place, byte)| *place = byte);
    });
}
