//! The same requests to this server and to a real `redis-server` get the same replies.
//!
//! Where Redis leaves the order open, lines are compared sorted; where the time matters, only what kind of number it
//! is. Without a `redis-server` these tests say that they were skipped, and prove nothing.

use super::redis::Redis;
use super::{Numbers, Server, request};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Requests of the random part.
const REQUESTS: usize = 30_000;

/// Requests of the random part that are sent at once.
const BATCH: usize = 100;

/// Stands between the replies to two requests.
const MARK: &[u8] = b"<mark>";

/// Sends each request followed by a mark, and gives the replies to each.
fn replies(stream: &mut UnixStream, requests: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
    stream.write_all(&marked(requests)).unwrap();
    let (mut bytes, mut piece) = (Vec::new(), [0; 65_536]);
    while count_marks(&bytes) < requests.len() {
        let length = stream.read(&mut piece).unwrap();
        assert_ne!(length, 0, "redis-server closed the connection");
        bytes.extend_from_slice(&piece[..length]);
    }
    split(&bytes)
}

fn marked(requests: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for words in requests {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        bytes.extend_from_slice(&request(&words));
        bytes.extend_from_slice(&request(&[b"echo", MARK]));
    }
    bytes
}

fn mark_reply() -> Vec<u8> {
    [b"$6\r\n", MARK, b"\r\n"].concat()
}

fn count_marks(bytes: &[u8]) -> usize {
    let mark = mark_reply();
    bytes.windows(mark.len()).filter(|window| *window == mark).count()
}

fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mark = mark_reply();
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(&mark) {
            parts.push(bytes[start..at].to_vec());
            at += mark.len();
            start = at;
        } else {
            at += 1;
        }
    }
    parts
}

/// A reply without what may differ.
fn comparable(words: &[Vec<u8>], reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply).into_owned();
    let name = String::from_utf8_lossy(&words[0]).to_ascii_lowercase();
    match (name.as_str(), text.get(..1)) {
        ("keys" | "smembers" | "hgetall" | "scan", _) => {
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            lines.join("\n")
        }
        ("ttl" | "pttl", Some(":")) if !text.starts_with(":-") => "a time".to_owned(),
        _ => text,
    }
}

fn compare(server: &mut Server, stream: &mut UnixStream, requests: &[Vec<Vec<u8>>]) {
    let expected = replies(stream, requests);
    let (bytes, _) = server.send(&marked(requests));
    let actual = split(&bytes);
    assert_eq!(actual.len(), expected.len());
    for (words, (actual, expected)) in requests.iter().zip(actual.iter().zip(&expected)) {
        let shown: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        assert_eq!(
            comparable(words, actual),
            comparable(words, expected),
            "to {shown:?}"
        );
    }
}

/// Requests in the order they are sent, a few on each line, separated by semicolons. `""` is the empty word.
const EDGES: &str = include_str!("edges.txt");

fn words(line: &str) -> Vec<Vec<u8>> {
    let unquoted = |word: &str| {
        word.trim_matches('"')
            .replace("\\n", "\n")
            .replace("\\r", "\r")
            .into_bytes()
    };
    line.split(' ').map(unquoted).collect()
}

#[test]
fn known_edges_are_answered_as_redis_does() {
    let Some(redis) = Redis::start("edges") else {
        return;
    };
    let (mut server, mut stream) = (Server::new(), redis.connect());
    for line in EDGES.lines().flat_map(|line| line.split(" ; ")) {
        compare(&mut server, &mut stream, &[words(line)]);
    }
}

#[test]
fn random_requests_are_answered_as_redis_does() {
    let Some(redis) = Redis::start("random") else {
        return;
    };
    let (mut server, mut stream) = (Server::new(), redis.connect());
    let mut numbers = Numbers::from_environment();
    for _ in 0..REQUESTS / BATCH {
        let batch: Vec<_> = (0..BATCH).map(|_| random_request(&mut numbers)).collect();
        compare(&mut server, &mut stream, &batch);
    }
}

fn random_request(numbers: &mut Numbers) -> Vec<Vec<u8>> {
    const NAMES: &str = "get set set set getset setnx strlen del unlink exists type incr decr incrby decrby append mget \
                         mset ttl pttl persist lpush rpush lpop rpop llen lrange lindex sadd srem smembers sismember \
                         scard hset hget hdel hgetall hlen hexists keys dbsize select echo setex psetex expire pexpire";
    const WORDS: &str = "0/1/-1/2/10/100000/-100/9223372036854775807/-9223372036854775808/nx/XX/get/ex 100000/ex 0\
                         /px 200000/px x/keepttl/gt/lt/*/?1/[a-f]*// 1/1.0/x";
    let (names, others) = (
        NAMES.split(' ').collect::<Vec<_>>(),
        WORDS.split('/').collect::<Vec<_>>(),
    );
    let name = numbers.pick(&names);
    let mut request = vec![name.to_owned()];
    for place in 0..numbers.below(6) {
        match numbers.below(4) {
            _ if place == 0 => request.push(format!(
                "{}{}",
                numbers.pick(&["a", "b", "c", "d"]),
                numbers.below(5)
            )),
            _ if place == 1 && takes_time(name) => request.push(random_time(numbers)),
            0 => request.push(format!("v{}", numbers.below(8))),
            1 => request.push(numbers.below(100).to_string()),
            _ => request.extend(numbers.pick(&others).split(' ').map(str::to_owned)),
        }
    }
    request.into_iter().map(String::into_bytes).collect()
}

fn takes_time(name: &str) -> bool {
    ["setex", "psetex", "expire", "pexpire"].contains(&name)
}

/// None that passes during the test, as this server's clock stands still, and none that comes within
/// the test's duration of another: with `gt`, Redis compares them with what has passed.
fn random_time(numbers: &mut Numbers) -> String {
    const DISTANCE: u64 = 100_000;
    match numbers.below(7) {
        0 => "0".to_owned(),
        1 => "-1".to_owned(),
        2 => "x".to_owned(),
        3 => "9223372036854775807".to_owned(),
        _ => (DISTANCE * (3 + numbers.below(1_000_000) as u64)).to_string(),
    }
}

#[test]
fn streams_are_taken_apart_as_redis_does() {
    let Some(redis) = Redis::start("streams") else {
        return;
    };
    let big = "x".repeat(70_000);
    for stream in [
        "PING\r\n",
        "PING\n",
        "\r\n\r\nPING\r\n",
        "  ping  \r\n",
        "*0\r\nPING\r\n",
        "*-1\r\nPING\r\n",
        "*-10\r\nPING\r\n",
        "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
        "*1\r\n$4\r\nPING",
        "*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
        "*x\r\n",
        "*1x\r\n",
        "*\r\n",
        "* 1\r\n",
        "*+1\r\n",
        "*01\r\n",
        "*2147483648\r\n",
        "*99999999999999999999\r\n",
        "*1\r\nx3\r\nget\r\n",
        "*1\r\n\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$1048577\r\n",
        "*1\r\n$ 1\r\n",
        "*1\r\n*1\r\n",
        "*2\r\n$4\r\necho\r\n$0\r\n\r\n",
        "echo \"a b\"\r\n",
        "echo 'a b'\r\n",
        "echo \"\\x41\\n\\t\\\"\"\r\n",
        "echo 'it\\'s'\r\n",
        "echo \"a\r\n",
        "echo 'a\r\n",
        "echo \"a\"b\r\n",
        "echo 'a'b\r\n",
        "echo a\"b\"\r\n",
        "echo \"\"\r\n",
        "\"\"\r\n",
        "*1\r\n$0\r\n\r\n",
        "quit\r\nping\r\n",
        "*1\r\n$4\r\nquit\r\nping\r\n",
        "echo \\x41\r\n",
        "echo \"\\xzz\"\r\n",
        big.as_str(),
    ] {
        let expected = redis.send_alone(stream.as_bytes());
        let (actual, _) = Server::new().send(stream.as_bytes());
        let shown = stream.get(..100).unwrap_or(stream);
        assert_eq!(
            String::from_utf8_lossy(&actual),
            String::from_utf8_lossy(&expected),
            "{shown:?}"
        );
    }
}
