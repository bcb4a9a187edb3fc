//! The rewrite: commands that make the keys that there are, in the other half.

use super::layout::{SUPERBLOCK_BYTES, Superblock};
use super::log::{PENDING_BYTES_MAX, write_at};
use super::record::{self, ELEMENTS_BYTES, Head, Kind, record_bytes};
use super::{AppendOnly, StorageError};
use crate::store::{Keyspace, Value};
use alloc::vec;
use alloc::vec::Vec;

/// Why a rewrite was given up.
enum GivenUp {
    /// The keys do not fit into a half.
    TooLarge,
    Storage(StorageError),
}

/// The other half as it is filled.
struct Filling<'f> {
    file: &'f mut AppendOnly,
    superblock: Superblock,
    end: u64,
    tail: Vec<u8>,
    pending: Vec<u8>,
    sequence: u64,
    previous: u64,
    now_ms: u64,
}

impl AppendOnly {
    /// Puts the keys into the other half, and goes on there. False where they do not fit, or where
    /// the disk failed: then nothing has changed.
    pub(crate) fn rewrite(&mut self, keyspace: &Keyspace, now_ms: u64) -> bool {
        if self.failed.is_some() {
            return false;
        }
        match self.try_rewrite(keyspace, now_ms) {
            Ok(()) => true,
            Err(GivenUp::TooLarge) => false,
            Err(GivenUp::Storage(error)) => {
                self.failed = Some(error);
                false
            }
        }
    }

    fn try_rewrite(&mut self, keyspace: &Keyspace, now_ms: u64) -> Result<(), GivenUp> {
        let superblock = Superblock {
            generation: self.superblock.generation + 1,
            salt: self.storage.random(),
            sequence: self.sequence,
            ..self.superblock
        };
        let mut filling = Filling {
            sequence: self.sequence,
            previous: superblock.first_previous(),
            file: self,
            superblock,
            end: 0,
            tail: Vec::new(),
            pending: Vec::new(),
            now_ms,
        };
        for (key, value, deadline_ms) in keyspace.iter_with_deadlines() {
            filling.put(key.bytes(), value)?;
            if let Some(deadline_ms) = deadline_ms {
                let write = |out: &mut Vec<u8>| record::write_deadline(out, deadline_ms, key.bytes());
                filling.append(Kind::Deadline, 8 + key.bytes().len(), write)?;
            }
        }
        filling.write().map_err(GivenUp::Storage)?;
        let Filling {
            end,
            tail,
            sequence,
            previous,
            ..
        } = filling;
        self.storage.flush().map_err(GivenUp::Storage)?;
        self.write_superblock(&superblock).map_err(GivenUp::Storage)?;
        self.superblock = superblock;
        (self.end, self.tail, self.base_bytes) = (end, tail, end);
        (self.sequence, self.previous, self.durable) = (sequence, previous, sequence);
        self.pending.clear();
        self.committed_ms = now_ms;
        self.rewrites += 1;
        Ok(())
    }

    /// Writes a superblock, and makes it durable.
    pub(super) fn write_superblock(&mut self, superblock: &Superblock) -> Result<(), StorageError> {
        let mut block = vec![0; self.storage.block_bytes().max(SUPERBLOCK_BYTES)];
        superblock.write(&mut block);
        self.storage.write(superblock.place(), &block)?;
        self.storage.flush()
    }
}

impl Filling<'_> {
    fn put(&mut self, key: &[u8], value: &Value) -> Result<(), GivenUp> {
        match value {
            Value::Text(text) => self.command(&[b"set", key, text.bytes()]),
            Value::List(list) => self.commands(b"rpush", key, list.range(0, list.len()), 1),
            Value::Set(set) => self.commands(b"sadd", key, set.iter(), 1),
            Value::Hash(hash) => {
                let fields = hash.iter().flat_map(|(field, value)| [field, value]);
                self.commands(b"hset", key, fields, 2)
            }
        }
    }

    /// Commands that add `elements`, of which so many belong together.
    fn commands<'e>(
        &mut self,
        name: &'static [u8],
        key: &'e [u8],
        elements: impl Iterator<Item = &'e [u8]>,
        together: usize,
    ) -> Result<(), GivenUp> {
        let mut words = vec![name, key];
        let mut bytes = 0;
        for element in elements {
            words.push(element);
            bytes += element.len() + 4;
            if bytes >= ELEMENTS_BYTES && words.len().is_multiple_of(together) {
                self.command(&words)?;
                words.truncate(2);
                bytes = 0;
            }
        }
        if words.len() > 2 {
            self.command(&words)?;
        }
        Ok(())
    }

    fn command(&mut self, words: &[&[u8]]) -> Result<(), GivenUp> {
        let body_bytes = record::command_bytes(words.iter().map(|word| word.len()));
        self.append(Kind::Command, body_bytes, |out| {
            record::write_command(out, words.iter().copied());
        })
    }

    fn append(
        &mut self,
        kind: Kind,
        body_bytes: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), GivenUp> {
        let used_bytes = self.end + self.pending.len() as u64;
        if used_bytes + record_bytes(body_bytes) as u64 > self.superblock.half_bytes() {
            return Err(GivenUp::TooLarge);
        }
        let head = Head {
            kind,
            sequence: self.sequence + 1,
            durable: 0,
            time_ms: self.now_ms,
            wall_ns: 0,
            previous: self.previous,
        };
        self.previous = record::append(&mut self.pending, self.superblock.salt, &head, write);
        self.sequence = head.sequence;
        if self.pending.len() >= PENDING_BYTES_MAX {
            self.write().map_err(GivenUp::Storage)?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StorageError> {
        let place = self.superblock.half_place() + self.end;
        let storage = &mut *self.file.storage;
        write_at(storage, place, &mut self.tail, &self.pending)?;
        self.end += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}
