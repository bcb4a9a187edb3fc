//! A snapshot of a recording, as a replay takes it from a file that has anything in it. There is a
//! machine only where the file is one whole snapshot of this recording, and then it is the one that
//! was written; all else is one error with a text, and never a panic.
//!
//! The first byte chooses: 0 the bytes behind it as they are, 1 a sound file with those changed that
//! follow (place, mask), cut where a place is 0xffff; 2 a sound header for frames of these bytes
//! (each: how many, kind, bytes; of kind 0 with the length that it has, else with another); 3 a sound
//! file with the disks of a snapshot that is changed and cut as by 1. Of that the blocks are those that
//! were written, or there is one error.

use super::input::Input;
use super::transfer;
use lockstep_core::machine::memory::{self, MEMORY_BYTES_MIN};
use lockstep_core::replica::snapshot::{
    DISK_BLOCK_BYTES, DiskBlock, DisksWriter, Header, Place, Recording, SnapshotError, Writer, read,
    read_bytes, read_disks_header, read_header, scan,
};
use lockstep_logging_channel::Digest;
use std::io::Cursor;

const RECORDING: Recording = Recording {
    name: transfer::PAIR,
    machine: Digest([2; 16]),
    memory_bytes: MEMORY_BYTES_MIN,
};
const PLACE: Place = Place {
    entry: transfer::POSITION.sequence + 1,
    log_offset: 1_000,
    exits: transfer::EXITS,
    instructions: 0,
    guest_ns: transfer::POSITION.monotonic_ns,
};

thread_local! {
    static WHOLE: (Vec<u8>, Digest) = whole();
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    WHOLE.with(|(sound, digest)| {
        let file = match input.byte() % 4 {
            0 => input.rest().to_vec(),
            1 => changed(&mut input, sound),
            2 => framed(&mut input),
            _ => return check_disks(&changed(&mut input, &disks())),
        };
        check(&file, sound, *digest);
    });
}

fn check(file: &[u8], sound: &[u8], digest: Digest) {
    let header = read_header(&mut &*file);
    match read(&mut &*file, &RECORDING) {
        Ok((same, received)) => {
            assert_eq!(file, sound, "another file is taken");
            assert_eq!(header.unwrap(), same);
            assert_eq!(received.position, transfer::POSITION);
            assert_eq!(memory::digest(&received.memory).unwrap(), digest);
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

/// Bytes of the machine's only disk.
const DISK_BYTES: u64 = 3 * DISK_BLOCK_BYTES;
const WRITTEN: DiskBlock = DiskBlock { disk: 0, block: 1 };

/// A sound file with disks: zeros, and something else.
fn disks() -> Vec<u8> {
    let mut writer = DisksWriter::new(Cursor::new(Vec::new())).expect("memory");
    let block = |block| DiskBlock { disk: 0, block };
    writer.put(block(0), &[0; 65_536]).expect("memory");
    writer.put(WRITTEN, &[7; 65_536]).expect("memory");
    let (sink, _) = writer.finish(&RECORDING, 7, None).expect("memory");
    sink.into_inner()
}

fn check_disks(file: &[u8]) {
    match written(file) {
        Ok(bytes) => assert!(bytes == [7; 65_536], "other bytes are taken"),
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

/// What `file` has of the block that was written.
fn written(file: &[u8]) -> Result<Vec<u8>, SnapshotError> {
    let mut source = Cursor::new(file);
    let header = read_disks_header(&mut source)?;
    header.check(&RECORDING)?;
    let found = scan(&mut source, &header, &[DISK_BYTES])?;
    let mut bytes = Vec::new();
    if let Some(found) = found.get(&WRITTEN) {
        read_bytes(&mut source, found, &mut bytes)?;
    }
    Ok(bytes)
}

fn changed(input: &mut Input<'_>, sound: &[u8]) -> Vec<u8> {
    let mut file = sound.to_vec();
    while !input.is_empty() {
        let (place, mask) = (usize::from(input.word()), input.byte());
        if place == 0xffff {
            file.truncate(usize::from(mask) * file.len() / 256);
        } else if !file.is_empty() {
            let place = place % file.len();
            file[place] ^= mask;
        }
    }
    file
}

fn framed(input: &mut Input<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    while !input.is_empty() {
        let (count, kind) = (input.word(), input.byte());
        let record = input.take(count.into());
        let length = match kind {
            0 => record.len() as u32,
            other => u32::from(other) << 16,
        };
        body.extend(length.to_le_bytes());
        body.extend(record);
    }
    let Recording {
        name,
        machine,
        memory_bytes,
    } = RECORDING;
    let header = Header {
        recording: name,
        machine,
        memory_bytes,
        place: PLACE,
        body_bytes: body.len() as u64,
        body: Digest::of(&body),
    };
    [header.encode().as_slice(), &body].concat()
}

/// A sound file, and the digest of its machine's memory.
fn whole() -> (Vec<u8>, Digest) {
    let (records, digest) = transfer::whole();
    let mut writer = Writer::new(Cursor::new(Vec::new())).expect("memory");
    for record in &records {
        writer.put(record).expect("memory");
    }
    let file = writer.finish(&RECORDING, PLACE).expect("memory");
    (file.into_inner(), digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_of_it_is_taken() {
        let (file, _) = whole();
        assert!(read(&mut file.as_slice(), &RECORDING).is_ok());
        run(&[1]);
        run(&[&[0], file.as_slice()].concat());
        run(&[3]);
        run(&[3, 0xff, 0xff, 128]);
        run(&[3, 200, 0, 1]);
    }
}
