//! Time that a guest is paused while its machine is sent (docs/joining.md): guests of several sizes
//! that write so many pages a second, in one process, with a receiver that takes records as fast as
//! they come. Needs `/dev/kvm`.
//!
//! `cargo bench --bench transfer [-- MiB PAGES_A_SECOND [copy]]`
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench, with the fixtures of the tests"
)]

#[path = "../../kvm/tests/kvm/code.rs"]
mod code;
#[path = "../../kvm/tests/kvm/guest.rs"]
mod guest;
#[path = "../tests/live/live.rs"]
mod live;
#[path = "../../kvm/tests/kvm/moving.rs"]
mod moving;

use code::{Code, Register};
use guest::{Ring, program};
use live::{Guest, Item, Live};
use lockstep_core::machine::saved::pages::PAGE_BYTES;
use lockstep_core::replica::transfer::{Receiver, Taken};
use lockstep_host::machine::transfer::{Sent, Way, send};
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::Body;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const PAIR: [u8; 16] = [7; 16];
const SIZES_MIB: [u64; 4] = [64, 256, 1024, 3072];
const RATES: [u32; 4] = [0, 1_000, 10_000, 100_000];
/// Memory from here on is written.
const FIRST: u32 = 0x40_0000;
/// The guest writes a burst of pages so often.
const PERIOD_NS: u32 = 1_000_000;

/// A guest in ring 3 that writes each page from [`FIRST`] to the end once, sends a line, and then
/// goes over them again, so many a second, as its clock says.
fn writer(mebibytes: u64, pages_a_second: u32) -> Guest {
    let memory_bytes = mebibytes << 20;
    let end = memory_bytes as u32;
    let burst = pages_a_second / (1_000_000_000 / PERIOD_NS);
    let near = |code: Code, opcode: &[u8], to: usize| {
        let distance = to as i64 - (code.0.len() + opcode.len() + 4) as i64;
        code.raw(opcode).raw(&(distance as i32).to_le_bytes())
    };
    let clock = |code: Code| code.mov(Register::Rdx, 0x508).raw(&[0xed]);
    let code = Code::default().mov(Register::Rbx, 1).mov(Register::Rcx, FIRST);
    let fill = code.0.len();
    // MOV [RCX], RBX; INC RBX; ADD RCX, 4096; CMP ECX, end; JB.
    let step = [
        0x48, 0x89, 0x19, 0x48, 0xff, 0xc3, 0x48, 0x81, 0xc1, 0, 0x10, 0, 0, 0x81, 0xf9,
    ];
    let code = near(code.raw(&step).raw(&end.to_le_bytes()), &[0x0f, 0x82], fill);
    let code = code
        .out_to(0x3f8, b'w')
        .out_to(0x3f8, b'\n')
        .mov(Register::Rcx, FIRST);
    // MOV R10D, EAX: when the next burst is due.
    let code = clock(code).raw(&[0x41, 0x89, 0xc2]);
    let wait = code.0.len();
    // SUB EAX, R10D; JS wait; ADD R10D, period.
    let code = near(clock(code).raw(&[0x44, 0x29, 0xd0]), &[0x0f, 0x88], wait);
    let code = code.raw(&[0x41, 0x81, 0xc2]).raw(&PERIOD_NS.to_le_bytes());
    let code = if burst == 0 {
        code
    } else {
        let code = code.raw(&[0x41, 0xb8]).raw(&burst.to_le_bytes());
        let page = code.0.len();
        // The step; JB over MOV ECX, first; DEC R8D; JNZ page.
        let code = code.raw(&step).raw(&end.to_le_bytes()).raw(&[0x72, 5]);
        let code = code.mov(Register::Rcx, FIRST).raw(&[0x41, 0xff, 0xc8]);
        near(code, &[0x0f, 0x85], page)
    };
    Guest {
        image: program(Ring::Three, &near(code, &[0xe9], wait)),
        tables: true,
        command_line: String::new(),
        memory_bytes,
        clock: ClockKind::None,
        event_latency: None,
    }
}

struct Measured {
    sent: Sent,
    took: Duration,
    /// Longest time between two exits of the guest, before and during the transfer.
    gaps: [Duration; 2],
}

fn measure(mebibytes: u64, pages_a_second: u32, way: Way) -> Measured {
    let live = Live::start(writer(mebibytes, pages_a_second));
    live.log.wait("its memory is written", |items| {
        items
            .iter()
            .any(|item| matches!(item, Item::Entry(entry) if matches!(entry.body, Body::Output(_))))
    });
    live.log.longest_gap();
    std::thread::sleep(Duration::from_secs(1));
    let before = live.log.longest_gap();
    let begun = Instant::now();
    let (records, mut arriving) = mpsc::channel(4);
    let mut transfer = send(live.control.clone(), PAIR, way, records).unwrap();
    let mut receiver = Receiver::new(PAIR, mebibytes << 20);
    let mut whole = false;
    while let Some(record) = arriving.blocking_recv() {
        whole |= matches!(receiver.take(&record).unwrap(), Taken::All(_));
    }
    let took = begun.elapsed();
    assert!(whole);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sent = runtime.block_on(transfer.outcome()).unwrap();
    let during = live.log.longest_gap();
    live.stop(false);
    Measured {
        sent,
        took,
        gaps: [before, during],
    }
}

fn show(mebibytes: u64, pages_a_second: u32, way: Way) {
    let Measured { sent, took, gaps } = measure(mebibytes, pages_a_second, way);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!(
        "{mebibytes:>5} MiB {pages_a_second:>7} pages/s: pause {:6.2} ms, longest time between exits {:7.2} ms ({:6.2} before), \
         {} rounds, {} copied, {} declined, {:>7} pages of {}, {:>8} KiB, {:6.2} s",
        ms(sent.pause),
        ms(gaps[1]),
        ms(gaps[0]),
        sent.rounds,
        sent.copied,
        sent.declined,
        sent.pages,
        (mebibytes << 20) / PAGE_BYTES as u64,
        sent.bytes >> 10,
        took.as_secs_f64(),
    );
}

fn main() {
    let Some(_host) = guest::host() else { return };
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<u32>().ok());
    let way = if arguments.iter().any(|argument| argument == "copy") {
        Way::Copied
    } else {
        Way::Decided
    };
    if let (Some(mebibytes), Some(rate)) = (number(0), number(1)) {
        return show(mebibytes.into(), rate, way);
    }
    for mebibytes in SIZES_MIB {
        for rate in RATES {
            show(mebibytes, rate, way);
        }
    }
}
