//! A fake virtual machine: a smoltcp stack with a TCP echo server, attached like a real one.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};

use lockstep_network::{Announcement, BlockingReceiver, FrameSender, Link, MacAddress};

pub(super) const MAC: MacAddress = [0x02, 0, 0, 0, 0, 0x15];
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const PORT: u16 = 6379;
const NAP: Duration = Duration::from_millis(1);

/// What a fake machine is told.
pub(super) enum Command {
    /// Take clients, at most this many at a time.
    Listen(usize),
    /// Reset every client that has connected.
    ResetClients,
    /// Go on on another link: what was received on the old one and not looked at is lost with it.
    GoLive(Link, Announcement),
}

/// What a fake machine tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// A client's connection was reset.
    Reset,
    /// A client's connection has ended in good order.
    Ended,
}

pub(super) struct FakeMachine {
    commands: Option<Sender<Command>>,
    pub(super) notices: Receiver<Notice>,
    thread: Option<JoinHandle<()>>,
}

impl FakeMachine {
    /// Attached, and taking no client yet: connections are refused.
    pub(super) fn on(link: Link) -> Self {
        let (commands, orders) = channel();
        let (tell, notices) = channel();
        let thread = std::thread::spawn(move || Stack::new(link, tell).run(&orders));
        Self {
            commands: Some(commands),
            notices,
            thread: Some(thread),
        }
    }

    pub(super) fn listening(link: Link, clients: usize) -> Self {
        let machine = Self::on(link);
        machine.tell(Command::Listen(clients));
        machine
    }

    pub(super) fn tell(&self, command: Command) {
        self.commands.as_ref().unwrap().send(command).unwrap();
    }
}

impl Drop for FakeMachine {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Stack {
    device: FakeDevice,
    receiver: BlockingReceiver,
    interface: Interface,
    sockets: SocketSet<'static>,
    clients: Vec<(SocketHandle, State)>,
    epoch: Instant,
    tell: Sender<Notice>,
}

impl Stack {
    fn new(link: Link, tell: Sender<Notice>) -> Self {
        let (sender, receiver) = link.split_blocking();
        let mut device = FakeDevice {
            sender,
            received: VecDeque::new(),
        };
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
        let mut interface = Interface::new(config, &mut device, TcpInstant::ZERO);
        interface.update_ip_addrs(|list| list.push(IpCidr::Ipv4(Ipv4Cidr::new(ADDRESS, 24))).unwrap());
        let sockets = SocketSet::new(Vec::new());
        Self {
            device,
            receiver,
            interface,
            sockets,
            clients: Vec::new(),
            epoch: Instant::now(),
            tell,
        }
    }

    /// Until nobody commands any more.
    fn run(&mut self, orders: &Receiver<Command>) {
        loop {
            match orders.try_recv() {
                Ok(command) => self.obey(command),
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            }
            let Ok(frame) = self.receiver.recv(NAP) else {
                return;
            };
            self.device.received.extend(frame);
            let now = TcpInstant::from_micros(self.epoch.elapsed().as_micros() as i64);
            self.interface.poll(now, &mut self.device, &mut self.sockets);
            self.echo();
            self.interface.poll(now, &mut self.device, &mut self.sockets);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Listen(clients) => (0..clients).for_each(|_| {
                let buffer = || SocketBuffer::new(vec![0; 16_384]);
                let mut socket = Socket::new(buffer(), buffer());
                socket.set_nagle_enabled(false);
                socket.listen(PORT).unwrap();
                self.clients.push((self.sockets.add(socket), State::Listen));
            }),
            Command::ResetClients => self.clients.iter().for_each(|(handle, _)| {
                let socket = self.sockets.get_mut::<Socket<'_>>(*handle);
                if socket.state() == State::Established {
                    socket.abort();
                }
            }),
            Command::GoLive(link, announcement) => {
                let (sender, receiver) = link.split_blocking();
                self.device = FakeDevice {
                    sender,
                    received: VecDeque::new(),
                };
                self.receiver = receiver;
                self.device.sender.announce(announcement).unwrap();
                let arp = lockstep_network::gratuitous_arp(MAC, Some(ADDRESS));
                self.device.sender.send(&arp).unwrap();
            }
        }
    }

    /// Sends back what came, ends what was ended, and listens again.
    fn echo(&mut self) {
        for (handle, before) in &mut self.clients {
            let socket = self.sockets.get_mut::<Socket<'_>>(*handle);
            while socket.can_recv() && socket.can_send() {
                let room = socket.send_capacity() - socket.send_queue();
                let bytes = socket.recv(|bytes| {
                    let count = bytes.len().min(room);
                    (count, bytes[..count].to_vec())
                });
                let bytes = bytes.unwrap();
                assert_eq!(socket.send_slice(&bytes).unwrap(), bytes.len());
            }
            if socket.state() == State::CloseWait && !socket.can_recv() {
                socket.close();
            }
            if socket.state() == State::Closed {
                let was_reset = !matches!(before, State::LastAck | State::CloseWait);
                let _ = self
                    .tell
                    .send(if was_reset { Notice::Reset } else { Notice::Ended });
                socket.listen(PORT).unwrap();
            }
            *before = socket.state();
        }
    }
}

struct FakeDevice {
    sender: FrameSender,
    received: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, parse: F) -> R {
        parse(&self.0)
    }
}

struct Sending<'a>(&'a mut FrameSender);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, build: F) -> R {
        let mut frame = vec![0; length];
        let built = build(&mut frame);
        // The switch may be gone: the test ends then.
        let _ = self.0.send(&frame);
        built
    }
}

impl Device for FakeDevice {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: TcpInstant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.sender)))
    }

    fn transmit(&mut self, _now: TcpInstant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sender))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}
