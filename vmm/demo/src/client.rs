//! One client: a TCP connection that is kept, and never made again.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::control::Control;
use super::resp::{self, Reply};
use super::workload::{Command, Judgement, Workload};
use lockstep_process::clock::monotonic_ns;

/// A reply that takes longer does not come: a hundred times what a failover may take.
const REPLY_TIME_MAX: Duration = Duration::from_secs(20);

/// Bytes read at a time.
const READ_BYTES: usize = 4096;

/// A connection that speaks RESP.
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Sends one command and waits for its reply.
    pub(super) async fn ask(&mut self, command: &Command) -> io::Result<Reply> {
        let parts: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let mut request = Vec::new();
        resp::append_command(&mut request, &parts);
        let exchange = async {
            self.stream.write_all(&request).await?;
            self.reply().await
        };
        timeout(REPLY_TIME_MAX, exchange).await.unwrap_or_else(|_| {
            let text = format!("no reply within {} s", REPLY_TIME_MAX.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    async fn reply(&mut self) -> io::Result<Reply> {
        loop {
            let parsed = resp::parse(&self.received);
            let parsed = parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some((reply, used)) = parsed {
                self.received.drain(..used);
                return Ok(reply);
            }
            let mut piece = [0; READ_BYTES];
            let count = self.stream.read(&mut piece).await?;
            if count == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection was closed",
                ));
            }
            self.received
                .extend_from_slice(piece.get(..count).unwrap_or_default());
        }
    }
}

/// Record of what a client did and saw.
pub(super) struct ClientRecord {
    /// Its part of the store.
    pub(super) workload: Workload,
    /// Writes acknowledged.
    pub(super) acknowledged_writes: u64,
    /// Answers that were not the right one.
    pub(super) wrong_answers: u64,
    /// The first of them.
    pub(super) complaint: Option<String>,
    /// Reason why its connection broke, if it did.
    pub(super) broken: Option<String>,
}

impl ClientRecord {
    fn new(workload: Workload) -> Self {
        Self {
            workload,
            acknowledged_writes: 0,
            wrong_answers: 0,
            complaint: None,
            broken: None,
        }
    }

    fn take(&mut self, reply: &Reply, control: &Control) {
        match self.workload.take(reply) {
            Judgement::Right => {}
            Judgement::Acknowledged => {
                self.acknowledged_writes += 1;
                control.acknowledge();
            }
            Judgement::Wrong(complaint) => {
                self.wrong_answers += 1;
                self.complaint.get_or_insert(complaint);
            }
        }
    }
}

/// Asks until it is told to stop or the connection breaks.
pub(super) async fn drive(mut connection: Connection, workload: Workload, control: &Control) -> ClientRecord {
    let mut record = ClientRecord::new(workload);
    while !control.is_stopped() {
        let command = record.workload.next();
        let sent_ns = monotonic_ns();
        let outcome = connection.ask(&command).await;
        control.waited(sent_ns, monotonic_ns());
        match outcome {
            Ok(reply) => record.take(&reply, control),
            Err(error) => {
                record.broken = Some(error.to_string());
                break;
            }
        }
    }
    record
}

/// Asks everything that tells what the store holds.
pub(super) async fn read_back(connection: &mut Connection, workload: &Workload) -> io::Result<Vec<Reply>> {
    let mut answers = Vec::new();
    for question in workload.questions() {
        answers.push(connection.ask(&question).await?);
    }
    Ok(answers)
}
