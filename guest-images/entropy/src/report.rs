//! One source's line: how many values, a digest of all of them, and some of them in full.

use lockstep_guest_runtime::digest::Digest;
use lockstep_guest_runtime::{print, println};

/// Values printed in full; the digest has the others.
const SHOWN: usize = 6;
/// Notes beside the values.
const NOTES: usize = 4;

/// What has been seen of one source.
pub struct Report<'a> {
    source: &'a str,
    digest: Digest,
    values: usize,
    shown: [u64; SHOWN],
    notes: [(&'a str, u64); NOTES],
    noted: usize,
}

impl<'a> Report<'a> {
    /// Nothing yet.
    pub fn new(source: &'a str) -> Self {
        Self {
            source,
            digest: Digest::default(),
            values: 0,
            shown: [0; SHOWN],
            notes: [("", 0); NOTES],
            noted: 0,
        }
    }

    /// Takes in one value.
    pub fn value(&mut self, value: u64) {
        if let Some(place) = self.shown.get_mut(self.values) {
            *place = value;
        }
        self.values += 1;
        self.digest.number(value);
    }

    /// Takes in bytes, of which none are shown.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.digest.bytes(bytes);
    }

    /// Takes in a number with a name; at most four are kept.
    pub fn note(&mut self, name: &'a str, number: u64) {
        if let Some(place) = self.notes.get_mut(self.noted) {
            *place = (name, number);
            self.noted += 1;
        }
        self.digest.number(number);
    }

    /// The digest so far.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// Prints the line.
    pub fn print(&self) {
        print!("{}: digest {:016x}", self.source, self.digest.value());
        for (name, number) in self.notes.iter().take(self.noted) {
            print!(", {name} {number}");
        }
        print!(", values {}", self.values);
        for value in self.shown.iter().take(self.values) {
            print!(" {value:#x}");
        }
        println!();
    }
}
