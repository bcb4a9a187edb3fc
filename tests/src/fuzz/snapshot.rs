//! A snapshot of a recording, as a replay takes it from a file that has anything in it. There is a
//! machine only where the file is one whole snapshot of this recording, and then it is the one that
//! was written; all else is one error with a text, and never a panic.
//!
//! The first byte chooses: 0 the bytes behind it as they are, 1 a sound file with those changed that
//! follow (place, mask), cut where a place is 0xffff; 2 a sound header for frames of these bytes
//! (each: how many, kind, bytes; of kind 0 with the length that it has, else with another).

use super::input::Input;
use super::transfer;
use lockstep_core::machine::memory::{self, MEMORY_BYTES_MIN};
use lockstep_core::replica::snapshot::{Header, Place, Recording, Writer, read, read_header};
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
        let file = match input.byte() % 3 {
            0 => input.rest().to_vec(),
            1 => changed(&mut input, sound),
            _ => framed(&mut input),
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
    }
}
