//! A guest that cannot be replayed: it reads the host's time-stamp counter by an instruction that
//! the scan of an image does not find, and puts it where its options say.
//!
//! `part=` is the part of the state: `registers`, `vector`, `x87`, `msr`, `memory`, `pic`, `timer`,
//! `serial`, `clock`, `network`, `frame`, `console`, `execution` (exits), `question` or `end`. It
//! is there for `exits=N` exits (default 5000, more than there are between two digests), and then
//! the guest powers off.
//!
//! Without `part=` it is the key-value server, with its options, and diverges when a client sets
//! the key `diverge` to the name of a part: it says `diverging: NAME` then, and serves on.
#![no_std]
#![no_main]

mod parts;

use core::str;
use lockstep_guest_key_value::guest::{Options, PORT, Server};
use lockstep_guest_runtime::network::Network;
use lockstep_guest_runtime::{Machine, guest, println};

guest!(main);

const STATUS_OPTIONS: u32 = 2;
const STATUS_NETWORK: u32 = 1;
const EXITS: u64 = 5000;

fn main(machine: &Machine) -> u32 {
    let exits = machine.command_line.number("exits", EXITS);
    if let Some(part) = machine.command_line.option("part") {
        return once(part, exits);
    }
    let Ok(options) = Options::read(machine.command_line) else {
        println!("diverging: an option is not understood");
        return STATUS_OPTIONS;
    };
    let Ok(mut server) = Server::start(&options) else {
        println!("diverging: the network device does not start");
        return STATUS_NETWORK;
    };
    println!("diverging: ready on {}, port {PORT}", options.address);
    loop {
        server.turn();
        let reply = server.request(b"GET diverge\r\n");
        let mut lines = reply.split(|byte| *byte == b'\n');
        let value = lines.nth(1).and_then(|line| line.strip_suffix(b"\r"));
        if let Some(part) = value.and_then(|value| str::from_utf8(value).ok()) {
            server.request(b"DEL diverge\r\n");
            println!("diverging: {part}");
            if !parts::diverge(part, exits, Some(server.network())) {
                println!("diverging: there is no part {part}");
            }
        }
    }
}

fn once(part: &str, exits: u64) -> u32 {
    println!("diverging: {part}");
    let mut network = if part == "frame" {
        Network::start().ok()
    } else {
        None
    };
    if parts::diverge(part, exits, network.as_mut()) {
        return 0;
    }
    println!("diverging: there is no part {part}");
    STATUS_OPTIONS
}
