//! How a switch starts, refuses to, and ends.

use std::net::TcpListener;

use super::running::{RunningSwitch, arguments};
use crate::{SwitchArguments, SwitchError, serve};

fn refused(arguments: &SwitchArguments) -> SwitchError {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(serve(arguments, |_| {}, std::future::pending()));
    outcome.expect_err("it must not start")
}

#[test]
fn nothing_is_left_behind() {
    let mut switch = RunningSwitch::start();
    let socket = switch.socket();
    let line = switch.ready.to_string();
    assert!(
        line.starts_with(&format!("ready socket={} forward=127.0.0.1:", socket.display())),
        "{line}"
    );
    assert!(line.ends_with("->10.0.2.15:6379"), "{line}");

    let _attached = switch.attach();
    let _client = switch.client();
    let forwarded = switch.forwarded();
    switch.stop().unwrap();

    assert_eq!(std::fs::read_dir(switch.directory.path()).unwrap().count(), 0);
    assert!(TcpListener::bind(forwarded).is_ok());
}

#[test]
fn there_is_one_switch_for_a_socket() {
    let switch = RunningSwitch::start();
    let mut second = arguments(&switch.directory);
    second.forward.clear();
    assert!(matches!(refused(&second), SwitchError::SwitchRunning { .. }));
    let _still_there = switch.attach();
}

#[test]
fn a_taken_port_is_named_and_no_socket_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut arguments = arguments(&directory);
    arguments.forward = vec![format!("{address}:10.0.2.15:6379").parse().unwrap()];

    let told = refused(&arguments).to_string();

    assert!(
        told.contains(&address.to_string()) && told.contains("in use"),
        "{told}"
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_forward_to_nowhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = arguments(&directory);
    for nowhere in ["127.0.0.1:0:10.0.3.15:6379", "127.0.0.1:0:10.0.2.2:6379"] {
        arguments.forward = vec![nowhere.parse().unwrap()];
        assert!(matches!(
            refused(&arguments),
            SwitchError::GuestUnreachable { .. }
        ));
    }
}
