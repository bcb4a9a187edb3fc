//! What carries the requests of a disk out, compared: io_uring and threads, in turns, on one raw
//! image. Medians of a round's bytes a second, and their ratio.
//!
//! `cargo bench --bench disks [-- FOLDER]`; the folder, by default that for temporary files, is on
//! the file system that is measured.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use crossbeam_channel::{Receiver, unbounded};
use lockstep_core::machine::disk::{Operation, Request};
use lockstep_host::disk::storage::NamedImage;
use lockstep_host::disk::threads::DriveStorage;
use lockstep_host::disk::{Aio, DiskThreads, Disks, Drive, OnError};
use lockstep_logging_channel::DeviceId;
use lockstep_shared_disk::image::{Format, Image, Options, create};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEVICE: DeviceId = DeviceId(6);
const SIZE_BYTES: u64 = 256 << 20;
/// Rounds of each, in turns.
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(150);
const BLOCK_BYTES: u32 = 4096;
/// The longest request of a guest: 31 pages. Nine of them are a little more than 1 MiB.
const LONG_BYTES: u32 = 31 * 4096;

/// A load: so many requests at a time, each of so many bytes.
struct Load {
    name: &'static str,
    writes: bool,
    random: bool,
    length_bytes: u32,
    depth: u64,
    flushes: bool,
}

const fn load(name: &'static str, writes: bool, length_bytes: u32, depth: u64) -> Load {
    Load {
        name,
        writes,
        random: length_bytes == BLOCK_BYTES,
        length_bytes,
        depth,
        flushes: false,
    }
}

const LOADS: [Load; 9] = [
    load("4 KiB random reads, one at a time", false, BLOCK_BYTES, 1),
    load("4 KiB random reads, 4 at a time", false, BLOCK_BYTES, 4),
    load("4 KiB random reads, 32 at a time", false, BLOCK_BYTES, 32),
    load("4 KiB random writes, one at a time", true, BLOCK_BYTES, 1),
    load("4 KiB random writes, 32 at a time", true, BLOCK_BYTES, 32),
    Load {
        flushes: true,
        ..load("4 KiB random writes, each flushed", true, BLOCK_BYTES, 1)
    },
    load("1 MiB sequential reads", false, LONG_BYTES, 9),
    load("1 MiB sequential writes", true, LONG_BYTES, 9),
    Load {
        flushes: true,
        ..load("1 MiB sequential writes, each flushed", true, LONG_BYTES, 9)
    },
];

struct Machine {
    _threads: DiskThreads,
    disks: Disks,
    notified: Receiver<()>,
    next: u64,
    place: u64,
    choices: u64,
}

impl Machine {
    fn on(path: &Path, aio: Aio) -> Self {
        let image = Image::open(path, &Options::default()).unwrap();
        let drive = Drive {
            device: DEVICE,
            name: "disk".to_owned(),
            storage: DriveStorage::Own(Arc::new(NamedImage::new(Arc::new(image)).unwrap())),
            aio: Some(aio),
            on_error: OnError::default(),
            changes: None,
        };
        let (notify, notified) = unbounded();
        let notify = move || {
            let _ = notify.send(());
        };
        let (threads, disks) = DiskThreads::start(vec![drive], notify).unwrap();
        Self {
            _threads: threads,
            disks,
            notified,
            next: 0,
            place: 0,
            choices: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn give(&mut self, operation: Operation) {
        let number = self.next;
        self.next += 1;
        self.disks.issue(DEVICE, Request { number, operation }).unwrap();
    }

    fn take(&self) {
        self.notified.recv().unwrap();
        let _ = self.disks.take(DEVICE).unwrap();
    }

    fn operation(&mut self, load: &Load) -> Operation {
        let places = SIZE_BYTES / u64::from(load.length_bytes);
        if load.random {
            self.choices ^= self.choices << 13;
            self.choices ^= self.choices >> 7;
            self.choices ^= self.choices << 17;
            self.place = self.choices % places;
        } else {
            self.place = (self.place + 1) % places;
        }
        let offset_bytes = self.place * u64::from(load.length_bytes);
        if load.writes {
            let bytes = vec![self.choices as u8; load.length_bytes as usize];
            Operation::Write { offset_bytes, bytes }
        } else {
            let length_bytes = load.length_bytes;
            Operation::Read {
                offset_bytes,
                length_bytes,
            }
        }
    }

    /// Bytes a second of a round.
    fn round(&mut self, load: &Load) -> f64 {
        let begun = Instant::now();
        let mut moved = 0;
        while begun.elapsed() < ROUND {
            for _ in 0..load.depth {
                let operation = self.operation(load);
                self.give(operation);
            }
            for _ in 0..load.depth {
                self.take();
            }
            if load.flushes {
                self.give(Operation::Flush);
                self.take();
            }
            moved += load.depth * u64::from(load.length_bytes);
        }
        moved as f64 / begun.elapsed().as_secs_f64()
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let folder = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::TempDir::new_in(folder).unwrap();
    let mut machines = [Aio::Threads, Aio::IoUring].map(|aio| {
        let path = folder.path().join(aio.to_string());
        create(&path, SIZE_BYTES, Format::Raw, true).unwrap();
        std::fs::write(&path, vec![0x5a; SIZE_BYTES as usize]).unwrap();
        Machine::on(&path, aio)
    });
    println!("| load | threads, MiB/s | io_uring, MiB/s | ratio |");
    println!("| --- | --- | --- | --- |");
    for load in &LOADS {
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (machine, figures) in machines.iter_mut().zip(&mut figures) {
                figures.push(machine.round(load));
            }
        }
        let [threads, ring] = &figures;
        let ratios = threads
            .iter()
            .zip(ring)
            .map(|(threads, ring)| ring / threads)
            .collect();
        let [threads, ring] = figures.map(|figures| median(figures) / f64::from(1 << 20));
        println!(
            "| {} | {threads:.1} | {ring:.1} | {:.2} |",
            load.name,
            median(ratios)
        );
    }
}
