//! The smallest guest: says what it found, and exits with the status it was told (`status=N`, default 0).
#![no_std]
#![no_main]

use lockstep_guest_runtime::{Machine, guest, println};

guest!(main);

fn main(machine: &Machine) -> u32 {
    println!("lockstep smoke guest");
    println!("memory: {} MiB", machine.memory_bytes >> 20);
    println!("time-stamp counter: {} kHz", machine.tsc_khz);
    println!("command line: {}", machine.command_line.text());
    machine.command_line.number("status", 0) as u32
}
