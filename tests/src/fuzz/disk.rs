//! Images of disks. Whatever the file: no panic, and an error names it. What can be opened can be
//! read, written, discarded and flushed anywhere, or fails; and its memory is bounded by what its
//! tables may have. An image that was closed after that is opened again, and is not damaged.
//!
//! The first byte chooses what the rest is: 0 a file, 1 changes to a sound qcow2 image (a byte for
//! the cluster of 64 KiB, two for the place in it, one for the value), 2 what is beside an image.

use super::input::Input;
use lockstep_shared_disk::image::{Format, Identity, Image, ImageError, Options, check, create, look};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Size of the sound image's disk.
const SIZE_BYTES: u64 = 4 << 20;
const CLUSTER_BYTES: usize = 64 << 10;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    match input.byte() % 3 {
        0 => {
            fs::write(&path, input.rest()).expect("a file");
            examine(&path);
        }
        1 => {
            fs::write(&path, changed(&mut input)).expect("a file");
            examine(&path);
        }
        _ => beside(&path, input.rest()),
    }
}

/// A sound image with data in two places.
fn sound() -> &'static [u8] {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image");
        create(&path, SIZE_BYTES, Format::Qcow2, false).expect("an image");
        let image = Image::open(&path, &options()).expect("a sound image");
        for at in [0, SIZE_BYTES / 2] {
            image.write_at(at, &[7; 5000]).expect("a write");
        }
        image.flush().expect("a flush");
        drop(image);
        fs::read(&path).expect("a file")
    })
}

fn options() -> Options {
    Options {
        direct: false,
        ..Options::default()
    }
}

fn changed(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = sound().to_vec();
    while !input.is_empty() {
        let cluster = usize::from(input.byte()) % (bytes.len() / CLUSTER_BYTES);
        let at = usize::from(input.word()) % CLUSTER_BYTES;
        bytes[cluster * CLUSTER_BYTES + at] = input.byte();
    }
    bytes
}

fn examine(path: &Path) {
    if let Err(why) = look(path) {
        refused(&why, path);
    }
    let sound = check(path);
    if let Err(why) = &sound {
        refused(why, path);
    }
    let image = match Image::open(path, &options()) {
        Ok(image) => image,
        Err(why) => return refused(&why, path),
    };
    assert!(sound.is_ok(), "it is opened, and not sound: {sound:?}");
    let size = image.size_bytes();
    let mut buffer = vec![0; CLUSTER_BYTES];
    for at in (0..size.min(SIZE_BYTES)).step_by(CLUSTER_BYTES) {
        let length = buffer.len().min((size - at) as usize);
        // Compressed data need not be what they should be.
        let _ = image.read_at(at, &mut buffer[..length]);
        if image.write_at(at, &[5; 512]).is_ok() {
            let mut again = [0; 512];
            image.read_at(at, &mut again).expect("what was just written");
            assert_eq!(again, [5; 512]);
        }
    }
    let length = size.min(SIZE_BYTES / 2);
    if image.discard(0, length).is_ok() {
        let mut zeroes = vec![1; length.min(4096) as usize];
        image.read_at(0, &mut zeroes).expect("what was just discarded");
        assert!(zeroes.iter().all(|byte| *byte == 0));
    }
    if image.flush().is_ok() {
        drop(image);
        if let Err(why) = Image::open(path, &options()) {
            panic!("it was sound, and is not after it was used: {why}");
        }
    }
}

fn beside(path: &Path, bytes: &[u8]) {
    fs::write(Identity::path(path), bytes).expect("a file");
    match Identity::read(path) {
        Ok(found) => {
            let identity = found.expect("a file is there");
            identity.write(path).expect("a file");
            assert_eq!(Identity::read(path).expect("what was written"), Some(identity));
        }
        Err(why) => refused(&why, &Identity::path(path)),
    }
}

fn refused(why: &ImageError, path: &Path) {
    let text = why.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
}
