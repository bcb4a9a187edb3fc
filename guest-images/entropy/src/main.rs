//! Asks every source of what is not a function of the machine's state, and prints what it saw, a line a source.
//!
//! Two runs print different lines; a replay prints the lines of its recording. Options: `sources=a,b,…` (default all),
//! `rounds=N` (how often each is asked), `landings=`, `spin0=`, `spin3=`, `frames=`, `frames_ms=`, `console_ms=`.
#![no_std]
#![no_main]

mod devices;
mod frames;
mod landing;
mod processor;
mod report;

use lockstep_guest_runtime::command_line::CommandLine;
use lockstep_guest_runtime::{Machine, guest, println};

guest!(main);

const ROUNDS: u64 = 20;
const CONSOLE_MS: u64 = 50;
const SOURCES: &str = "tsc,rdrand,cpuid,clock,counter,random,halt,timer0,timer3,frames,console";

fn main(machine: &Machine) -> u32 {
    let options = machine.command_line;
    println!("entropy: {}", options.text());
    let sources = options.option("sources").unwrap_or(SOURCES);
    let known = sources.split(',').filter(|source| ask(source, options)).count();
    let unknown = sources.split(',').count() - known;
    println!("entropy: {known} sources asked, {unknown} unknown");
    u32::from(unknown > 0)
}

/// Asks one source. False when there is no such source.
fn ask(source: &str, options: CommandLine<'_>) -> bool {
    let rounds = options.number("rounds", ROUNDS);
    match source {
        "tsc" => processor::tsc(rounds),
        "rdrand" => processor::random(rounds),
        "cpuid" => processor::cpuid(),
        "clock" => devices::clocks(rounds),
        "counter" => devices::counter(rounds),
        "random" => devices::random(rounds),
        "halt" => devices::halt(rounds),
        "timer0" => landing::ring_0(options),
        "timer3" => landing::ring_3(options),
        "frames" => frames::frames(options),
        "console" => devices::console(options.number("console_ms", CONSOLE_MS)),
        _ => return false,
    }
    true
}
