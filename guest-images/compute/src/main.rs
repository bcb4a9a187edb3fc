//! Computes in ring 3 with no exit between its first and last line, and prints a checksum.
//!
//! `megarounds=N` says for how long (default 800, some two seconds). A round draws the next number of a
//! generator and stirs it into one word of a table of 4 MiB, so that memory is written all the time.
//! `lines=N` prints so many numbered lines of 64 bytes before (default none): more than a reader takes who stands still.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use lockstep_guest_runtime::{Machine, guest, println};

guest!(main);

/// 4 MiB.
const TABLE_WORDS: usize = 1 << 19;
const ROUNDS_IN_MEGAROUND: u64 = 1 << 20;

fn main(machine: &Machine) -> u32 {
    let megarounds = machine.command_line.number("megarounds", 800);
    println!(
        "compute: {megarounds} megarounds over {} MiB",
        (TABLE_WORDS * 8) >> 20
    );
    for line in 0..machine.command_line.number("lines", 0) {
        println!("{line:063}");
    }
    println!(
        "checksum: {:016x}",
        checksum(megarounds.saturating_mul(ROUNDS_IN_MEGAROUND))
    );
    0
}

fn checksum(rounds: u64) -> u64 {
    let mut table = vec![0_u64; TABLE_WORDS];
    let mut state = 1_u64;
    for _ in 0..rounds {
        // Knuth's MMIX generator; its high bits are the good ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if let Some(word) = table.get_mut((state >> 45) as usize) {
            *word = word.rotate_left(7) ^ state;
        }
    }
    table.iter().fold(0, |sum: u64, word| sum.rotate_left(1) ^ word)
}
