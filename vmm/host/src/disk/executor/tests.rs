use super::super::orders::Durability;
use super::super::setting::{Aio, OnError};
use super::super::storage::Storage;
use super::super::threads::{DiskThreads, Drive, DriveStorage};
use super::*;
use crossbeam_channel::{bounded, unbounded};
use lockstep_core::machine::disk::Operation;
use lockstep_core::machine::door::DoorError;
use lockstep_logging_channel::{Completion, DeviceId, ReadData};
use lockstep_shared_disk::image::RawFile;

const DEVICE: DeviceId = DeviceId(6);
/// Longer than any of it takes on a host that is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes in memory, whose host fails as often as it is told to.
struct Fake {
    /// It passes for an image that io_uring could be asked for, which leaves all of it to its pool.
    is_raw: bool,
    bytes: Mutex<Vec<u8>>,
    failures: Mutex<Vec<i32>>,
    flushes: Sender<()>,
}

impl Fake {
    fn fails(&self) -> io::Result<()> {
        let failure = self.failures.lock().unwrap().pop();
        failure.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }
}

impl Storage for Fake {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.fails()?;
        let first = offset_bytes as usize;
        buffer.copy_from_slice(&self.bytes.lock().unwrap()[first..first + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        self.fails()?;
        let first = offset_bytes as usize;
        self.bytes.lock().unwrap()[first..first + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.fails()?;
        self.flushes.send(()).unwrap();
        Ok(())
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.write_at(offset_bytes, &vec![0; length_bytes as usize])
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64, _may_unmap: bool) -> io::Result<()> {
        self.discard(offset_bytes, length_bytes)
    }

    fn is_raw(&self) -> bool {
        self.is_raw
    }

    fn whole(&self, _operation: &Operation) -> Option<RawFile<'_>> {
        None
    }
}

/// What carries requests out where this is tested: the threads of a pool, and io_uring with a pool
/// beside it.
const ALL: [Aio; 2] = [Aio::Threads, Aio::IoUring];

/// A disk of 8 KiB whose host fails with these errors, the last first.
fn disk(
    aio: Aio,
    failures: Vec<i32>,
) -> (
    DiskThreads,
    super::super::disks::Disks,
    Receiver<()>,
    Receiver<()>,
) {
    let (flushes, flushed) = unbounded();
    let storage = Arc::new(Fake {
        is_raw: aio == Aio::IoUring,
        bytes: Mutex::new(vec![0; 8192]),
        failures: Mutex::new(failures),
        flushes,
    });
    let drive = Drive {
        changes: None,
        device: DEVICE,
        name: "disk 0".to_owned(),
        storage: DriveStorage::Own(storage),
        aio: Some(aio),
        on_error: OnError::default(),
    };
    let (notify, notified) = unbounded();
    let notify = move || {
        let _ = notify.send(());
    };
    let (threads, disks) = DiskThreads::start(vec![drive], notify).unwrap();
    (threads, disks, notified, flushed)
}

fn request(number: u64, operation: Operation) -> Request {
    Request { number, operation }
}

fn write(number: u64, byte: u8) -> Request {
    let (offset_bytes, bytes) = (512, vec![byte; 512]);
    request(number, Operation::Write { offset_bytes, bytes })
}

fn read(number: u64) -> Request {
    let (offset_bytes, length_bytes) = (512, 512);
    let operation = Operation::Read {
        offset_bytes,
        length_bytes,
    };
    request(number, operation)
}

/// The completion of the request that is done first.
fn next(disks: &super::super::disks::Disks, notified: &Receiver<()>) -> Completion {
    notified.recv_timeout(LIMIT).unwrap();
    disks.take(DEVICE).unwrap()
}

#[test]
fn what_was_written_is_read_and_each_request_completes_once() {
    for aio in ALL {
        let (_threads, disks, notified, _flushed) = disk(aio, Vec::new());
        disks.issue(DEVICE, write(0, 7)).unwrap();
        disks.issue(DEVICE, read(1)).unwrap();
        disks.issue(DEVICE, write(0, 9)).unwrap();
        let written = Completion {
            number: 0,
            read: ReadData::Nothing,
        };
        assert_eq!(next(&disks, &notified), written);
        let read_back = Completion {
            number: 1,
            read: ReadData::Bytes(vec![7; 512]),
        };
        assert_eq!(next(&disks, &notified), read_back);
        disks.issue(DEVICE, read(2)).unwrap();
        assert_eq!(next(&disks, &notified).number, 2, "number 0 was given before");
    }
}

#[test]
fn a_request_that_the_host_refuses_waits_and_is_tried_again_until_it_works() {
    for aio in ALL {
        let (threads, disks, notified, _flushed) = disk(aio, vec![libc::ENOSPC, libc::EIO]);
        disks.issue(DEVICE, write(0, 7)).unwrap();
        disks.issue(DEVICE, read(1)).unwrap();
        assert_eq!(next(&disks, &notified).number, 0);
        let read_back = ReadData::Bytes(vec![7; 512]);
        assert_eq!(
            next(&disks, &notified).read,
            read_back,
            "it has waited for the write"
        );
        assert_eq!(threads.states()[0].1.error, None, "it works again");
    }
}

#[test]
fn an_error_is_shown_while_it_lasts() {
    for aio in ALL {
        let (threads, disks, _notified, _flushed) = disk(aio, vec![libc::EIO; 1000]);
        disks.issue(DEVICE, write(0, 7)).unwrap();
        let deadline = Instant::now() + LIMIT;
        let shown = std::iter::repeat_with(|| threads.states()[0].1.clone())
            .take_while(|_| Instant::now() < deadline)
            .find(|state| state.error.is_some())
            .unwrap();
        assert_eq!(shown.waiting, 1);
        let fault = shown.error.unwrap();
        assert!(fault.to_string().contains("write 512 bytes at 512"), "{fault}");
        assert!(
            fault.why.contains("os error 5") && fault.failures > 0,
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn the_end_waits_for_what_was_asked_and_makes_it_durable() {
    for aio in ALL {
        let (threads, disks, notified, flushed) = disk(aio, Vec::new());
        disks.issue(DEVICE, write(0, 7)).unwrap();
        assert_eq!(threads.finish().await, Durability::Whole);
        assert_eq!(flushed.try_iter().count(), 1);
        assert_eq!(next(&disks, &notified).number, 0);
    }
}

#[tokio::test]
async fn the_end_does_not_wait_for_what_the_host_refuses_and_is_not_clean() {
    for aio in ALL {
        let (threads, disks, _notified, _flushed) = disk(aio, vec![libc::EIO; 1000]);
        disks.issue(DEVICE, write(0, 7)).unwrap();
        assert_eq!(threads.finish().await, Durability::Unknown);
    }
}

#[test]
fn a_replay_takes_each_completion_where_its_log_has_it() {
    for aio in ALL {
        let (_threads, disks, notified, _flushed) = disk(aio, Vec::new());
        let (_wake, woken) = bounded(1);
        disks.issue(DEVICE, write(0, 7)).unwrap();
        disks.issue(DEVICE, read(1)).unwrap();
        let own = disks.wait(DEVICE, 1, &woken, || Ok(())).unwrap().unwrap();
        assert_eq!((own.offset_bytes, own.bytes), (512, vec![7; 512]));
        notified.recv_timeout(LIMIT).unwrap();
        assert!(disks.is_done(DEVICE, 0) && !disks.is_done(DEVICE, 2));
        assert_eq!(disks.take(DEVICE).unwrap().number, 0, "going live, it arrives");
    }
}

#[test]
fn a_disk_does_what_another_has_done_in_its_order_and_is_then_asked_by_its_own_guest() {
    for aio in ALL {
        let (_threads, disks, notified, flushed) = disk(aio, Vec::new());
        let (_wake, woken) = bounded(1);
        for bytes in [[1, 2], [3, 4]] {
            let [first, last] = bytes.map(|byte| (DEVICE, write(0, byte).operation));
            let changes = vec![first, (DEVICE, Operation::Flush), last];
            disks.change(changes, &woken, || Ok(())).unwrap();
        }
        assert_eq!(flushed.try_iter().count(), 2);
        assert!(disks.are_quiet(), "none of it arrives");
        let told = notified.try_iter().count();
        disks.issue(DEVICE, read(0)).unwrap();
        let read_back = ReadData::Bytes(vec![4; 512]);
        let arrived = (told..7).find_map(|_| {
            notified.recv_timeout(LIMIT).unwrap();
            disks.take(DEVICE)
        });
        assert_eq!(arrived.unwrap().read, read_back);
    }
}

#[test]
fn a_disk_that_cannot_do_what_another_has_done_holds_up_who_follows_until_that_is_to_stop() {
    for aio in ALL {
        let (_threads, disks, _notified, _flushed) = disk(aio, vec![libc::EIO; 1000]);
        let (wake, woken) = bounded(1);
        let changes = vec![(DEVICE, write(0, 7).operation)];
        let mut looks = 0;
        wake.send(()).unwrap();
        let stopped = disks.change(changes, &woken, || {
            looks += 1;
            if looks == 1 {
                Ok(())
            } else {
                Err(DoorError::Stopped)
            }
        });
        assert!(stopped.is_err());
    }
}

#[test]
fn whoever_looks_whether_all_is_taken_leaves_it_to_the_guest() {
    for aio in ALL {
        let (threads, disks, notified, _flushed) = disk(aio, Vec::new());
        disks.issue(DEVICE, write(0, 7)).unwrap();
        notified.recv_timeout(LIMIT).unwrap();
        assert!(!disks.are_quiet());
        let mut select = crossbeam_channel::Select::new();
        disks.select(DEVICE, &mut select);
        select.ready_timeout(LIMIT).unwrap();
        assert_eq!(disks.take(DEVICE).unwrap().number, 0);
        assert!(disks.are_quiet());
        drop(threads);
    }
}

#[test]
fn disks_that_stand_still_carry_nothing_out_until_they_go_on() {
    for aio in ALL {
        let (threads, disks, notified, _flushed) = disk(aio, Vec::new());
        let watch = threads.watch();
        disks.issue(DEVICE, write(0, 7)).unwrap();
        assert_eq!(next(&disks, &notified).number, 0);
        assert!(watch.freeze());
        assert_eq!(watch.take()[0].1.iter().copied().collect::<Vec<_>>(), [0]);
        disks.issue(DEVICE, write(1, 9)).unwrap();
        assert!(watch.freeze(), "nothing of it is under way");
        assert_eq!(watch.take()[0].1.len(), 0);
        watch.thaw();
        assert_eq!(next(&disks, &notified).number, 1);
        assert_eq!(watch.take()[0].1.len(), 1);
    }
}

/// A log, or the machine of a snapshot, may say anything: nobody waits for what was never asked.
#[test]
fn a_request_that_was_not_made_or_is_done_already_is_not_waited_for() {
    let (_threads, disks, _notified, _flushed) = disk(Aio::Threads, Vec::new());
    let (_wake, woken) = bounded(1);
    let wait = |number| disks.wait(DEVICE, number, &woken, || Ok(())).unwrap();
    assert_eq!(wait(0), None, "nothing was asked");
    disks.issue(DEVICE, read(0)).unwrap();
    assert!(wait(0).is_some());
    assert_eq!(wait(0), None, "it has been taken");
    assert_eq!(wait(7), None);
}

#[test]
fn disks_are_settled_when_everything_is_carried_out() {
    let (threads, disks, _notified, _flushed) = disk(Aio::Threads, vec![libc::EIO]);
    let watch = threads.watch();
    disks.issue(DEVICE, write(0, 7)).unwrap();
    disks.issue(DEVICE, read(1)).unwrap();
    watch.settle(|| Ok::<_, ()>(())).unwrap();
    assert!(disks.is_done(DEVICE, 0) && disks.is_done(DEVICE, 1));
    assert_eq!(disks.take(DEVICE).unwrap().number, 0);
    assert_eq!(disks.take(DEVICE).unwrap().number, 1);
    assert!(watch.freeze());
    disks.issue(DEVICE, write(2, 8)).unwrap();
    assert_eq!(watch.settle(|| Err("stopped")), Err("stopped"));
}

/// What is copied while they stand still would have what was carried out after that.
#[tokio::test]
async fn disks_that_finish_do_not_stand_still() {
    let (threads, disks, _notified, _flushed) = disk(Aio::Threads, Vec::new());
    let watch = threads.watch();
    assert!(watch.freeze() && !watch.is_over());
    disks.issue(DEVICE, write(0, 7)).unwrap();
    assert_eq!(
        threads.finish().await,
        Durability::Whole,
        "what was asked is carried out all the same"
    );
    assert!(watch.is_over() && !watch.freeze());
}
