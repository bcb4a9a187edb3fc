//! Debian's nginx: a file that is under way when its primary is killed arrives whole, over one TCP
//! connection.

use lockstep_tests::harness::{Linux, PATIENCE, PairSpec, kvm, linux, wait_until};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Mebibytes of the file.
const PARTS: usize = 50;
/// Numbers in each, of seven digits and a line's end.
const NUMBERS: u32 = (1 << 20) / 8;
/// Bytes that are read before the primary is killed. More of the file is left than what can be
/// between nginx and its client: 4 MiB in the guest's socket, 4 MiB in that of the switch's relay,
/// and what the client's own socket holds.
const READ_BEFORE: usize = (PARTS / 4) << 20;
const RECEIVE_BUFFER: usize = 64 << 10;

/// File that `serve SEED PARTS` makes in the guest.
fn file(seed: u32) -> Vec<u8> {
    let mebibyte: String = (seed..seed + NUMBERS)
        .map(|number| format!("{number}\n"))
        .collect();
    let parts = (1..=PARTS).map(|part| format!("part {part}\n{mebibyte}"));
    parts.collect::<String>().into_bytes()
}

/// A connection with an answer under way: its head has been read. None where the guest does not
/// serve yet.
fn requested(address: SocketAddr) -> Option<BufReader<TcpStream>> {
    let turned_away = |why: io::Error| {
        let known = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(known.contains(&why.kind()), "no answer: {why}");
    };
    let mut stream = TcpStream::connect(address).unwrap();
    setsockopt(&stream, sockopt::RcvBuf, &RECEIVE_BUFFER).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = b"GET /file HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n";
    stream.write_all(request).map_err(turned_away).ok()?;
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let count = stream.read_line(&mut head).map_err(turned_away).ok()?;
        if count == 0 {
            assert_eq!(head, "", "an answer ends in its head");
            return None;
        }
    }
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nServer: nginx/"), "{head}");
    Some(stream)
}

#[test]
fn a_file_in_transfer_arrives_whole_when_the_primary_is_killed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let seed = 1_000_000 + std::process::id() % 8_000_000;
    println!("seed: {seed}");
    let expected = file(seed);
    let serve = Linux::running(&format!("serve {seed} {PARTS}"));
    let mut pair = PairSpec::serving(Linux::Nginx, &serve).start();
    pair.primary.process.wait_for_stdout("serve: /www/file has");
    let address = pair.switch().client_address();
    let mut answer = wait_until(|| requested(address), || "an answer".to_owned());

    let mut received = vec![0; READ_BEFORE];
    answer.read_exact(&mut received).unwrap();
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    answer.read_to_end(&mut received).unwrap();

    let different = received
        .iter()
        .zip(&expected)
        .position(|(one, other)| one != other);
    assert_eq!(different, None, "first byte that is another one");
    assert_eq!(received.len(), expected.len());
    let _ = pair.backup.stop().expect_code(0);
    assert_eq!(pair.backup.summary()["divergences"], 0);
}
