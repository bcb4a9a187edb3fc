//! The switch's frame input. Whatever attached machines send: no panic; a stream that is not one is
//! refused, and no other; what waits at a port is bounded; and a frame that leaves was made by the
//! host or had entered by another port that was not fenced ([`model`]).

mod frames;
mod model;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use lockstep_switch::{Backplane, HostAddress};

use super::input::Input;
use frames::{GUEST, HOST, Tcp};
use model::Model;

/// Steps of one input, at most.
const STEPS_MAX: usize = 256;

/// Machines attached at a time, at most.
const MACHINES_MAX: usize = 5;

/// Connections of one input, at most.
const CONNECTIONS_MAX: usize = 4;

/// What may wait at a port: 1 MiB and the length before one frame, as `lockstep switch` documents.
const WAITING_BYTES_MAX: usize = (1 << 20) + 4;

/// The port of the guest that the host connects to.
const SERVICE: u16 = 6379;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut network = Network::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        network.step(&mut input);
    }
    network.drain_all();
}

/// A switch and what must be true of it.
struct Network {
    backplane: Backplane,
    model: Model,
    machines: Vec<u32>,
    connections: usize,
    now: Duration,
    /// The last segment the host sent.
    heard: Option<Tcp>,
}

impl Network {
    fn new() -> Self {
        let guests = [GUEST, Ipv4Addr::new(10, 0, 2, 16)];
        let mut network = Self {
            backplane: Backplane::new(HostAddress::default(), &guests, 7),
            model: Model::default(),
            machines: Vec::new(),
            connections: 0,
            now: Duration::ZERO,
            heard: None,
        };
        network.attach();
        network.attach();
        network
    }

    fn attach(&mut self) {
        if self.machines.len() < MACHINES_MAX {
            let port = self.backplane.attach().expect("a free port");
            assert!(!self.machines.contains(&port));
            self.machines.push(port);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 => self.attach(),
            1 => self.detach(input),
            2 => {
                let count = usize::from(input.byte());
                let (port, bytes) = (self.port(input), input.take(count));
                self.receive(port, bytes);
            }
            3..=5 => self.frame(frames::any(input), input),
            6 => self.frame(frames::announcement(input), input),
            7 => self.frame(frames::arp(input), input),
            8..=10 => self.answer(input),
            11 => self.connect(),
            12 => self
                .backplane
                .send(&vec![b'x'; usize::from(input.word())], self.now),
            13 => {
                self.now += Duration::from_millis(u64::from(input.word()));
                self.backplane.pass(self.now);
            }
            14 => self.flood(input),
            _ => self.drain_all(),
        }
        self.check();
    }

    fn port(&mut self, input: &mut Input<'_>) -> u32 {
        match self.machines.len() {
            0 => 0,
            count => self.machines[usize::from(input.byte()) % count],
        }
    }

    fn detach(&mut self, input: &mut Input<'_>) {
        let port = self.port(input);
        self.drain(port);
        self.backplane.detach(port);
        self.forget(port);
    }

    fn forget(&mut self, port: u32) {
        self.model.detach(port);
        self.machines.retain(|machine| *machine != port);
    }

    /// Hands bytes over; the model says whether they are a stream of frames.
    fn receive(&mut self, port: u32, bytes: &[u8]) {
        if !self.machines.contains(&port) {
            return;
        }
        let expected = self.model.receive(port, bytes);
        let received = self.backplane.receive(port, bytes, self.now);
        assert_eq!(received.is_ok(), expected, "{received:?}");
        if !expected {
            self.forget(port);
        }
    }

    /// Sends a frame, in two pieces.
    fn frame(&mut self, frame: Vec<u8>, input: &mut Input<'_>) {
        let port = self.port(input);
        let stream = frames::framed(&frame);
        let (first, second) = stream.split_at(usize::from(input.byte()).min(stream.len()));
        self.receive(port, first);
        self.receive(port, second);
    }

    /// Answers the host's last segment as a guest does, or nearly.
    fn answer(&mut self, input: &mut Input<'_>) {
        self.drain_all();
        let Some(heard) = self.heard.clone() else { return };
        let answer = frames::answer(&heard, input);
        self.frame(answer, input);
        self.backplane.pass(self.now);
    }

    fn connect(&mut self) {
        if self.connections < CONNECTIONS_MAX {
            self.connections += 1;
            assert!(
                self.backplane
                    .connect(SocketAddrV4::new(GUEST, SERVICE), self.now)
            );
        }
    }

    /// One frame many times: more than a port's queue takes.
    fn flood(&mut self, input: &mut Input<'_>) {
        let mut frame = frames::any(input);
        frame.resize(60_000, 0);
        let port = self.port(input);
        for _ in 0..input.byte() % 24 {
            self.receive(port, &frames::framed(&frame));
        }
    }

    fn drain_all(&mut self) {
        for port in self.machines.clone() {
            self.drain(port);
        }
    }

    fn drain(&mut self, port: u32) {
        let sent = self.backplane.take_sent(port);
        for frame in frames::unframed(&sent) {
            if frames::source(frame) == HOST {
                self.heard = frames::tcp(frame).or(self.heard.take());
            } else {
                self.model.assert_may_leave(port, frame);
            }
        }
    }

    fn check(&mut self) {
        for port in &self.machines {
            let waiting = self.backplane.waiting_bytes(*port).expect("an attached machine");
            assert!(waiting <= WAITING_BYTES_MAX, "{waiting} bytes wait");
        }
    }
}
