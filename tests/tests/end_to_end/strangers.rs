//! Strangers at the address of a channel: port scans, health checks, browsers, floods and silence.
//! None of them ends a primary that waits, keeps its backup out, or disturbs a pair.

use lockstep_tests::harness::{Guest, PairSpec, Replica, Scratch, Switch, free_port, kvm, wait_until};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

/// More than the handshakes that a primary keeps open.
const SILENT: usize = 70;
const RESETS: usize = 200;

/// What scanners, browsers and broken peers say.
const NOISE: [&[u8]; 7] = [
    b"GET /health HTTP/1.1\r\nHost: lockstep\r\n\r\n",
    // The beginning of a TLS hello.
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-scanner\r\n",
    // The beginning of a record.
    b"LSTP\x01\x00\x00\x01",
    // A record of 4 GiB.
    b"LSTP\x01\x00\x00\x01\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
      \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    // A record of a later format.
    b"LSTP\x09\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
      \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x00",
];

fn side(scratch: &Scratch, spec: &PairSpec, role: &str, channel: &str) -> Replica {
    let report = scratch.join(&format!("{role}.jsonl"));
    let mut command = spec.command(role, channel, &scratch.join("shared"), &report);
    Replica::start(role, &mut command, report)
}

/// A primary that waits on a TCP port, and where.
fn waiting(scratch: &Scratch, spec: &PairSpec) -> (Replica, String, SocketAddr) {
    scratch.directory("shared");
    let address = free_port();
    let channel = format!("tcp:{address}");
    let mut primary = side(scratch, spec, "primary", &channel);
    primary.wait_for("listening");
    (primary, channel, address)
}

/// Connects, and resets the connection at once.
fn reset(address: SocketAddr) {
    let stream = TcpStream::connect(address).unwrap();
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
}

#[test]
fn scans_floods_and_silence_do_not_keep_a_backup_out() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let spec = PairSpec::new(Guest::Compute).setting("command-line", "megarounds=10");
    let start = Instant::now();
    let (mut primary, channel, address) = waiting(&scratch, &spec);
    for _ in 0..RESETS {
        reset(address);
    }
    let mut held: Vec<TcpStream> = (0..SILENT)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for noise in NOISE {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(noise).unwrap();
        held.push(stream);
    }
    for _ in 0..RESETS {
        reset(address);
    }

    let mut backup = side(&scratch, &spec, "backup", &channel);
    let _ = backup.process.wait().expect_code(0);
    let primary = primary.process.wait().expect_code(0);
    let minutes = 1 + start.elapsed().as_secs() / 60;
    let told: Vec<&str> = primary
        .stderr
        .lines()
        .filter(|line| line.contains("not a backup"))
        .collect();
    // The first at once, and the others when a minute is over or the backup is there.
    assert!((2..=1 + minutes).contains(&(told.len() as u64)), "{primary}");
    assert!(told.iter().all(|line| line.contains("INFO")), "{told:#?}");
    assert!(!primary.stderr.contains("ERROR"), "{primary}");
}

#[test]
fn a_pair_listens_to_nobody_else() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let spec = PairSpec::new(Guest::KeyValue);
    let (mut primary, channel, address) = waiting(&scratch, &spec);
    let mut backup = side(&scratch, &spec, "backup", &channel);
    primary.wait_for("protected");
    backup.wait_for("protected");
    for _ in 0..20 {
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    let _ = primary.stop().expect_code(0);
    backup.wait_for("live");
    let _ = backup.stop().expect_code(0);
}

#[test]
fn a_primary_that_is_lost_before_it_answers_is_looked_for_again() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    scratch.directory("shared");
    let spec = PairSpec::new(Guest::Compute).setting("command-line", "megarounds=10");
    let channel = format!("unix:{}", scratch.text("channel"));
    let lost = UnixListener::bind(scratch.join("channel")).unwrap();
    lost.set_nonblocking(true).unwrap();
    let mut backup = side(&scratch, &spec, "backup", &channel);
    for _ in 0..2 {
        let taken = wait_until(|| lost.accept().ok(), || "a backup that connects".to_owned());
        drop(taken);
    }
    backup.process.wait_for_stderr("no answer yet, trying again");
    drop(lost);
    let mut primary = side(&scratch, &spec, "primary", &channel);
    let _ = primary.process.wait().expect_code(0);
    let _ = backup.process.wait().expect_code(0);
}

#[test]
fn health_checks_of_a_switch_without_a_guest_are_one_line() {
    let scratch = Scratch::new();
    let mut switch = Switch::start(&scratch);
    let attachment = switch.attachment();
    let socket = attachment.strip_prefix("switch:").unwrap();
    for _ in 0..20 {
        drop(UnixStream::connect(socket).unwrap());
    }
    let clients: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(switch.client_address()).unwrap())
        .collect();
    for mut client in clients {
        let turned_away = client.read(&mut [0]).unwrap_err();
        assert_eq!(turned_away.kind(), ErrorKind::ConnectionReset);
    }
    let ended = switch.stop().expect_code(0);
    assert_eq!(ended.stderr.matches("turned away").count(), 1, "{ended}");
    assert_eq!(ended.stderr.matches("machine").count(), 0, "{ended}");
}
