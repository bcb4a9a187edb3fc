//! The first disk of the machine as the append-only file needs it: it halts until the disk is done.

use super::server::RANDOM_PORT;
use crate::append_only::{Storage, StorageError};
use alloc::vec;
use alloc::vec::Vec;
use lockstep_guest_runtime::disk::{
    self, BUFFER_BYTES_MAX, Completed, Disk, Operation, Request, SECTOR_BYTES,
};
use lockstep_guest_runtime::port;

/// The disk.
pub struct DiskStorage(pub Disk);

impl DiskStorage {
    /// Carries out the requests, as many at a time as there is room for, and gives each to `done`.
    /// False where one failed.
    fn carry_out(
        &mut self,
        mut requests: impl Iterator<Item = Request>,
        mut done: impl FnMut(Completed),
    ) -> bool {
        let disk = &mut self.0;
        let (mut waiting, mut is_well) = (None, true);
        loop {
            while let Some(request) = waiting.take().or_else(|| requests.next()) {
                if let Err(request) = disk.submit(request) {
                    waiting = Some(request);
                    break;
                }
            }
            disk.notify();
            while let Some(completed) = disk.complete() {
                is_well &= completed.result.is_ok();
                done(completed);
            }
            if disk.in_flight() == 0 && waiting.is_none() {
                return is_well;
            }
            // What was complete has made room for what waits.
            if disk.in_flight() == 0 {
                continue;
            }
            disk::wait(core::slice::from_ref(disk));
        }
    }
}

/// The pieces of `length` bytes at `offset`: where each is in them, and its sector.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (usize, u64)> {
    let starts = (0..length).step_by(BUFFER_BYTES_MAX);
    starts.map(move |start| (start, (offset + start as u64) / SECTOR_BYTES as u64))
}

impl Storage for DiskStorage {
    fn size_bytes(&self) -> u64 {
        self.0.shape().bytes()
    }

    fn block_bytes(&self) -> usize {
        self.0.shape().block_bytes as usize
    }

    fn is_writable(&self) -> bool {
        !self.0.shape().read_only
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let length = buffer.len();
        let requests = pieces(offset, length).map(|(start, sector)| Request {
            operation: Operation::Read { sector },
            buffer: vec![0; BUFFER_BYTES_MAX.min(length - start)],
            mark: start as u64,
        });
        let is_read = self.carry_out(requests, |completed| {
            let (start, bytes) = (completed.request.mark as usize, completed.request.buffer);
            if let Some(place) = buffer.get_mut(start..start + bytes.len()) {
                place.copy_from_slice(&bytes);
            }
        });
        is_read.then_some(()).ok_or(StorageError::Read(offset))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let requests = pieces(offset, bytes.len()).map(|(start, sector)| {
            let end = bytes.len().min(start + BUFFER_BYTES_MAX);
            Request {
                operation: Operation::Write { sector },
                buffer: bytes.get(start..end).map(Vec::from).unwrap_or_default(),
                mark: 0,
            }
        });
        let is_written = self.carry_out(requests, drop);
        is_written.then_some(()).ok_or(StorageError::Write(offset))
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        let request = Request {
            operation: Operation::Flush,
            buffer: Vec::new(),
            mark: 0,
        };
        let is_flushed = self.carry_out(core::iter::once(request), drop);
        is_flushed.then_some(()).ok_or(StorageError::Flush)
    }

    fn random(&mut self) -> u64 {
        u64::from(port::read_u32(RANDOM_PORT)) << 32 | u64::from(port::read_u32(RANDOM_PORT))
    }
}
