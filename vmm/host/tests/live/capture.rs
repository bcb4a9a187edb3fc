//! Machines that are captured while they run: memory in rounds, or as copies, what is left at a
//! pause. The machine built from it replays the log from there on, and ends as the first one did,
//! memory included.

use crate::code::{Code, Register};
use crate::guest::{Ring, asks_for_address, host, program, skip};
use crate::live::{Guest, Item, Live, replay};
use lockstep_core::machine::Machine;
use lockstep_core::machine::memory::{Memory, PAGE_BYTES};
use lockstep_core::machine::page_set::PageSet;
use lockstep_core::machine::saved::Page;
use lockstep_core::replica::transfer::{Received, Receiver, Taken};
use lockstep_host::machine::transfer::{NotSent, Sent, Way, send};
use lockstep_kvm::{ClockKind, KvmCpu};
use lockstep_logging_channel::{Body, Event, EventKind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

const PAIR: [u8; 16] = [7; 16];
/// The range that the writing guest goes over, and its table of pages.
const FIRST: u32 = 0x40_0000;

/// A guest in ring 3 that writes a number to each page from [`FIRST`] on, `pages` of them, over and
/// over, and asks the time after each `burst` of them; `passes` times all, then it powers off.
fn writer(pages: u32, burst: u32, passes: u32) -> Guest {
    writer_of_some(pages, pages, burst, passes)
}

/// A [`writer`] that has written `filled` pages once before.
fn writer_of_some(filled: u32, pages: u32, burst: u32, passes: u32) -> Guest {
    let end = FIRST + pages * PAGE_BYTES as u32;
    let end_of_filled = FIRST + filled.max(pages) * PAGE_BYTES as u32;
    let jump = |code: Code, opcode: &[u8], to: usize| {
        let from = code.0.len() + opcode.len() + 4;
        let distance = to as i64 - from as i64;
        code.raw(opcode).raw(&(distance as i32).to_le_bytes())
    };
    let code = Code::default()
        // RBX counts writes; R9 passes that are left.
        .mov(Register::Rbx, 1)
        .mov(Register::R9, passes)
        .mov(Register::Rcx, FIRST);
    let fill = code.0.len();
    // MOV [RCX], RBX; ADD RCX, 4096; CMP ECX, its end; JB fill.
    let code = code
        .raw(&[0x48, 0x89, 0x19, 0x48, 0x81, 0xc1, 0, 0x10, 0, 0, 0x81, 0xf9])
        .raw(&end_of_filled.to_le_bytes());
    let code = jump(code, &[0x0f, 0x82], fill);
    let pass = code.0.len();
    let code = code
        .mov(Register::Rcx, FIRST)
        .raw(&[0x41, 0xb8])
        .raw(&burst.to_le_bytes());
    let page = code.0.len();
    // MOV [RCX], RBX; INC RBX; ADD RCX, 4096; DEC R8D.
    let code = code
        .raw(&[0x48, 0x89, 0x19, 0x48, 0xff, 0xc3])
        .raw(&[0x48, 0x81, 0xc1, 0, 0x10, 0, 0, 0x41, 0xff, 0xc8]);
    // JNZ over the question: MOV R8D, burst; MOV EDX, the clock's port; IN EAX, DX; ADD RBX, RAX.
    let code = code
        .raw(&[0x75, 6 + 5 + 1 + 3])
        .raw(&[0x41, 0xb8])
        .raw(&burst.to_le_bytes())
        .mov(Register::Rdx, 0x508)
        .raw(&[0xed, 0x48, 0x01, 0xc3]);
    // CMP ECX, end; JB page; DEC R9D; JNZ pass.
    let code = code.raw(&[0x81, 0xf9]).raw(&end.to_le_bytes());
    let code = jump(code, &[0x0f, 0x82], page);
    let code = jump(code.raw(&[0x41, 0xff, 0xc9]), &[0x0f, 0x85], pass);
    Guest {
        image: program(Ring::Three, &code.power_off(0)),
        tables: true,
        command_line: String::new(),
        memory_bytes: u64::from(end_of_filled) + PAGE_BYTES,
        clock: ClockKind::None,
        event_latency: None,
    }
}

fn image(name: &str, command_line: &str, memory_bytes: u64) -> Option<Guest> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../guest-images/build/{name}.elf"));
    let Ok(image) = std::fs::read(&path) else {
        skip(&format!("{} is not built: make guests", path.display()));
        return None;
    };
    Some(Guest {
        image,
        tables: false,
        command_line: command_line.to_owned(),
        memory_bytes,
        clock: ClockKind::None,
        event_latency: None,
    })
}

/// Sends the machine, and takes it on the other side. `between` is called with the number of each
/// record.
fn carried(live: &Live, memory_bytes: u64, way: Way, mut between: impl FnMut(u64)) -> (Received, Sent) {
    let (records, mut arriving) = mpsc::channel(2);
    let mut transfer = send(live.control.clone(), PAIR, way, records).unwrap();
    let mut receiver = Receiver::new(PAIR, memory_bytes);
    let mut received = None;
    for number in 0.. {
        let Some(record) = arriving.blocking_recv() else {
            break;
        };
        between(number);
        match receiver.take(&record).unwrap() {
            Taken::More => {}
            Taken::All(all) => received = Some(*all),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sent = runtime.block_on(transfer.outcome()).unwrap();
    (received.expect("all of it has come"), sent)
}

/// The journal was told of the capture between the entries up to it and those after it.
fn check_order(items: &[Item], sent: &Sent) {
    let mut told = 0;
    for item in items {
        match item {
            Item::SavedAt(sequence, _) => {
                told += 1;
                assert_eq!(sequence.0, sent.position.sequence);
            }
            Item::Entry(entry) => assert_eq!(entry.sequence.0 > sent.position.sequence, told == 1),
        }
    }
    assert_eq!(told, 1);
}

/// Way in which a live machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    ByItself,
    WhereItIdles,
    AtAnExit,
}

/// Ends the live machine and replays: both end the same.
fn check_end(live: Live, end: End, clock: ClockKind, received: Received, sent: &Sent) {
    let (ended, digest, items) = match end {
        End::ByItself => live.ended(),
        End::WhereItIdles => live.stop(true),
        End::AtAnExit => live.stop(false),
    };
    check_order(&items, sent);
    let (again, same) = replay(clock, received, &items);
    assert_eq!(again, ended);
    assert_eq!(same, digest, "the memory of both");
}

fn at_least(entries: usize) -> impl Fn(&[Item]) -> bool {
    move |items| items.len() >= entries
}

/// Pages that the guest below has, and those that it goes on writing. What is left after the first
/// round over the channel is fewer by more than a quarter, and too much for copies: who decides
/// makes another round.
const FILLED: u32 = 20_000;
const WRITTEN: u32 = 12_000;
const BURST: u32 = 50;

fn writer_is_carried(way: Way) {
    let Some(_) = host() else { return };
    let guest = writer_of_some(FILLED, WRITTEN, BURST, u32::MAX);
    let (clock, memory_bytes) = (guest.clock, guest.memory_bytes);
    let live = Live::start(guest);
    live.log.wait("the guest writes", at_least(100));
    let log = live.log.clone();
    let writes_on = |entries: u32| {
        let enough = log.len() + entries as usize;
        log.wait("the guest writes on", |items| items.len() > enough);
    };
    // It writes all that it writes in the first round, whose end is not sent yet, and goes on in
    // the next.
    let (received, sent) = carried(&live, memory_bytes, way, |number| match number {
        1 => writes_on(2 * WRITTEN / BURST),
        _ if number < 40 => writes_on(2),
        _ => {}
    });
    match way {
        Way::Decided => assert!(sent.rounds > 1, "{sent:?}"),
        Way::Copied => assert_eq!(sent.rounds, 1, "{sent:?}"),
    }
    assert!(sent.copied > 0, "{sent:?}");
    assert!(sent.pages >= u64::from(FILLED), "{sent:?}");
    check_end(live, End::AtAnExit, clock, received, &sent);
}

#[test]
fn one_that_writes_all_the_time_is_carried_in_rounds() {
    writer_is_carried(Way::Decided);
}

#[test]
fn one_that_writes_all_the_time_is_carried_as_copies() {
    writer_is_carried(Way::Copied);
}

/// It makes no exit for seconds: only a kick finds it, between two.
#[test]
fn one_that_makes_no_exit_is_carried_from_where_a_kick_finds_it() {
    let Some(_) = host() else { return };
    let memory_bytes = 32 << 20;
    let Some(guest) = image("compute", "megarounds=200", memory_bytes) else {
        return;
    };
    for way in [Way::Decided, Way::Copied] {
        let live = Live::start(guest.clone());
        live.log.wait("its first line", at_least(1));
        let (received, sent) = carried(&live, memory_bytes, way, |_| {});
        assert!(
            received.machine.position.between,
            "{:?}",
            received.machine.position
        );
        check_end(live, End::ByItself, guest.clock, received, &sent);
    }
}

fn is_frame(item: &Item) -> bool {
    let Item::Entry(entry) = item else { return false };
    matches!(
        &entry.body,
        Body::Event(Event {
            kind: EventKind::Frame(_),
            ..
        })
    )
}

fn frames(count: usize) -> impl Fn(&[Item]) -> bool {
    move |items| items.iter().filter(|item| is_frame(item)).count() >= count
}

/// A server with a timer: it idles, is captured while it does, and answers frames before, meanwhile
/// and after.
#[test]
fn one_that_idles_is_carried_with_frames_and_its_timer() {
    let Some(_) = host() else { return };
    let memory_bytes = 16 << 20;
    let Some(guest) = image("key-value", "ip=10.0.2.15/24", memory_bytes) else {
        return;
    };
    for way in [Way::Decided, Way::Copied] {
        let live = Live::start(guest.clone());
        live.log.wait("it starts", at_least(3));
        live.frame(asks_for_address());
        live.log.wait("a frame enters", frames(1));
        let mut asked = 1;
        let (received, sent) = carried(&live, memory_bytes, way, |number| {
            if number < 3 {
                live.frame(asks_for_address());
                asked += 1;
                live.log.wait("a frame enters meanwhile", frames(asked));
            }
        });
        for _ in 0..3 {
            live.frame(asks_for_address());
            asked += 1;
            live.log.wait("a frame enters afterwards", frames(asked));
        }
        check_end(live, End::WhereItIdles, guest.clock, received, &sent);
    }
}

/// All of memory, page by page.
fn content(memory: &Memory) -> Vec<Page> {
    (0..).map_while(|index| Page::of(memory, index)).collect()
}

/// The guest and our own devices write while the log is taken again and again: every page that
/// differs at the end was reported.
#[test]
fn no_page_that_was_written_is_left_out_of_the_dirty_log() {
    let Some(_) = host() else { return };
    // More than is protected at once, and written all over.
    let words = "ip=10.0.2.15/24 write_mib=70 write_pages=30000";
    let Some(guest) = image("key-value", words, 80 << 20) else {
        return;
    };
    let live = Live::start(guest);
    live.log.wait("it starts", at_least(3));
    let log = live.paused(|machine: &mut Machine<KvmCpu>| machine.vcpu().dirty_log());
    let logging = Arc::new(Mutex::new(log.start().unwrap()));
    let second = log.start().unwrap();
    // What was written before the second began is not in its log.
    let _before_both = logging.lock().unwrap().take().unwrap();
    let before = live.paused(|machine: &mut Machine<KvmCpu>| content(machine.memory()));
    let mut reported = PageSet::default();
    let mut from_guest = PageSet::default();
    for asked in 1..=4 {
        live.frame(asks_for_address());
        live.log.wait("a frame enters", frames(asked));
        from_guest.add(&logging.lock().unwrap().take_from_guest().unwrap());
        reported.add(&logging.lock().unwrap().take().unwrap());
    }
    let also_reported = second.take().unwrap();
    let kept_out = reported.iter().find(|page| !also_reported.contains(*page));
    assert_eq!(kept_out, None, "what one reader takes is kept for the other");
    drop(second);
    let far = (66 << 20) / PAGE_BYTES;
    while reported.next_from(far).is_none() {
        let before = live.log.len();
        live.log.wait("the guest writes on", |items| items.len() > before);
        reported.add(&logging.lock().unwrap().take().unwrap());
    }
    let last = logging.clone();
    let (left, after) = live.paused(move |machine: &mut Machine<KvmCpu>| {
        let left = last.lock().unwrap().take().unwrap();
        (left, content(machine.memory()))
    });
    reported.add(&from_guest);
    reported.add(&left);
    let changed: Vec<u64> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .map(|(page, _)| page.index)
        .collect();
    assert!(changed.iter().any(|page| *page >= far));
    assert!(
        changed.iter().all(|page| reported.contains(*page)),
        "changed {changed:?}, reported {:?}",
        reported.iter().collect::<Vec<_>>()
    );
    live.stop(true);
}

/// Whoever receives goes away: the guest runs on, and can be sent again.
#[test]
fn a_newcomer_that_goes_away_harms_nothing() {
    let Some(_) = host() else { return };
    let guest = writer(1500, 50, u32::MAX);
    let (clock, memory_bytes) = (guest.clock, guest.memory_bytes);
    let live = Live::start(guest);
    live.log.wait("the guest writes", at_least(100));
    let (records, mut arriving) = mpsc::channel(1);
    let mut transfer = send(live.control.clone(), PAIR, Way::Decided, records).unwrap();
    arriving.blocking_recv().unwrap();
    drop(arriving);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = runtime.block_on(transfer.outcome());
    assert!(matches!(outcome, Err(NotSent::Gone)), "{outcome:?}");

    let (received, sent) = carried(&live, memory_bytes, Way::Decided, |_| {});

    check_end(live, End::AtAnExit, clock, received, &sent);
}

#[test]
fn a_machine_that_is_over_is_not_sent() {
    let Some(_) = host() else { return };
    let live = Live::start(writer(16, 4, 1));
    let control = live.control.clone();
    live.ended();
    let (records, _arriving) = mpsc::channel(1);
    let mut transfer = send(control, PAIR, Way::Decided, records).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let outcome =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), transfer.outcome()).await });
    assert!(matches!(outcome, Ok(Err(NotSent::NoPause(_)))), "{outcome:?}");
}
