//! A client of the Redis protocol (RESP2) that holds one connection, and says when it breaks.

use super::{PATIENCE, wait_until};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`.
    Simple(String),
    /// `-ERR ...`.
    Error(String),
    /// `:1`.
    Integer(i64),
    /// Bytes, or nil.
    Bulk(Option<Vec<u8>>),
    /// Several.
    Array(Vec<Reply>),
}

impl Reply {
    /// `+OK`.
    #[must_use]
    pub fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }

    /// These bytes.
    #[must_use]
    pub fn bulk(text: &str) -> Self {
        Self::Bulk(Some(text.as_bytes().to_vec()))
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects, and waits until the server answers. A switch turns a client away whose guest takes long to boot: then again.
    ///
    /// # Panics
    /// It never does.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        let greeted = || {
            let mut client =
                Self::open(address).unwrap_or_else(|why| panic!("cannot connect to {address}: {why}"));
            match client.try_call(&["PING"]) {
                Ok(reply) => assert_eq!(reply, Reply::Simple("PONG".to_owned())),
                Err(why) if why.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(why) => panic!("no greeting from {address}: {why}"),
            }
            Some(client)
        };
        wait_until(greeted, || format!("an answer from {address}"))
    }

    /// Connects.
    ///
    /// # Errors
    /// The host's.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// The connection itself, for another thread to close.
    ///
    /// # Errors
    /// The host's.
    pub fn stream(&self) -> io::Result<TcpStream> {
        self.stream.get_ref().try_clone()
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Panics
    /// The connection breaks, or the answer takes longer than [`PATIENCE`].
    pub fn call(&mut self, command: &[&str]) -> Reply {
        self.try_call(command)
            .unwrap_or_else(|why| panic!("{command:?}: {why}"))
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// The connection broke, or the answer took longer than [`PATIENCE`].
    pub fn try_call(&mut self, command: &[&str]) -> io::Result<Reply> {
        self.send(command)?;
        self.receive()
    }

    /// Sends a command; its answer comes by [`Client::receive`].
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(&mut self, command: &[&str]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        self.stream.get_mut().write_all(&bytes)
    }

    /// Whether an answer has begun to come. Does not wait.
    ///
    /// # Panics
    /// The connection broke.
    pub fn has_answer(&mut self) -> bool {
        if !self.stream.buffer().is_empty() {
            return true;
        }
        self.stream.get_ref().set_nonblocking(true).unwrap();
        let mut byte = [0];
        let seen = self.stream.get_ref().peek(&mut byte);
        self.stream.get_ref().set_nonblocking(false).unwrap();
        match seen {
            Ok(0) => panic!("the connection was closed"),
            Ok(_) => true,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => false,
            Err(why) => panic!("the connection broke: {why}"),
        }
    }

    /// The next answer.
    ///
    /// # Errors
    /// The connection broke, the answer took longer than [`PATIENCE`], or it is none.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let strange = || io::Error::other(format!("`{line}` is no reply"));
        let (kind, rest) = line.split_at_checked(1).ok_or_else(strange)?;
        match kind {
            "+" => Ok(Reply::Simple(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => rest.parse().map(Reply::Integer).map_err(|_| strange()),
            "$" => self.bulk(rest.parse().map_err(|_| strange())?),
            "*" => {
                let count: usize = rest.parse().map_err(|_| strange())?;
                (0..count)
                    .map(|_| self.receive())
                    .collect::<io::Result<_>>()
                    .map(Reply::Array)
            }
            _ => Err(strange()),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn bulk(&mut self, length: i64) -> io::Result<Reply> {
        let Ok(length) = usize::try_from(length) else {
            return Ok(Reply::Bulk(None));
        };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(Reply::Bulk(Some(bytes)))
    }
}
