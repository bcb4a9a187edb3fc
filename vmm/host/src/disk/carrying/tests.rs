//! Images on a file system, under all that can carry requests out.

use super::no_ring::NoRing;
use crate::disk::storage::NamedImage;
use crate::disk::target::Target;
use crate::disk::threads::DriveStorage;
use crate::disk::{Aio, DiskThreads, Disks, Drive, Durability, OnError};
use crate::error::RunError;
use crossbeam_channel::{Receiver, unbounded};
use lockstep_core::machine::disk::{IN_FLIGHT_MAX, Operation, Request};
use lockstep_logging_channel::{DeviceId, ReadData};
use lockstep_shared_disk::image::{Format, Image, Options, create};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ALL: [Aio; 2] = [Aio::Threads, Aio::IoUring];
const DEVICE: DeviceId = DeviceId(6);
/// Longer than any of it takes on a host that is busy.
const LIMIT: Duration = Duration::from_secs(60);
const SIZE_BYTES: u64 = 1 << 20;
const BLOCK_BYTES: u64 = 512;

/// A disk on a raw image of its own.
struct Tested {
    path: PathBuf,
    image: Weak<NamedImage>,
    threads: DiskThreads,
    disks: Disks,
    notified: Receiver<()>,
    _folder: TempDir,
}

impl Tested {
    fn start(aio: Option<Aio>, direct: bool) -> Result<Self, RunError> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("disk.img");
        create(&path, SIZE_BYTES, Format::Raw, false).unwrap();
        let options = Options {
            direct,
            ..Options::default()
        };
        let image = Image::open(&path, &options).unwrap();
        let image = Arc::new(NamedImage::new(Arc::new(image))?);
        let weak = Arc::downgrade(&image);
        let drive = Drive {
            device: DEVICE,
            name: "disk 0".to_owned(),
            storage: DriveStorage::Own(image),
            aio,
            changes: None,
            on_error: OnError::default(),
        };
        let (notify, notified) = unbounded();
        let (threads, disks) = DiskThreads::start(vec![drive], move || {
            let _ = notify.send(());
        })?;
        Ok(Self {
            path,
            image: weak,
            threads,
            disks,
            notified,
            _folder: folder,
        })
    }

    fn give(&self, number: u64, operation: Operation) {
        self.disks.issue(DEVICE, Request { number, operation }).unwrap();
    }

    /// Completes this many requests, and gives what each has read.
    fn complete(&self, count: usize) -> BTreeMap<u64, ReadData> {
        let next = |_| {
            self.notified.recv_timeout(LIMIT).unwrap();
            let done = self.disks.take(DEVICE).unwrap();
            (done.number, done.read)
        };
        (0..count).map(next).collect()
    }
}

fn read(offset_bytes: u64, length_bytes: u32) -> Operation {
    Operation::Read {
        offset_bytes,
        length_bytes,
    }
}

fn write(offset_bytes: u64, bytes: Vec<u8>) -> Operation {
    Operation::Write { offset_bytes, bytes }
}

/// A generator that is good enough to choose with (xorshift64).
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A request on a few blocks near the beginning of the disk, so that many touch the same ones, and
/// what it changes of `model`. Gives what a read is to find.
fn chosen(choices: &mut Choices, model: &mut [u8]) -> (Operation, Option<Vec<u8>>) {
    let first = choices.below(64);
    let offset_bytes = first * BLOCK_BYTES;
    let length_bytes = (1 + choices.below(40)) * BLOCK_BYTES;
    let range = offset_bytes as usize..(offset_bytes + length_bytes) as usize;
    match choices.below(8) {
        0..3 => {
            let found = model[range].to_vec();
            (read(offset_bytes, length_bytes as u32), Some(found))
        }
        3..6 => {
            let byte = choices.below(256) as u8;
            model[range.clone()].fill(byte);
            (write(offset_bytes, model[range].to_vec()), None)
        }
        6 => (Operation::Flush, None),
        _ => {
            model[range].fill(0);
            let may_unmap = choices.below(2) == 0;
            let operation = Operation::WriteZeroes {
                offset_bytes,
                length_bytes,
                may_unmap,
            };
            (operation, None)
        }
    }
}

#[test]
fn what_is_asked_together_is_as_if_it_was_done_in_order() {
    let seed = std::env::var("LOCKSTEP_SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
    println!("LOCKSTEP_SEED={seed}");
    for (aio, direct) in [(ALL[0], true), (ALL[0], false), (ALL[1], true), (ALL[1], false)] {
        let tested = Tested::start(Some(aio), direct).unwrap();
        let mut choices = Choices(seed);
        let mut model = vec![0; SIZE_BYTES as usize];
        let mut number = 0;
        for _ in 0..20 {
            let mut expected = BTreeMap::new();
            for _ in 0..IN_FLIGHT_MAX {
                let (operation, found) = chosen(&mut choices, &mut model);
                tested.give(number, operation);
                expected.insert(number, found.map_or(ReadData::Nothing, ReadData::Bytes));
                number += 1;
            }
            assert!(
                tested.complete(IN_FLIGHT_MAX) == expected,
                "{aio}, direct {direct}"
            );
        }
        let file = std::fs::read(&tested.path).unwrap();
        assert!(
            file == model,
            "{aio}, direct {direct}: the file has something else"
        );
    }
}

#[test]
fn a_read_of_a_file_that_was_cut_waits_and_is_whole_when_the_file_is() {
    for aio in ALL {
        let tested = Tested::start(Some(aio), true).unwrap();
        tested.give(0, write(0, vec![7; 8192]));
        tested.complete(1);
        let file = OpenOptions::new().write(true).open(&tested.path).unwrap();
        file.set_len(4096).unwrap();
        tested.give(1, read(0, 8192));
        let deadline = Instant::now() + LIMIT;
        while tested.threads.states()[0].1.error.is_none() {
            assert!(Instant::now() < deadline, "{aio}: no error is shown");
            std::thread::yield_now();
        }
        file.set_len(SIZE_BYTES).unwrap();
        let bytes = [vec![7; 4096], vec![0; 4096]].concat();
        assert_eq!(tested.complete(1)[&1], ReadData::Bytes(bytes), "{aio}");
        assert_eq!(tested.threads.states()[0].1.error, None, "{aio}");
    }
}

#[tokio::test]
async fn the_end_waits_for_everything_that_was_asked() {
    for aio in ALL {
        let tested = Tested::start(Some(aio), true).unwrap();
        for number in 0..IN_FLIGHT_MAX as u64 {
            tested.give(number, write(number * 4096, vec![number as u8 + 1; 4096]));
        }
        assert_eq!(tested.threads.finish().await, Durability::Whole, "{aio}");
        let file = std::fs::read(&tested.path).unwrap();
        for number in 0..IN_FLIGHT_MAX {
            assert_eq!(file[number * 4096], number as u8 + 1, "{aio}");
        }
    }
}

#[test]
fn a_disk_that_nobody_has_any_more_ends_and_closes_its_image() {
    for aio in ALL {
        let Tested {
            image,
            threads,
            disks,
            notified,
            ..
        } = Tested::start(Some(aio), true).unwrap();
        drop((threads, disks, notified));
        let deadline = Instant::now() + LIMIT;
        while image.upgrade().is_some() {
            assert!(Instant::now() < deadline, "{aio}: its thread does not end");
            std::thread::yield_now();
        }
    }
}

/// What `work` gives where io_uring is refused with this error: by a filter of system calls, on a
/// thread of its own.
fn without_io_uring<T: Send + 'static>(errno: i32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let filtered = move || {
        let refuse = SeccompAction::Errno(errno as u32);
        let rules = [(libc::SYS_io_uring_setup, Vec::new())].into();
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        apply_filter(&program).unwrap();
        work()
    };
    std::thread::spawn(filtered).join().unwrap()
}

#[test]
fn a_kernel_that_refuses_io_uring_is_named_and_threads_do_it() {
    for (errno, why) in [
        (libc::ENOSYS, "built without io_uring"),
        (libc::EPERM, "(seccomp)"),
        (libc::ENOMEM, "the kernel gives no io_uring"),
    ] {
        let refused = without_io_uring(errno, || super::probe().unwrap_err().to_string());
        assert!(refused.contains(why), "{refused}");
        let completed = without_io_uring(errno, || {
            let tested = Tested::start(None, true).unwrap();
            tested.give(0, write(0, vec![7; 4096]));
            tested.complete(1).len()
        });
        assert_eq!(completed, 1);
    }
}

#[test]
fn io_uring_that_was_asked_for_and_is_not_there_is_an_error() {
    let refused = without_io_uring(libc::EPERM, || {
        Tested::start(Some(Aio::IoUring), true).map(drop).unwrap_err()
    });
    let is_named =
        matches!(&refused, RunError::NoIoUring { name, source: NoRing::Filtered } if name == "disk 0");
    assert!(is_named, "{refused}");
}

#[test]
fn io_uring_is_not_for_images_that_are_not_raw() {
    let folder = TempDir::new().unwrap();
    let start = |aio| {
        let path: &Path = &folder.path().join("disk.qcow2");
        let _ = std::fs::remove_file(path);
        create(path, SIZE_BYTES, Format::Qcow2, false).unwrap();
        let image = Image::open(path, &Options::default()).unwrap();
        let target = Target {
            storage: Arc::new(image),
            changes: None,
        };
        super::start("disk 0", "disk0", aio, &target)
    };
    let refused = start(Some(Aio::IoUring)).map(drop).unwrap_err().to_string();
    assert!(refused.contains("io_uring is for raw images"), "{refused}");
    assert!(start(None).unwrap().bell().is_none(), "threads do it");
}
