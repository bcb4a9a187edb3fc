//! The key-value server as a guest: the library behind TCP port 6379, on a network device that is
//! polled.
//!
//! Options: `ip=10.0.2.15/24`, `gw=10.0.2.2`, `maxmemory=BYTES` (default three eighths of the
//! heap), `maxclients=N`, `appendonly=always|everysec|no` (a file on the first disk that the keys
//! are replayed from); for measurements `write_mib=N` and `write_pages=N`, memory that is
//! written and pages a second.
#![no_std]
#![no_main]

use lockstep_guest_key_value::guest::{Options, PORT, STATUS_FILE, Server, StartError};
use lockstep_guest_runtime::{Machine, guest, println};

guest!(main);

const STATUS_OPTIONS: u32 = 2;
const STATUS_NETWORK: u32 = 1;

fn main(machine: &Machine) -> u32 {
    let options = match Options::read(machine.command_line) {
        Ok(options) => options,
        Err(error) => {
            println!("key-value: {error}");
            return STATUS_OPTIONS;
        }
    };
    match Server::start(&options) {
        Ok(mut server) => {
            println!("key-value: {}", server.limits());
            println!("key-value: ready on {}, port {}", options.address, PORT);
            server.run()
        }
        Err(error) => {
            println!("key-value: {error}");
            match error {
                StartError::Network(_) => STATUS_NETWORK,
                _ => STATUS_FILE,
            }
        }
    }
}
