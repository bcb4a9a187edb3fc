//! A fake key-value store: the commands the clients use, in memory, and a RESP server around it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::resp::Reply;
use crate::workload::Command;

#[derive(Clone, Debug, Default)]
pub(crate) struct FakeStore {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    counts: BTreeMap<String, usize>,
}

impl FakeStore {
    /// Number of times that a command was carried out.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.counts.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn carry_out(&mut self, command: &Command) -> Reply {
        let parts: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let name = String::from_utf8_lossy(parts[0]).into_owned();
        *self.counts.entry(name).or_default() += 1;
        match parts[..] {
            [b"PING"] => Reply::Simple("PONG".into()),
            [b"SET", key, value] => {
                self.values.insert(key.to_vec(), value.to_vec());
                Reply::Simple("OK".into())
            }
            [b"GET", key] => self.values.get(key).cloned().map_or(Reply::Nil, Reply::Bulk),
            [b"INCR", key] => {
                let value = self.values.entry(key.to_vec()).or_insert_with(|| b"0".to_vec());
                let number = String::from_utf8_lossy(value).parse::<i64>().unwrap() + 1;
                *value = number.to_string().into_bytes();
                Reply::Integer(number)
            }
            [b"APPEND", key, more] => {
                let value = self.values.entry(key.to_vec()).or_default();
                value.extend_from_slice(more);
                Reply::Integer(value.len() as i64)
            }
            [b"DEL", key] => Reply::Integer(i64::from(self.values.remove(key).is_some())),
            _ => Reply::Error(format!("ERR unknown command {parts:?}")),
        }
    }
}

/// A server around a fake store.
#[derive(Clone)]
pub(super) struct FakeServer {
    pub(super) address: SocketAddr,
    pub(super) store: Arc<Mutex<FakeStore>>,
}

impl FakeServer {
    /// Serves; each connection is closed before the request with number `requests_max` is answered.
    pub(super) fn start(requests_max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            store: Arc::default(),
        };
        let store = Arc::clone(&server.store);
        // It ends with the test's process: nobody connects any more when the test is over.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let store = Arc::clone(&store);
                std::thread::spawn(move || serve(&mut stream.unwrap(), &store, requests_max));
            }
        });
        server
    }
}

fn serve(stream: &mut TcpStream, store: &Mutex<FakeStore>, requests_max: usize) {
    let mut received = Vec::new();
    for _ in 1..requests_max {
        let Some(command) = next_command(stream, &mut received) else {
            return;
        };
        let reply = store.lock().unwrap().carry_out(&command);
        if stream.write_all(&encode(&reply)).is_err() {
            return;
        }
    }
    // The last one is carried out, but its reply is lost.
    if let Some(command) = next_command(stream, &mut received) {
        store.lock().unwrap().carry_out(&command);
    }
}

fn encode(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Simple(text) => format!("+{text}\r\n").into_bytes(),
        Reply::Error(text) => format!("-{text}\r\n").into_bytes(),
        Reply::Integer(number) => format!(":{number}\r\n").into_bytes(),
        Reply::Nil => b"$-1\r\n".to_vec(),
        Reply::Bulk(bytes) => [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
    }
}

fn next_command(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<Command> {
    loop {
        if let Some((command, used)) = decode(received) {
            received.drain(..used);
            return Some(command);
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => received.extend_from_slice(&piece[..count]),
        }
    }
}

/// A whole command at the beginning of `bytes`, and its length.
fn decode(bytes: &[u8]) -> Option<(Command, usize)> {
    let line = |from: usize, kind: u8| -> Option<(usize, usize)> {
        let rest = bytes.get(from..)?;
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        assert_eq!(rest[0], kind);
        Some((
            String::from_utf8_lossy(&rest[1..end]).parse().unwrap(),
            from + end + 2,
        ))
    };
    let (count, mut at) = line(0, b'*')?;
    let mut command = Vec::new();
    for _ in 0..count {
        let (length, from) = line(at, b'$')?;
        command.push(bytes.get(from..from + length)?.to_vec());
        at = from + length + 2;
    }
    (at <= bytes.len()).then_some((command, at))
}
