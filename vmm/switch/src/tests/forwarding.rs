//! Clients of a forwarded port.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use lockstep_logging_channel::Generation;

use super::running::{RunningSwitch, SOON};
use super::station::{Command, FakeMachine, Notice};
use lockstep_network::Announcement;

fn announcement(generation: u32) -> Announcement {
    Announcement {
        pair: [5; 16],
        generation: Generation(generation),
    }
}

fn exchange(client: &mut TcpStream, text: &[u8]) {
    client.write_all(text).unwrap();
    let mut answer = vec![0; text.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}

fn read_to_end(client: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn a_request_is_answered_and_both_ends_close() {
    let switch = RunningSwitch::start();
    let machine = FakeMachine::listening(switch.attach(), 1);
    let mut client = switch.client();

    exchange(&mut client, b"hello");
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();

    assert_eq!(read_to_end(&mut client), b"last words");
    assert_eq!(machine.notices.recv_timeout(SOON).unwrap(), Notice::Ended);
}

#[test]
fn many_bytes_come_back_whole_however_slowly_they_are_read() {
    let switch = RunningSwitch::start();
    let _machine = FakeMachine::listening(switch.attach(), 1);
    let mut client = switch.client();
    let sent: Vec<u8> = (0..2_000_000_u32)
        .flat_map(|number| number.to_le_bytes())
        .collect();

    let mut writer = client.try_clone().unwrap();
    let to_write = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&to_write).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    let mut piece = vec![0; 777];
    loop {
        let count = client.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        received.extend_from_slice(&piece[..count]);
    }

    writing.join().unwrap();
    assert!(
        received == sent,
        "{} of {} bytes, or other ones",
        received.len(),
        sent.len()
    );
}

#[test]
fn five_hundred_and_twelve_clients_at_a_time() {
    let switch = RunningSwitch::start();
    let _machine = FakeMachine::listening(switch.attach(), 512);
    let mut clients: Vec<_> = (0..512).map(|_| switch.client()).collect();

    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.write_all(format!("{round} {number}").as_bytes()).unwrap();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let expected = format!("{round} {number}");
            let mut answer = vec![0; expected.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, expected.as_bytes());
        }
    }
}

#[test]
fn a_client_that_comes_before_its_server_is_served() {
    let switch = RunningSwitch::start();
    let mut before_the_machine = switch.client();
    before_the_machine.write_all(b"early").unwrap();
    let machine = FakeMachine::on(switch.attach());
    let mut before_the_server = switch.client();
    before_the_server.write_all(b"less early").unwrap();

    machine.tell(Command::Listen(2));

    let mut answer = [0; 5];
    before_the_machine.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"early");
    let mut answer = [0; 10];
    before_the_server.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"less early");
}

#[test]
fn where_nobody_ever_comes_the_client_is_reset() {
    let switch = RunningSwitch::start_with(|_| {}, true);
    let told = switch.client().read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(told, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_reset_goes_through_in_both_directions() {
    let switch = RunningSwitch::start();
    let machine = FakeMachine::listening(switch.attach(), 2);

    let mut reset_by_guest = switch.client();
    exchange(&mut reset_by_guest, b"hello");
    machine.tell(Command::ResetClients);
    let told = reset_by_guest.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(told, Err(ErrorKind::ConnectionReset));
    assert_eq!(machine.notices.recv_timeout(SOON).unwrap(), Notice::Reset);

    let mut resetting = switch.client();
    exchange(&mut resetting, b"hello");
    // Closing with something unread is a reset.
    resetting.write_all(b"never read").unwrap();
    let mut peeked = [0; 10];
    while resetting.peek(&mut peeked).unwrap() < peeked.len() {}
    drop(resetting);
    assert_eq!(machine.notices.recv_timeout(SOON).unwrap(), Notice::Reset);
}

#[test]
fn connections_go_on_where_the_machine_goes_live() {
    let switch = RunningSwitch::start();
    let machine = FakeMachine::listening(switch.attach(), 8);
    let mut clients: Vec<_> = (0..8).map(|_| switch.client()).collect();
    clients.iter_mut().for_each(|client| exchange(client, b"before"));

    for generation in 1..5 {
        // Requests are under way while the machine moves: what the old link still holds is lost
        // with it.
        clients
            .iter_mut()
            .for_each(|client| client.write_all(b"during").unwrap());
        machine.tell(Command::GoLive(switch.attach(), announcement(generation)));
        for client in &mut clients {
            let mut answer = [0; 6];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"during");
            exchange(client, b"after");
        }
    }
}

#[test]
fn a_machine_that_was_replaced_is_not_heard() {
    let switch = RunningSwitch::start();
    let (mut old, _old_receiver) = switch.attach().split_blocking();
    old.announce(announcement(0)).unwrap();
    let machine = FakeMachine::listening(switch.attach(), 1);
    machine.tell(Command::GoLive(switch.attach(), announcement(1)));
    let mut client = switch.client();
    exchange(&mut client, b"hello");

    // The old one wakes and claims the address again; it would take every frame if it were heard.
    for _ in 0..100 {
        let arp = lockstep_network::gratuitous_arp(super::station::MAC, Some(super::station::ADDRESS));
        old.send(&arp).unwrap();
        exchange(&mut client, b"still there");
    }
}
