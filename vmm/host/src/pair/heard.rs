//! Frames that reached a replica which is not live, and that the log does not have.
//!
//! A bridge that learns no place for the guest's address ([docs/network.md]: `learning off`) gives
//! every frame for it to both replicas. What was with the primary when it died, and has not reached
//! the log, its backup has heard too. Going live it gives these frames to the guest: a request does
//! not wait for the client's retransmission timer, 200 ms and more. Where the bridge has learned a
//! place, the client is asked instead ([`super::asking`]).
//!
//! A frame that enters twice all the same is a frame that the network has repeated.
//!
//! [docs/network.md]: ../../../../../docs/network.md

use lockstep_logging_channel::{Body, Entry, Event, EventKind};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Frames kept: what the guest's queue takes at once.
const FRAMES_MAX: usize = 256;
/// Their bytes: 256 full frames of standard Ethernet take a third of it.
const BYTES_MAX: usize = 1 << 20;
/// Frames older than this are of no use: the client has sent them again.
const AGE_NS_MAX: u64 = 1_000_000_000;
/// Frames of the log remembered, so that one which is heard after its entry is known too.
const LOGGED_MAX: usize = 1024;

#[derive(Debug)]
struct Frame {
    digest: u64,
    heard_at_ns: u64,
    bytes: Vec<u8>,
}

/// The frames heard.
#[derive(Debug, Default)]
pub struct Heard {
    frames: VecDeque<Frame>,
    bytes: usize,
    logged: VecDeque<u64>,
    /// A frame has been heard: where none is, nothing has to be remembered of the log.
    hears: bool,
    /// Time at which the last frame for one station was heard.
    unicast_at_ns: Option<u64>,
}

fn digest(frame: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    frame.hash(&mut hasher);
    hasher.finish()
}

impl Heard {
    /// Keeps a frame that was heard at this time, unless the log has it.
    pub fn keep(&mut self, bytes: Vec<u8>, heard_at_ns: u64) {
        self.hears = true;
        if bytes.first().is_some_and(|first| first & 1 == 0) {
            self.unicast_at_ns = Some(heard_at_ns);
        }
        let digest = digest(&bytes);
        if let Some(place) = self.logged.iter().position(|logged| *logged == digest) {
            self.logged.remove(place);
            return;
        }
        self.bytes += bytes.len();
        self.frames.push_back(Frame {
            digest,
            heard_at_ns,
            bytes,
        });
        while self.frames.len() > FRAMES_MAX || self.bytes > BYTES_MAX {
            self.forget(0);
        }
    }

    /// Forgets the frames that these entries have.
    pub fn logged(&mut self, entries: &[Entry]) {
        if !self.hears {
            return;
        }
        for entry in entries {
            if let Body::Event(Event {
                kind: EventKind::Frame(bytes),
                ..
            }) = &entry.body
            {
                self.frame_logged(digest(bytes));
            }
        }
    }

    fn frame_logged(&mut self, digest: u64) {
        match self.frames.iter().position(|frame| frame.digest == digest) {
            Some(place) => self.forget(place),
            None => {
                self.logged.push_back(digest);
                if self.logged.len() > LOGGED_MAX {
                    self.logged.pop_front();
                }
            }
        }
    }

    fn forget(&mut self, place: usize) {
        if let Some(frame) = self.frames.remove(place) {
            self.bytes -= frame.bytes.len();
        }
    }

    /// True if the network gives this replica what it gives the primary: frames for one station
    /// have come lately.
    #[must_use]
    pub fn hears_all(&self, now_ns: u64) -> bool {
        let is_recent = |at_ns| now_ns.saturating_sub(at_ns) <= AGE_NS_MAX;
        self.unicast_at_ns.is_some_and(is_recent)
    }

    /// Takes the frames that the log does not have, oldest first.
    pub fn take(&mut self, now_ns: u64) -> impl Iterator<Item = Vec<u8>> {
        self.bytes = 0;
        self.logged.clear();
        let frames = std::mem::take(&mut self.frames);
        let is_recent = move |frame: &Frame| now_ns.saturating_sub(frame.heard_at_ns) <= AGE_NS_MAX;
        frames.into_iter().filter(is_recent).map(|frame| frame.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(heard: &mut Heard, now_ns: u64) -> Vec<Vec<u8>> {
        heard.take(now_ns).collect()
    }

    #[test]
    fn what_the_log_has_is_not_given_again_whichever_came_first() {
        let mut heard = Heard::default();
        heard.keep(vec![1], 0);
        heard.keep(vec![2], 0);
        heard.frame_logged(digest(&[1]));
        heard.frame_logged(digest(&[3]));
        heard.keep(vec![3], 0);
        heard.keep(vec![4], 0);
        assert_eq!(taken(&mut heard, 1), [[2], [4]]);
        assert_eq!(heard.bytes, 0);
    }

    #[test]
    fn one_that_is_heard_twice_and_logged_once_is_given_once() {
        let mut heard = Heard::default();
        heard.keep(vec![1], 0);
        heard.keep(vec![1], 0);
        heard.frame_logged(digest(&[1]));
        assert_eq!(taken(&mut heard, 1), [[1]]);
    }

    #[test]
    fn old_frames_are_left_to_the_client() {
        let mut heard = Heard::default();
        heard.keep(vec![1], 0);
        heard.keep(vec![2], 5);
        assert_eq!(taken(&mut heard, AGE_NS_MAX + 1), [[2]]);
    }

    #[test]
    fn it_hears_all_where_frames_for_one_station_come() {
        let mut heard = Heard::default();
        heard.keep(vec![0xFF; 60], 5);
        assert!(!heard.hears_all(5), "a broadcast comes to every port");
        heard.keep(vec![0x52; 60], 5);
        assert!(heard.hears_all(5 + AGE_NS_MAX));
        assert!(!heard.hears_all(6 + AGE_NS_MAX));
    }

    #[test]
    fn it_is_bounded_in_frames_bytes_and_memory_of_the_log() {
        let mut heard = Heard::default();
        for number in 0..2 * LOGGED_MAX as u32 {
            heard.keep(number.to_le_bytes().to_vec(), 0);
            heard.frame_logged(u64::from(number));
        }
        assert_eq!((heard.frames.len(), heard.bytes), (FRAMES_MAX, 4 * FRAMES_MAX));
        assert_eq!(heard.logged.len(), LOGGED_MAX);
        for number in 0..40_u8 {
            heard.keep(vec![number; 60_000], 0);
        }
        assert!(heard.bytes <= BYTES_MAX);
    }
}
