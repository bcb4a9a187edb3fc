//! Traffic on the wires, held against the Output Rule: every frame that left a primary while it
//! had a backup has an entry of the log, and the backup had acknowledged that entry before the
//! frame entered the switch.
//!
//! Two witnesses beside the pair: the switch wrote down each frame and its time, and the proxy on
//! the channel each entry and each acknowledgement, before it passed them on. Both use the host's
//! wall clock. Nothing the two processes say of themselves is used.

use crate::harness::proxy::{Passing, Traffic};
use crate::harness::switch::Frame;
use lockstep_logging_channel::{Body, Digest, Entry, OutputKind, Sequence};
use std::collections::BTreeSet;

/// Port of the switch's own host: no machine is behind it.
const HOST: u32 = 0;

/// Findings of the wires of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Frames of the primary that had to be explained, and were looked up.
    pub frames: u64,
    /// Frames that an old machine said after the new one had announced itself. The switch drops
    /// them.
    pub late: u64,
    /// Frames and announcements that break the Output Rule, or say that two spoke.
    pub complaints: Vec<String>,
}

/// An announcement is followed by frames of the replica's own that teach bridges where the guest
/// is: reverse ARP.
const RARP: [u8; 2] = [0x80, 0x35];

/// Most of them for one announcement: one at once, and five repeats.
const TEACHING_MAX: u32 = 6;

/// Holds `frames` against `traffic`.
#[must_use]
pub fn check(frames: &[Frame], traffic: &Traffic) -> Findings {
    let mut findings = Findings::default();
    check_acknowledgements(traffic, &mut findings);
    let announced = |generation| {
        frames
            .iter()
            .position(|frame| frame.announced_generation() == Some(generation))
    };
    // A primary that was stopped before it could is first heard of in the generation that it won
    // then.
    let Some(first) = announced(1).or_else(|| announced(2)) else {
        let was_there = |frame: &Frame| frame.announced_generation().is_some();
        if !frames.iter().any(was_there) {
            let text = "no machine was heard of".to_owned();
            findings.complaints.push(text);
        }
        // Both may have died before: then nobody has said anything either.
        check_announcements(frames, HOST, None, &mut findings);
        return findings;
    };
    let primary = frames[first].interface;
    let second = announced(2);
    let winner = second.map(|place| frames[place].interface);
    check_announcements(frames, primary, winner, &mut findings);
    // Alone, once it has won, the primary needs nobody's acknowledgement.
    let alone_from = second.filter(|_| winner == Some(primary)).unwrap_or(frames.len());
    check_frames(&frames[..alone_from], primary, traffic, &mut findings);
    if let Some(place) = second.filter(|_| winner != Some(primary)) {
        findings.late = own(&frames[place..], primary).count() as u64;
    }
    findings
}

/// The backup can have acknowledged only what was passed on to it before.
pub(super) fn check_acknowledgements(traffic: &Traffic, findings: &mut Findings) {
    let mut passed = Sequence(0);
    for (at_us, passing) in &traffic.passed {
        match passing {
            Passing::Entry(sequence) => passed = passed.max(*sequence),
            Passing::Acknowledged(sequence) if *sequence > passed => findings.complaints.push(format!(
                "entry {} was acknowledged at {at_us} µs when entry {} was the last that had been passed on",
                sequence.0, passed.0
            )),
            Passing::Acknowledged(_) | Passing::Armed(_) | Passing::Heartbeat(..) => {}
        }
    }
}

/// At most one machine announces a generation, and who has announced nothing says nothing.
fn check_announcements(frames: &[Frame], primary: u32, winner: Option<u32>, findings: &mut Findings) {
    let mut speaking = std::collections::BTreeSet::new();
    for frame in frames {
        if frame.announced_generation() == Some(0) {
            // A backup names its pair to the switch. That gives no right to speak.
            continue;
        }
        if let Some(generation) = frame.announced_generation() {
            speaking.insert(frame.interface);
            let rightful = if generation == 1 { Some(primary) } else { winner };
            if Some(frame.interface) != rightful || generation > 2 {
                let text = format!(
                    "generation {generation} was announced by port {} too",
                    frame.interface
                );
                findings.complaints.push(text);
            }
        } else if !frame.is_from_host && !speaking.contains(&frame.interface) {
            let text = format!(
                "port {} spoke at {} µs without the right to",
                frame.interface, frame.at_us
            );
            findings.complaints.push(text);
        }
    }
}

/// Frames of the guest behind `interface`: neither announcements nor what teaches bridges after
/// them.
pub(super) fn own(frames: &[Frame], interface: u32) -> impl Iterator<Item = &Frame> {
    let mut teaching_left = 0;
    frames.iter().filter(move |frame| {
        if frame.interface != interface {
            return false;
        }
        if let Some(generation) = frame.announced_generation() {
            if generation > 0 {
                teaching_left = TEACHING_MAX;
            }
            return false;
        }
        let teaches = teaching_left > 0 && frame.bytes.get(12..14) == Some(&RARP);
        teaching_left -= u32::from(teaches);
        !teaches
    })
}

/// Outputs of a log, against which the frames of its machine are held one after another.
#[derive(Debug)]
pub(super) struct Outputs {
    all: Vec<(Sequence, Digest)>,
    /// The first of them whose frame had not left when its log began to be held back.
    gated: usize,
    /// The first whose frame may come next.
    next: usize,
    acknowledged: Vec<(u64, Sequence)>,
}

impl Outputs {
    /// Those of the log that was passed on, whose frames are held back from entry `from` on.
    pub(super) fn of(traffic: &Traffic, from: Sequence) -> Self {
        let all = network_outputs(&traffic.entries);
        let gated = all.partition_point(|(sequence, _)| *sequence < from);
        Self {
            all,
            gated,
            next: gated,
            acknowledged: traffic.passed.iter().filter_map(acknowledgement).collect(),
        }
    }

    /// The entry of `frame`, which comes behind those that were taken before.
    pub(super) fn take(&mut self, frame: &Frame) -> Option<Sequence> {
        let digest = Digest::of(&frame.bytes);
        let found = self.all[self.next..]
            .iter()
            .position(|(_, output)| *output == digest)?;
        let (sequence, _) = self.all[self.next + found];
        self.next += found + 1;
        Some(sequence)
    }

    /// True if `frame` is that of an output that is not held back.
    pub(super) fn is_before_the_gate(&self, frame: &Frame) -> bool {
        let digest = Digest::of(&frame.bytes);
        self.all[..self.gated].iter().any(|(_, output)| *output == digest)
    }

    /// The time at which entry `sequence` was acknowledged, in words, if its frame had left before.
    pub(super) fn acknowledged_too_late(&self, sequence: Sequence, frame: &Frame) -> Option<String> {
        let in_time = self
            .acknowledged
            .iter()
            .find(|(_, received)| *received >= sequence);
        match in_time {
            None => Some("never".to_owned()),
            Some((at_us, _)) if *at_us > frame.at_us => Some(format!("at {at_us} µs")),
            Some(_) => None,
        }
    }
}

/// Each frame is that of an output of the log, in the log's order, and was acknowledged in time.
fn check_frames(frames: &[Frame], primary: u32, traffic: &Traffic, findings: &mut Findings) {
    let mut outputs = Outputs::of(traffic, Sequence(0));
    for frame in own(frames, primary) {
        findings.frames += 1;
        let Some(sequence) = outputs.take(frame) else {
            findings.complaints.push(format!(
                "a frame of {} bytes at {} µs has no entry",
                frame.bytes.len(),
                frame.at_us
            ));
            continue;
        };
        if let Some(when) = outputs.acknowledged_too_late(sequence, frame) {
            findings.complaints.push(format!(
                "the frame of entry {} left at {} µs, acknowledged {when}",
                sequence.0, frame.at_us
            ));
        }
    }
}

/// Outputs of the log whose frames nobody has said, where its primary is dead and its backup goes
/// on: what the one had not let out the other says.
#[must_use]
pub fn unsaid(frames: &[Frame], traffic: &Traffic) -> Option<String> {
    let said: BTreeSet<[u8; 16]> = frames
        .iter()
        .filter(|frame| !frame.is_from_host)
        .map(|frame| Digest::of(&frame.bytes).0)
        .collect();
    let outputs = network_outputs(&traffic.entries);
    let unsaid: Vec<Sequence> = outputs
        .into_iter()
        .filter(|(explained, _)| *explained != NEVER)
        .filter(|(_, digest)| !said.contains(&digest.0))
        .map(|(sequence, _)| sequence)
        .collect();
    let first = unsaid.first()?;
    Some(format!(
        "{} outputs of the log were never said, the first that of entry {}",
        unsaid.len(),
        first.0
    ))
}

/// Stands for the entry behind an output that the log does not have.
const NEVER: Sequence = Sequence(u64::MAX);

/// Frames of the log, each with the entry whose acknowledgement lets it go: its own, or, where the
/// backup does not run the guest, the common point behind it, or the end.
fn network_outputs(entries: &[Entry]) -> Vec<(Sequence, Digest)> {
    let (mut all, mut held) = (Vec::new(), Vec::new());
    for entry in entries {
        match &entry.body {
            Body::Output(output) if output.target.kind == OutputKind::Frame => {
                all.push((entry.sequence, output.digest));
            }
            Body::HeldOutput(output) if output.target.kind == OutputKind::Frame => {
                held.push(Digest::of(&output.bytes));
            }
            Body::CommonPoint(_) | Body::End(_) => {
                all.extend(held.drain(..).map(|digest| (entry.sequence, digest)));
            }
            _ => {}
        }
    }
    all.extend(held.into_iter().map(|digest| (NEVER, digest)));
    all
}

fn acknowledgement((at_us, passing): &(u64, Passing)) -> Option<(u64, Sequence)> {
    match passing {
        Passing::Acknowledged(sequence) => Some((*at_us, *sequence)),
        Passing::Entry(_) | Passing::Armed(_) | Passing::Heartbeat(..) => None,
    }
}

#[cfg(test)]
mod tests;
