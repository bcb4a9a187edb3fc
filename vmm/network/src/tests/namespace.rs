//! Over a TAP interface in a network namespace of its own.

use super::*;
use nix::sched::{CloneFlags, unshare};
use std::process::Command;

const MAC: MacAddress = [0x02, 0, 0, 0, 0, 0x15];

/// Runs `test` on a thread of its own in a network namespace of its own, or says why not.
fn run(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        skip("a network namespace and a TAP interface need root");
        return;
    }
    let thread = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            skip(&format!("no network namespace here: {error}"));
            return;
        }
        test();
    });
    thread.join().unwrap();
}

fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

fn attachment() -> Attachment {
    Attachment::Tap("lockstep0".into())
}

/// Makes the interface; false, said, where the host has no TAP.
fn add() -> bool {
    let offered = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    if let Err(error) = &offered {
        skip(&format!("no /dev/net/tun here: {error}"));
        return false;
    }
    ip("tuntap add dev lockstep0 mode tap");
    true
}

/// A new interface, attached; none, said, where the host has no TAP.
fn attached() -> Option<Link> {
    add().then(|| attachment().attach().unwrap())
}

fn block_on(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(test);
}

/// The next frame that announces a move of the guest, as the host sees it.
fn packet_socket() -> std::os::fd::OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
    let every_type = u16::to_be(libc::ETH_P_ALL as u16);
    let protocol = nix::sys::socket::SockProtocol::EthAll;
    assert_eq!(protocol as u16, every_type);
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )
    .unwrap();
    let second = nix::sys::time::TimeVal::new(20, 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &second).unwrap();
    socket
}

/// Waits until the host has received an announcement of the guest's address.
fn await_move(socket: &std::os::fd::OwnedFd) {
    let mut buffer = [0; 2048];
    loop {
        let count = nix::unistd::read(socket, &mut buffer).expect("an announcement in time");
        if buffer.get(..count) == Some(&gratuitous_arp(MAC, None)[..]) {
            return;
        }
    }
}

/// Runs `test` as [`run`] does, with an interface that is up and a link to it that announces the
/// guest.
fn run_announcing(test: impl AsyncFnOnce(NetworkSender, NetworkReceiver) + Send + 'static) {
    run(|| {
        if !add() {
            return;
        }
        up();
        block_on(async {
            let (mut sender, receiver) = open(&attachment()).await.unwrap();
            sender.may_speak_until(u64::MAX);
            sender.announce([1; 16], lockstep_logging_channel::Generation(1), MAC);
            test(sender, receiver).await;
        });
    });
}

/// Receives for ever: the link does its part meanwhile.
async fn drain(receiver: &mut NetworkReceiver) {
    loop {
        receiver.recv().await;
    }
}

/// Waits for an announcement, while the link does its part.
async fn expect_move(host: std::os::fd::OwnedFd, receiver: &mut NetworkReceiver) {
    let seen = tokio::task::spawn_blocking(move || await_move(&host));
    tokio::select! {
        seen = seen => seen.unwrap(),
        () = drain(receiver) => {}
    }
}

fn up() {
    ip("link set dev lockstep0 arp on up");
    ip("address add 10.9.0.1/24 dev lockstep0");
}

#[test]
fn the_host_answers_and_learns_the_guest() {
    run(|| {
        let Some(link) = attached() else { return };
        up();
        let (mut sender, mut receiver) = link.split_blocking();
        let request = ArpPacket::request_frame((MAC, [10, 9, 0, 15].into()), [10, 9, 0, 1].into());

        sender.send(&request).unwrap();

        let answered = std::iter::from_fn(|| receiver.recv(SOON).unwrap())
            .find_map(|frame| ArpPacket::sender_of(&frame).map(|(address, _)| address));
        assert_eq!(answered, Some([10, 9, 0, 1].into()));
        assert_eq!(sender.dropped_frames(), 0);
    });
}

#[test]
fn frames_come_through_tokio_too() {
    run(|| {
        let Some(link) = attached() else { return };
        up();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut sender, mut receiver) = link.split().unwrap();
            sender
                .send(&ArpPacket::request_frame(
                    (MAC, [10, 9, 0, 15].into()),
                    [10, 9, 0, 1].into(),
                ))
                .unwrap();
            let answer = async {
                loop {
                    if let Some(sender) = ArpPacket::sender_of(&receiver.recv().await.unwrap()) {
                        return sender.0;
                    }
                }
            };
            let address = tokio::time::timeout(SOON, answer).await.unwrap();
            assert_eq!(address, std::net::Ipv4Addr::new(10, 9, 0, 1));
        });
    });
}

#[test]
fn an_interface_that_is_down_loses_frames_and_one_that_is_taken_is_refused() {
    run(|| {
        let Some(link) = attached() else { return };
        let (mut sender, _receiver) = link.split_blocking();

        sender.send(&gratuitous_arp(MAC, None)).unwrap();
        let second = Attachment::Tap("lockstep0".into()).attach();

        assert_eq!(sender.dropped_frames(), 1);
        let told = second.err().expect("two on one interface").to_string();
        assert!(
            told.contains("lockstep0") && told.contains("ip tuntap add"),
            "{told}"
        );
    });
}

#[test]
fn what_is_not_a_tap_interface_is_refused_by_name_and_nothing_is_made() {
    run(|| {
        if !add() {
            return;
        }
        ip("tuntap add dev tun0 mode tun");
        for (name, hint) in [
            ("nowhere0", "does not exist"),
            ("lo", "is not a TAP interface"),
            ("tun0", "is not a TAP interface"),
        ] {
            let told = Attachment::Tap(name.into())
                .attach()
                .err()
                .expect(name)
                .to_string();
            assert!(told.contains(name) && told.contains(hint), "{told}");
        }
        let missing = nix::net::if_::if_nametoindex("nowhere0");
        assert!(missing.is_err(), "the interface was made");
    });
}

#[test]
fn an_interface_that_is_deleted_and_made_again_is_attached_again_and_announced() {
    run_announcing(async |mut sender, mut receiver| {
        ip("link delete dev lockstep0");
        sender.send_batch(std::iter::once(&[0; 60][..]));
        let lost = tokio::time::timeout(Duration::from_millis(200), receiver.recv()).await;
        assert!(lost.is_err(), "no frame and no end");
        assert_eq!(sender.counts().dropped_frames(), 1);
        assert!(add());
        up();
        let host = packet_socket();
        // It may send its first announcement before the socket listens; the later ones it does not.
        expect_move(host, &mut receiver).await;
    });
}

#[test]
fn an_interface_that_comes_up_again_is_announced_on_again() {
    run_announcing(async |mut sender, mut receiver| {
        // The schedule comes to its end.
        let over = Duration::from_millis(1500);
        assert!(tokio::time::timeout(over, drain(&mut receiver)).await.is_err());

        ip("link set dev lockstep0 down");
        let down = Duration::from_millis(300);
        assert!(tokio::time::timeout(down, drain(&mut receiver)).await.is_err());
        sender.send_batch(std::iter::once(&[0; 60][..]));
        assert_eq!(sender.counts().dropped_frames(), 1);
        let host = packet_socket();
        ip("link set dev lockstep0 up");
        expect_move(host, &mut receiver).await;
    });
}

/// Past the test runner's capturing: `tests/counted` counts these lines.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {}: {why}", module_path!());
}
