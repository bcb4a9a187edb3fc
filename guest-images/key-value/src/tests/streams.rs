//! However a stream is cut, and whatever it holds.

use super::{Numbers, Server, request};
use crate::{Next, OUTPUT_BYTES_FULL};

/// Streams tried.
const STREAMS: usize = 300;

/// A stream of good, odd and broken requests.
fn stream(numbers: &mut Numbers) -> Vec<u8> {
    const PIECES: &[&[u8]] = &[
        b"PING\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$2\r\n\r\n\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*2\r\n$4\r\nincr\r\n$1\r\nn\r\n",
        b"rpush l \"a \\x00 b\" c\r\n",
        b"lrange l 0 -1\n",
        b"*0\r\n",
        b"\r\n",
        b"nonsense 1 2\r\n",
    ];
    const BROKEN: &[&[u8]] = &[
        b"*x\r\n",
        b"*1\r\n$x\r\n",
        b"echo \"\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n$99",
        b"quit\r\n",
    ];
    let mut bytes = Vec::new();
    for _ in 0..numbers.below(40) {
        bytes.extend_from_slice(numbers.pick(PIECES));
    }
    if numbers.below(3) == 0 {
        bytes.extend_from_slice(numbers.pick(BROKEN));
        bytes.extend_from_slice(numbers.pick(PIECES));
    }
    bytes
}

fn in_pieces(bytes: &[u8], numbers: &mut Numbers, length_max: usize) -> (Vec<u8>, Next) {
    let (mut server, mut replies, mut next, mut rest) = (Server::new(), Vec::new(), Next::Open, bytes);
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(rest.len().min(1 + numbers.below(length_max)));
        let (reply, after) = server.send(piece);
        replies.extend(reply);
        (next, rest) = (after, later);
    }
    (replies, next)
}

#[test]
fn replies_do_not_depend_on_how_a_stream_is_cut() {
    let mut numbers = Numbers::from_environment();
    for _ in 0..STREAMS {
        let bytes = stream(&mut numbers);
        let whole = Server::new().send(&bytes);
        for length_max in [1, 2, 7, 64] {
            let cut = in_pieces(&bytes, &mut numbers, length_max);
            assert_eq!(cut, whole, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn limits_do_not_depend_on_how_a_stream_is_cut() {
    let mut numbers = Numbers::from_environment();
    let longest_line = [b"echo ".as_slice(), &[b'x'; 65_530], b"\n"].concat();
    let too_long_line = [b"echo ".as_slice(), &[b'x'; 65_532], b"\n"].concat();
    let argument = vec![b'x'; 1 << 20];
    let too_long = request(&[b"mset", b"a", &argument, b"b", &argument, b"c", &argument]);
    for (bytes, expected) in [
        (longest_line, Next::Open),
        (too_long_line, Next::Close),
        (too_long, Next::Close),
    ] {
        let whole = Server::new().send(&bytes);
        assert_eq!(whole.1, expected);
        assert_eq!(in_pieces(&bytes, &mut numbers, 9_000), whole);
    }
}

#[test]
fn a_pipeline_stops_when_the_output_is_full_and_goes_on() {
    let mut server = Server::new();
    let value = vec![b'x'; 1000];
    server.send(&request(&[b"set", b"k", &value]));
    let pipeline = request(&[b"get", b"k"]).repeat(1_000);
    let (mut replies, mut calls, mut input) = (0, 0, pipeline.as_slice());
    while calls == 0 || server.session.has_pending() {
        let mut output = Vec::new();
        server
            .session
            .receive(&mut server.database, &mut server.clock, input, &mut output);
        assert!(output.len() < OUTPUT_BYTES_FULL + 1_100);
        (replies, calls, input) = (replies + output.len(), calls + 1, b"");
    }
    assert_eq!((replies, calls), (1_000 * (value.len() + 9), 4));
    assert_eq!(server.session.buffered_bytes(), 0);
}

#[test]
fn any_bytes_are_survived_within_bounds() {
    let mut numbers = Numbers::from_environment();
    for _ in 0..STREAMS {
        let mut server = Server::with_memory(100_000);
        for _ in 0..20 {
            let bytes = any_bytes(&mut numbers);
            server.send(&bytes);
            assert!(server.session.buffered_bytes() <= crate::request::REQUEST_BYTES_MAX + 4_000);
        }
        assert!(server.database.used_bytes() <= 100_000);
    }
}

/// Bytes that mean something here more often than others, or a good stream with some bytes changed.
fn any_bytes(numbers: &mut Numbers) -> Vec<u8> {
    const LIKELY: &[u8] = b"**$$$\r\n\r\n\r\n0123456789-\"'\\ abx";
    if numbers.below(2) == 0 {
        return (0..numbers.below(2_000)).map(|_| numbers.pick(LIKELY)).collect();
    }
    let mut bytes = stream(numbers);
    for _ in 0..bytes.len().min(3) {
        let place = numbers.below(bytes.len());
        bytes[place] = numbers.next() as u8;
    }
    bytes
}
