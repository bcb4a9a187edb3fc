//! The Output Rule from outside: nothing leaves before the backup has acknowledged the log that
//! explains it, and the guest goes on meanwhile.

use lockstep_logging_channel::{Body, Digest, EndReason, Entry, EventKind, OutputKind};
use lockstep_tests::harness::{Client, Guest, Pair, PairSpec, Reply, kvm, wait_until};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

fn sent_by_the_guest(entries: &[Entry], kind: OutputKind) -> Vec<Digest> {
    let digest = |entry: &Entry| match &entry.body {
        Body::Output(output) if output.target.kind == kind => Some(output.digest),
        _ => None,
    };
    entries.iter().filter_map(digest).collect()
}

/// Digests of the frames that the primary has let out, in order.
fn left(pair: &Pair) -> Vec<Digest> {
    let (interface, _) = pair
        .switch()
        .announced(1)
        .expect("a primary that has announced itself");
    let frames = pair.switch().frames();
    frames
        .iter()
        .filter(|frame| frame.interface == interface)
        .map(|frame| Digest::of(&frame.bytes))
        .collect()
}

#[test]
fn with_acknowledgements_held_back_no_frame_leaves_and_the_guest_goes_on() {
    let Some(_kvm) = kvm::alone() else { return };
    let pair = PairSpec::new(Guest::KeyValue).with_switch().with_proxy().start();
    let (mut first, mut second) = (pair.client(), pair.client());
    pair.proxy().hold_acknowledgements();
    let before = pair.proxy().entries().len();
    let held = || sent_by_the_guest(&pair.proxy().entries()[before..], OutputKind::Frame);

    // A reply is an output: the guest has answered when its log says so.
    first.send(&["SET", "key", "value"]).unwrap();
    wait_until(
        || (!held().is_empty()).then_some(()),
        || "an answer of the guest".to_owned(),
    );
    let answers = held().len();
    second.send(&["GET", "key"]).unwrap();
    wait_until(
        || (held().len() > answers).then_some(()),
        || "another answer of the guest".to_owned(),
    );
    wait_until(
        || (pair.proxy().acknowledgements_held() > 0).then_some(()),
        || "an acknowledgement".to_owned(),
    );

    assert!(
        !first.has_answer() && !second.has_answer(),
        "an answer came before its acknowledgement"
    );
    let (leaked, waiting) = (left(&pair), held());
    assert!(
        !leaked.iter().any(|digest| waiting.contains(digest)),
        "a frame left before its acknowledgement"
    );

    pair.proxy().release_acknowledgements();
    assert_eq!(first.receive().unwrap(), Reply::ok());
    assert_eq!(second.receive().unwrap(), Reply::bulk("value"));
    let all_left = || {
        let left: Vec<_> = left(&pair)
            .into_iter()
            .filter(|digest| waiting.contains(digest))
            .collect();
        (left.len() >= waiting.len()).then_some(left)
    };
    assert_eq!(
        wait_until(all_left, || "every frame that was held".to_owned()),
        waiting,
        "in the guest's order"
    );
}

#[test]
fn with_acknowledgements_held_back_the_guest_runs_to_its_end_and_says_nothing() {
    let Some(_kvm) = kvm::alone() else { return };
    let options = "sources=tsc,random,halt,timer3 rounds=10 spin3=20000 landings=3";
    let mut pair = PairSpec::new(Guest::Entropy)
        .setting("command-line", options)
        .setting("memory-mib", "16")
        .with_held_acknowledgements()
        .start();
    let ended =
        |entry: &Entry| matches!(&entry.body, Body::End(end) if end.reason == EndReason::PoweredOff(0));
    wait_until(
        || pair.proxy().entries().iter().any(ended).then_some(()),
        || "the end of the guest".to_owned(),
    );
    let said = sent_by_the_guest(&pair.proxy().entries(), OutputKind::Text);
    assert!(said.len() > 3, "{said:?}");
    assert_eq!(
        pair.primary.process.stdout(),
        "",
        "said before it was acknowledged"
    );
    assert!(pair.primary.process.is_running());

    pair.proxy().release_acknowledgements();
    let primary = pair.primary.process.wait().expect_code(0);
    let backup = pair.backup.process.wait().expect_code(0);
    assert!(
        primary.stdout.starts_with(&format!("entropy: {options}\n")),
        "{primary}"
    );
    assert!(
        primary.stdout.ends_with("entropy: 4 sources asked, 0 unknown\n"),
        "{primary}"
    );
    assert_eq!(backup.stdout, "", "the primary had said it all");
    assert_eq!(pair.primary.summary()["outputs"], said.len());
    assert_eq!(pair.backup.summary()["divergences"], 0);
}

/// Flags of a TCP segment.
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Source port and flags of a TCP segment over IPv4 without options, in an Ethernet frame.
fn segment(frame: &[u8]) -> Option<(u16, u8)> {
    let is_tcp = frame.get(12..15)? == [8, 0, 0x45] && frame.get(23) == Some(&6);
    let port = u16::from_be_bytes([*frame.get(34)?, *frame.get(35)?]);
    is_tcp.then_some((port, *frame.get(47)?))
}

/// Segments that have entered the guest, in order.
fn segments(pair: &Pair) -> Vec<(u16, u8)> {
    let entries = pair.proxy().entries();
    let frames = entries.iter().filter_map(|entry| match &entry.body {
        Body::Event(event) => match &event.kind {
            EventKind::Frame(bytes) => segment(bytes),
            _ => None,
        },
        _ => None,
    });
    frames.collect()
}

/// On a slow host the answer to a client that connects takes so long that it asks again.
/// Meanwhile a socket of the guest before its own has become free.
#[test]
fn a_client_that_asks_again_for_its_connection_keeps_it() {
    let Some(_kvm) = kvm::alone() else { return };
    let pair = PairSpec::new(Guest::KeyValue).with_switch().with_proxy().start();
    let earlier = pair.client();
    let begun = segments(&pair).len();
    let later = |flags: u8| {
        segments(&pair)[begun..]
            .iter()
            .filter(|(_, has)| has & (flags | ACK) == flags)
            .count()
    };
    pair.proxy().hold_acknowledgements();
    let mut client = Client::open(pair.switch().client_address()).unwrap();
    client.send(&["SET", "key", "value"]).unwrap();
    wait_until(
        || (later(SYN) > 0).then_some(()),
        || "a client that asks".to_owned(),
    );

    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&earlier.stream().unwrap(), sockopt::Linger, &at_once).unwrap();
    drop(earlier);
    let reset = || segments(&pair)[begun..].iter().any(|(_, flags)| flags & RST != 0);
    wait_until(|| reset().then_some(()), || "a reset".to_owned());
    let asked = later(SYN);
    wait_until(
        || (later(SYN) > asked).then_some(()),
        || "the same client, again".to_owned(),
    );
    pair.proxy().release_acknowledgements();

    assert_eq!(client.receive().unwrap(), Reply::ok());
    assert_eq!(client.call(&["GET", "key"]), Reply::bulk("value"));
}
