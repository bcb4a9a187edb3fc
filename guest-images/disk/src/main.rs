//! Load for all disks of the machine, which checks itself: it writes, reads, flushes, discards and
//! writes zeros with many requests on their way, compares everything that it reads, and prints
//! digests of it.
//!
//! Options: `seed=`, `requests=N` (to each disk; 0: no end), `in_flight=N`, `area_kib=N` (of each
//! disk), `report=N` (a line each N requests), `overlap=yes|no` (whether requests that are on their
//! way may be for the same sectors).
//!
//! With `measure=random-read|random-write|sequential-read|sequential-write` it compares nothing: it
//! reads or writes `blocks=N` of `block_kib=N` on the first disk, with a flush after each `flush=N`
//! of them (0: none), and prints how long that took.
//!
//! Begun again on the same disks, with the same seed and area, it compares first: what was flushed
//! must be there. It ends with status 0; 1 where something differs, 2 for options that it does not
//! understand, 3 where there is no disk or none of its own, 4 where a disk failed.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use lockstep_guest_disk::{Load, Measure, Measured, Note, Options, Wrong};
use lockstep_guest_runtime::disk::{self, Disk, Request};
use lockstep_guest_runtime::{Machine, clock, guest, println};

guest!(main);

const STATUS_DIFFERS: u32 = 1;
const STATUS_OPTIONS: u32 = 2;
const STATUS_NO_DISK: u32 = 3;
const STATUS_FAILED: u32 = 4;

/// A disk and its load.
struct Pair {
    number: usize,
    load: Load,
    /// A request for which there was no room.
    waiting: Option<Request>,
}

fn main(machine: &Machine) -> u32 {
    let options = match Options::read(machine.command_line) {
        Ok(options) => options,
        Err(error) => {
            println!("disk: {error}");
            return STATUS_OPTIONS;
        }
    };
    let mut disks = match disk::start_all(0) {
        Ok(disks) => disks,
        Err((number, error)) => {
            println!("disk: disk {number}: {error}");
            return STATUS_FAILED;
        }
    };
    if disks.is_empty() {
        println!("disk: the machine has no disk");
        return STATUS_NO_DISK;
    }
    if let Some(wanted) = options.measure {
        return disks
            .first_mut()
            .map_or(STATUS_NO_DISK, |disk| measure(wanted, options, disk));
    }
    match run(options, &mut disks) {
        Ok(()) => 0,
        Err((number, wrong)) => {
            println!("disk: disk {number}: {wrong}");
            match wrong {
                Wrong::Differs(_) => STATUS_DIFFERS,
                Wrong::TooSmall | Wrong::Foreign | Wrong::Other(_) => STATUS_NO_DISK,
                Wrong::Failed(..) | Wrong::Accepted(_) => STATUS_FAILED,
            }
        }
    }
}

/// Runs the load that is timed. Gives the exit status.
fn measure(measure: Measure, options: Options, disk: &mut Disk) -> u32 {
    let disk_bytes = disk.shape().bytes();
    let load = Measured::new(
        measure,
        options.seed,
        options.in_flight,
        options.area_bytes,
        disk_bytes,
    );
    let Some(mut load) = load else {
        println!("disk: {}", Wrong::TooSmall);
        return STATUS_NO_DISK;
    };
    let (begun_ns, mut waiting) = (clock::monotonic_ns(), None);
    while !load.is_over() {
        while let Some(request) = waiting.take().or_else(|| load.next_request()) {
            if let Err(request) = disk.submit(request) {
                waiting = Some(request);
                break;
            }
        }
        disk.notify();
        disk::wait(core::slice::from_ref(disk));
        while let Some(done) = disk.complete() {
            load.completed(done);
        }
    }
    let us = (clock::monotonic_ns() - begun_ns) / 1000;
    println!(
        "disk: measured {} bytes in {} blocks in {us} us, {} failed",
        load.bytes(),
        measure.blocks,
        load.failed()
    );
    if load.failed() == 0 { 0 } else { STATUS_FAILED }
}

/// Runs the loads of all disks to their ends.
fn run(options: Options, disks: &mut [Disk]) -> Result<(), (usize, Wrong)> {
    let mut pairs = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        let shape = *disk.shape();
        println!(
            "disk: disk {number}: {} bytes, blocks of {}, serial {:?}{}",
            shape.bytes(),
            shape.block_bytes,
            shape.serial(),
            if shape.read_only { ", read-only" } else { "" }
        );
        let seed = options.seed.wrapping_add(number as u64);
        pairs.push(Pair {
            number,
            load: Load::new(options, seed, shape).map_err(|wrong| (number, wrong))?,
            waiting: None,
        });
    }
    while pairs.iter().any(|pair| !pair.load.is_over()) {
        for (pair, disk) in pairs.iter_mut().zip(disks.iter_mut()) {
            pair.turn(disk).map_err(|wrong| (pair.number, wrong))?;
        }
        if disks.iter().any(|disk| disk.in_flight() > 0) {
            disk::wait(disks);
        }
    }
    Ok(())
}

impl Pair {
    /// Takes what is complete, and makes as many requests as may be on their way.
    fn turn(&mut self, disk: &mut Disk) -> Result<(), Wrong> {
        while let Some(done) = disk.complete() {
            self.load.completed(&done)?;
        }
        while let Some(request) = self.waiting.take().or_else(|| self.load.next_request()) {
            if let Err(request) = disk.submit(request) {
                self.waiting = Some(request);
                break;
            }
        }
        disk.notify();
        while let Some(note) = self.load.note() {
            self.print(&note);
        }
        Ok(())
    }

    fn print(&self, note: &Note) {
        let number = self.number;
        match note {
            Note::Begins { header, newer } => println!(
                "disk: disk {number}: begin {}: {} requests are flushed, {newer} sectors are newer",
                header.boots, header.flushed
            ),
            Note::Progress(requests) => println!("disk: disk {number}: {requests} requests"),
            Note::Over {
                requests,
                read_bytes,
                read,
                content,
            } => println!(
                "disk: disk {number}: {requests} requests are as they must be; {read_bytes} bytes read, \
                 digest {read:016x}; content {content:016x}"
            ),
        }
    }
}
