//! Errors in Redis's words.

use super::{Server, request};
use crate::Next;

#[test]
fn commands_that_cannot_be_done_say_why() {
    let mut server = Server::new();
    server.line("set text abc");
    server.line("rpush list a");
    for (line, expected) in [
        ("get", "-ERR wrong number of arguments for 'get' command"),
        (
            "config get",
            "-ERR wrong number of arguments for 'config|get' command",
        ),
        ("config", "-ERR wrong number of arguments for 'config' command"),
        (
            "config nothing",
            "-ERR unknown subcommand 'nothing'. Try CONFIG HELP.",
        ),
        (
            "FOO a b",
            "-ERR unknown command 'FOO', with args beginning with: 'a' 'b'",
        ),
        (
            "get list",
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        ("incr text", "-ERR value is not an integer or out of range"),
        ("set a b c", "-ERR syntax error"),
        ("set a b ex 0", "-ERR invalid expire time in 'set' command"),
        ("set a b nx xx", "-ERR syntax error"),
        ("select 1", "-ERR DB index is out of range"),
        ("hello 3", "-NOPROTO unsupported protocol version"),
        ("lpop list -1", "-ERR value is out of range, must be positive"),
        ("scan x", "-ERR invalid cursor"),
        (
            "config set maxmemory 1",
            "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - can't set immutable config",
        ),
        (
            "config set foo 1",
            "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'",
        ),
    ] {
        assert_eq!(server.line(line), expected, "{line}");
    }
}

#[test]
fn a_stream_that_makes_no_sense_ends_the_connection() {
    for (stream, expected) in [
        ("*x\r\n", "invalid multibulk length"),
        ("*1\r\nx3\r\nget\r\n", "expected '$', got 'x'"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$1048577\r\n", "invalid bulk length"),
        ("get \"a\r\n", "unbalanced quotes in request"),
    ] {
        let (reply, next) = Server::new().send(stream.as_bytes());
        assert_eq!(
            String::from_utf8(reply).unwrap(),
            format!("-ERR Protocol error: {expected}\r\n")
        );
        assert_eq!(next, Next::Close);
    }
}

#[test]
fn lines_without_end_end_the_connection() {
    for (start, expected) in [
        ("", "too big inline request"),
        ("*", "too big mbulk count string"),
        ("*1\r\n$", "too big bulk count string"),
    ] {
        let mut stream = start.as_bytes().to_vec();
        stream.resize(70_000, b'1');
        let (reply, next) = Server::new().send(&stream);
        assert_eq!(
            String::from_utf8(reply).unwrap(),
            format!("-ERR Protocol error: {expected}\r\n")
        );
        assert_eq!(next, Next::Close);
    }
}

#[test]
fn nothing_is_done_after_the_connection_is_to_be_closed() {
    let mut server = Server::new();
    let (reply, next) = server.send(b"quit\r\nset a b\r\n");
    assert_eq!((reply.as_slice(), next), (&b"+OK\r\n"[..], Next::Close));
    assert_eq!(server.send(b"ping\r\n"), (Vec::new(), Next::Close));
    server.session = crate::Session::new(8);
    assert_eq!(server.line("exists a"), ":0");
}

#[test]
fn a_full_keyspace_refuses_what_adds_and_allows_what_removes() {
    let mut server = Server::with_memory(2_000);
    server.line("set big 0123456789");
    while server.line("append big 0123456789").starts_with(':') {}
    assert_eq!(
        server.line("set a b"),
        "-OOM command not allowed when used memory > 'maxmemory'."
    );
    assert_eq!(server.line("expire big 100"), ":1");
    assert_eq!(server.line("del big"), ":1");
    assert_eq!(server.line("set a b"), "+OK");
}

#[test]
fn no_request_takes_more_memory_than_there_is() {
    for name in ["mset", "sadd", "rpush", "hset"] {
        let mut server = Server::with_memory(1 << 20);
        let members: Vec<String> = (0..100_000).map(|member| member.to_string()).collect();
        let mut words: Vec<&[u8]> = members.iter().map(String::as_bytes).collect();
        words.insert(0, name.as_bytes());
        let (reply, _) = server.send(&request(&words));
        assert_eq!(
            reply, b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
            "{name}"
        );
        assert_eq!(server.database.used_bytes(), 0);
    }
}

#[test]
fn what_is_used_is_given_back() {
    let mut server = Server::new();
    let lines = "set a b ex 100/set a longer-than-before keepttl/append a more/expire a 200/persist a/expire a 300\
                 /set a b/rpush l a b c/lpop l/sadd s a b c/spop s/srem s b/hset h f v g w/hset h f longer/hdel h g\
                 /mset m 1 n 2/incr m/getset n x/set l text";
    for line in lines.split('/') {
        assert!(!server.line(line).starts_with('-'), "{line}");
    }
    assert!(server.database.used_bytes() > 0);
    assert_eq!(server.line("del a l s h m n"), ":6");
    assert_eq!(server.database.used_bytes(), 0);
}

#[test]
fn a_reply_that_is_too_long_ends_the_connection() {
    let mut server = Server::new();
    let value = vec![b'x'; 1 << 20];
    server.send(&request(&[b"set", b"k", &value]));
    let mut words: Vec<&[u8]> = vec![b"k"; 18];
    words[0] = b"mget";
    let (reply, next) = server.send(&request(&words));
    assert_eq!(reply, b"-ERR reply is longer than 16777216 bytes\r\n");
    assert_eq!(next, Next::Close);
}
