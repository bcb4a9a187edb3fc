//! Traffic on the wires of a machine that heals, held against the Output Rule, generation by
//! generation.

use crate::campaign::wire::{Findings, Outputs, check_acknowledgements, own};
use crate::harness::proxy::{Passing, Traffic};
use crate::harness::switch::Frame;
use lockstep_logging_channel::Sequence;
use std::collections::BTreeMap;

/// Findings of the wires. The numbers are of each generation that has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Frames of an armed holder that were looked up.
    pub frames: BTreeMap<u32, u64>,
    /// Frames that the speaker of a generation said after a later one had been announced.
    pub late: BTreeMap<u32, u64>,
    /// Frames and announcements that break the Output Rule, or say that two spoke.
    pub complaints: Vec<String>,
}

/// Holds `frames` against `wires`, each of which is what went to one newcomer, with the generation
/// of the holder that it came to. From its arming on, a holder says nothing that its backup has not
/// acknowledged; what it said before is not in a log that anybody has.
#[must_use]
pub fn check(frames: &[Frame], wires: &[(u32, Traffic)]) -> Found {
    let mut found = Found::default();
    let announced = announcements(frames, &mut found);
    for (generation, traffic) in wires {
        let mut findings = Findings::default();
        check_acknowledgements(traffic, &mut findings);
        found.complaints.append(&mut findings.complaints);
        // One that came to nothing.
        let Some((at_us, from)) = traffic.passed.iter().find_map(arming) else {
            continue;
        };
        let last_heard_us = traffic.passed.iter().filter_map(acknowledgement).max();
        let armed_us = at_us.min(last_heard_us.unwrap_or(at_us));
        let Some(speaker) = armed_in(*generation, armed_us, &announced, frames) else {
            found.complaints.push(format!(
                "a newcomer was armed in generation {generation}, which nobody announced"
            ));
            continue;
        };
        // As the next holder it needs nobody's acknowledgement.
        let until = announced
            .iter()
            .find(|later| later.generation > speaker.generation)
            .map_or(frames.len(), |later| later.place);
        check_armed(&frames[..until], speaker, (at_us, from), traffic, &mut found);
    }
    found
}

/// The first announcement of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Speaker {
    generation: u32,
    interface: u32,
    place: usize,
}

/// The announcement of the generation in which a holder has armed a newcomer at `armed_us`, to which
/// a wire was made in `generation`: it may have lost another backup since then, and gone on. (An
/// arming that reaches nobody any more is later on its wire than the announcement that follows it:
/// `armed_us` is not later than the newcomer's last acknowledgement, if there was one.)
fn armed_in(generation: u32, armed_us: u64, announced: &[Speaker], frames: &[Frame]) -> Option<Speaker> {
    let made_in = announced
        .iter()
        .find(|speaker| speaker.generation == generation)?;
    let mut of_the_holder = announced.iter().filter(|speaker| {
        let is_later = speaker.generation >= generation && speaker.interface == made_in.interface;
        is_later && frames[speaker.place].at_us <= armed_us
    });
    of_the_holder.next_back().or(Some(made_in)).copied()
}

/// First announcements of the generations, in order. Each is announced by one machine and after
/// every earlier one; who has announced nothing says nothing; what an earlier speaker says behind a
/// later announcement is late.
fn announcements(frames: &[Frame], found: &mut Found) -> Vec<Speaker> {
    let mut speakers: Vec<Speaker> = Vec::new();
    for (place, frame) in frames.iter().enumerate() {
        let interface = frame.interface;
        match frame.announced_generation() {
            // A newcomer names its machine to the switch. That gives no right to speak.
            Some(0) => {}
            Some(generation) => {
                if let Some(known) = speakers.iter().find(|known| known.generation == generation) {
                    if known.interface != interface {
                        let text = format!("generation {generation} was announced by port {interface} too");
                        found.complaints.push(text);
                    }
                } else {
                    if speakers.last().is_some_and(|last| last.generation > generation) {
                        let text = format!("generation {generation} was announced after a later one");
                        found.complaints.push(text);
                    }
                    speakers.push(Speaker {
                        generation,
                        interface,
                        place,
                    });
                }
            }
            None if frame.is_from_host => {}
            None => {
                // One that has gone on alone speaks for the newest of its generations.
                match speakers.iter().rfind(|speaker| speaker.interface == interface) {
                    None => found.complaints.push(format!(
                        "port {interface} spoke at {} µs without the right to",
                        frame.at_us
                    )),
                    Some(speaker) if Some(speaker) != speakers.last() => {
                        *found.late.entry(speaker.generation).or_default() += 1;
                    }
                    Some(_) => {}
                }
            }
        }
    }
    speakers
}

fn arming((at_us, passing): &(u64, Passing)) -> Option<(u64, Sequence)> {
    match passing {
        Passing::Armed(from) => Some((*at_us, *from)),
        Passing::Entry(_) | Passing::Acknowledged(_) | Passing::Heartbeat(..) => None,
    }
}

fn acknowledgement((at_us, passing): &(u64, Passing)) -> Option<u64> {
    matches!(passing, Passing::Acknowledged(_)).then_some(*at_us)
}

/// Each frame from the arming on is that of an output: of one before `from`, which had left, or of
/// one that was acknowledged in time.
fn check_armed(
    frames: &[Frame],
    speaker: Speaker,
    (armed_us, from): (u64, Sequence),
    traffic: &Traffic,
    found: &mut Found,
) {
    let mut outputs = Outputs::of(traffic, from);
    for frame in own(&frames[speaker.place..], speaker.interface).filter(|frame| frame.at_us >= armed_us) {
        *found.frames.entry(speaker.generation).or_default() += 1;
        let Some(sequence) = outputs.take(frame) else {
            if !outputs.is_before_the_gate(frame) {
                found.complaints.push(format!(
                    "a frame of {} bytes at {} µs has no entry, in generation {}",
                    frame.bytes.len(),
                    frame.at_us,
                    speaker.generation
                ));
            }
            continue;
        };
        if let Some(when) = outputs.acknowledged_too_late(sequence, frame) {
            found.complaints.push(format!(
                "the frame of entry {} left at {} µs in generation {}, armed from entry {} on, \
                 acknowledged {when}",
                sequence.0, frame.at_us, speaker.generation, from.0
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures::{self, announcement, frame};

    const FIRST: u32 = 1;
    const SECOND: u32 = 2;

    /// The log of [`fixtures::traffic`]; its newcomer is armed from entry 3 on, at 250.
    fn traffic(texts: &[&str]) -> Traffic {
        let mut traffic = fixtures::traffic(texts);
        traffic.passed.push((250, Passing::Armed(Sequence(3))));
        traffic
    }

    fn found(frames: Vec<Frame>) -> Found {
        let frames: Vec<Frame> = std::iter::once(announcement(FIRST, 10, 1))
            .chain(frames)
            .collect();
        check(&frames, &[(1, traffic(&["one", "two", "three", "four"]))])
    }

    #[test]
    fn a_holder_says_what_it_likes_before_the_arming_and_what_is_acknowledged_after_it() {
        let frames = vec![
            frame(FIRST, 90, "before the log"),
            frame(FIRST, 101, "one"),
            frame(FIRST, 251, "two"),
            frame(FIRST, 350, "three"),
            announcement(SECOND, 400, 2),
            frame(SECOND, 401, "four"),
            frame(SECOND, 402, "new"),
        ];
        let expected = Found {
            frames: [(1, 2)].into(),
            ..Found::default()
        };
        assert_eq!(found(frames), expected);
    }

    #[test]
    fn a_frame_that_left_before_its_acknowledgement_is_found_from_the_arming_on() {
        let findings = found(vec![frame(FIRST, 349, "three")]);
        assert!(
            findings.complaints.len() == 1 && findings.complaints[0].contains("acknowledged at 350"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_frame_that_the_log_does_not_have_is_found_from_the_arming_on() {
        let findings = found(vec![frame(FIRST, 300, "invented")]);
        assert!(
            findings.complaints.len() == 1 && findings.complaints[0].contains("has no entry"),
            "{findings:?}"
        );
    }

    #[test]
    fn two_speakers_a_speaker_without_a_claim_and_a_late_one_are_found() {
        let twice = found(vec![announcement(SECOND, 300, 1)]);
        assert!(
            twice.complaints[0].contains("announced by port 2 too"),
            "{twice:?}"
        );
        let back = found(vec![announcement(SECOND, 300, 3), announcement(FIRST, 301, 2)]);
        assert!(back.complaints[0].contains("after a later one"), "{back:?}");
        let silent = found(vec![frame(SECOND, 300, "new")]);
        assert!(
            silent.complaints[0].contains("without the right to"),
            "{silent:?}"
        );
        let late = found(vec![announcement(SECOND, 300, 2), frame(FIRST, 301, "three")]);
        assert_eq!(
            (late.late, late.complaints),
            ([(1, 1)].into(), Vec::<String>::new())
        );
    }

    #[test]
    fn late_frames_are_of_the_newest_generation_that_their_speaker_had() {
        let found = found(vec![
            announcement(FIRST, 300, 2),
            frame(FIRST, 301, "new"),
            announcement(SECOND, 400, 3),
            frame(FIRST, 401, "old"),
            frame(SECOND, 402, "newer"),
        ]);
        assert_eq!(found.late, [(2, 1)].into(), "{found:?}");
    }

    #[test]
    fn a_wire_without_an_arming_looks_no_frame_up() {
        let mut traffic = traffic(&["one", "two", "three", "four"]);
        let _ = traffic.passed.pop();
        let frames = [announcement(FIRST, 10, 1), frame(FIRST, 350, "three")];
        assert_eq!(check(&frames, &[(1, traffic)]), Found::default());
    }

    #[test]
    fn a_holder_that_went_on_before_it_armed_is_of_its_later_generation() {
        let traffic = traffic(&["one", "two", "three", "four"]);
        let frames = [
            announcement(FIRST, 10, 1),
            announcement(FIRST, 20, 2),
            frame(FIRST, 350, "three"),
        ];
        let found = check(&frames, &[(1, traffic)]);
        assert_eq!(found.frames, [(2, 1)].into(), "{found:?}");
    }

    #[test]
    fn an_arming_that_passes_when_its_holder_has_given_the_newcomer_up_is_of_the_earlier_generation() {
        let mut traffic = traffic(&["one", "two", "three", "four"]);
        let last_us = traffic.passed.iter().filter_map(acknowledgement).max().unwrap();
        let at_us = last_us + 500_001;
        traffic.passed.retain(|passed| arming(passed).is_none());
        traffic.passed.push((at_us, Passing::Armed(Sequence(3))));
        let frames = [
            announcement(FIRST, 10, 1),
            announcement(FIRST, at_us - 1, 2),
            frame(FIRST, at_us + 1, "said alone"),
        ];
        assert_eq!(check(&frames, &[(1, traffic)]), Found::default());
    }
}
