//! A disk with a volatile cache: what was not flushed may be lost or torn, in any order.

use crate::random::step;
use lockstep_guest_runtime::requests::{Completed, Failed, Operation, Request, SECTOR_BYTES, Shape};
use std::ops::Range;

/// A promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A flush does nothing.
    NoFlush,
    /// A flush leaves out what was completed last.
    FlushTooEarly,
    /// A write is complete, and was never done.
    LostWrite,
    /// A write is done one sector further on.
    WrongPlace,
    /// A bit of a read is another.
    FlippedBit,
    /// A discard does nothing.
    NoDiscard,
    /// Requests for the same sectors are done in any order.
    Reordered,
}

pub struct Cache {
    pub content: Vec<u8>,
    pub read_only: bool,
    pub fault: Option<Fault>,
    /// Content of the cache, oldest first: places and bytes.
    volatile: Vec<(usize, Vec<u8>)>,
    waiting: Vec<Request>,
    draw: u64,
}

/// Bytes of the disk that a request is for.
pub fn range(operation: &Operation, buffer_bytes: usize) -> Range<usize> {
    let at = |sector: u64| sector as usize * SECTOR_BYTES;
    match *operation {
        Operation::Read { sector } | Operation::Write { sector } => at(sector)..at(sector) + buffer_bytes,
        Operation::Discard { sector, sectors } | Operation::WriteZeroes { sector, sectors, .. } => {
            at(sector)..at(sector + u64::from(sectors))
        }
        Operation::Flush | Operation::Identify => 0..0,
    }
}

pub fn is_read(operation: &Operation) -> bool {
    matches!(operation, Operation::Read { .. })
}

impl Cache {
    pub fn new(shape: &Shape, seed: u64) -> Self {
        Self {
            content: vec![0; shape.bytes() as usize],
            read_only: false,
            fault: None,
            volatile: Vec::new(),
            waiting: Vec::new(),
            draw: step(seed),
        }
    }

    pub fn submit(&mut self, request: Request) {
        self.waiting.push(request);
    }

    pub fn in_flight(&self) -> impl Iterator<Item = &Request> {
        self.waiting.iter()
    }

    fn draw(&mut self, below: usize) -> usize {
        self.draw = step(self.draw);
        (self.draw % below.max(1) as u64) as usize
    }

    /// Completes one of the requests that wait, in any order that the disk may choose.
    pub fn complete(&mut self) -> Option<Completed> {
        if self.waiting.is_empty() {
            return None;
        }
        let mut chosen = self.draw(self.waiting.len());
        let touches = |one: &Request, other: &Request| {
            let (one, other) = (
                range(&one.operation, one.buffer.len()),
                range(&other.operation, other.buffer.len()),
            );
            one.start < other.end && other.start < one.end
        };
        if self.fault != Some(Fault::Reordered) {
            let earlier = |chosen: usize| {
                self.waiting[..chosen]
                    .iter()
                    .position(|other| touches(other, &self.waiting[chosen]))
            };
            while let Some(before) = earlier(chosen) {
                chosen = before;
            }
        }
        let mut request = self.waiting.remove(chosen);
        let result = self.carry_out(&mut request);
        Some(Completed { request, result })
    }

    fn carry_out(&mut self, request: &mut Request) -> Result<(), Failed> {
        let range = range(&request.operation, request.buffer.len());
        if range.end > self.content.len() || self.read_only && !is_read(&request.operation) {
            return Err(Failed::Error);
        }
        let is_faulty = self.draw(16) == 0;
        match request.operation {
            Operation::Read { .. } => {
                request.buffer.copy_from_slice(&self.content[range.clone()]);
                for (at, bytes) in &self.volatile {
                    let (from, to) = (range.start.max(*at), range.end.min(at + bytes.len()));
                    if from < to {
                        request.buffer[from - range.start..to - range.start]
                            .copy_from_slice(&bytes[from - at..to - at]);
                    }
                }
                if self.fault == Some(Fault::FlippedBit) && is_faulty {
                    let place = self.draw(request.buffer.len());
                    request.buffer[place] ^= 4;
                }
            }
            Operation::Write { .. } => {
                let wrong_place = self.fault == Some(Fault::WrongPlace) && is_faulty;
                let lost = self.fault == Some(Fault::LostWrite) && is_faulty;
                let at = range.start + usize::from(wrong_place) * SECTOR_BYTES;
                if !lost && at + range.len() <= self.content.len() {
                    self.volatile.push((at, request.buffer.clone()));
                }
            }
            Operation::Discard { .. } if self.fault == Some(Fault::NoDiscard) => {}
            Operation::Discard { .. } | Operation::WriteZeroes { .. } => {
                self.volatile.push((range.start, vec![0; range.len()]));
            }
            Operation::Flush => self.flush(),
            Operation::Identify => return Err(Failed::Unsupported),
        }
        Ok(())
    }

    fn flush(&mut self) {
        let kept = match self.fault {
            Some(Fault::NoFlush) => return,
            Some(Fault::FlushTooEarly) => self.volatile.len() / 2,
            _ => self.volatile.len(),
        };
        for (at, bytes) in self.volatile.drain(..kept) {
            self.content[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// Of what was not flushed, any sectors of any requests are kept, in any order.
    pub fn lose_power(&mut self) {
        self.waiting.clear();
        let mut volatile = std::mem::take(&mut self.volatile);
        while !volatile.is_empty() {
            let (at, bytes) = volatile.swap_remove(self.draw(volatile.len()));
            if self.draw(3) == 0 {
                continue;
            }
            let is_torn = self.draw(2) == 0;
            for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                if !is_torn || self.draw(2) == 0 {
                    let from = at + index * SECTOR_BYTES;
                    self.content[from..from + sector.len()].copy_from_slice(sector);
                }
            }
        }
    }
}
