//! Wires with one fault each, and without.

use super::*;
use crate::campaign::fixtures::{HOST, announcement, frame, traffic};
use lockstep_logging_channel::{CommonPoint, DeviceId, ExecutionPoint, Generation, HeldOutput, OutputTarget};

const PRIMARY: u32 = 1;
const BACKUP: u32 = 2;

fn rarp(interface: u32, at_us: u64) -> Frame {
    let mut frame = frame(interface, at_us, "rarp");
    frame.bytes[12..14].copy_from_slice(&RARP);
    frame
}

fn opening() -> Vec<Frame> {
    vec![announcement(PRIMARY, 10, 1), rarp(PRIMARY, 11)]
}

fn complaints(frames: Vec<Frame>, traffic: &Traffic) -> Vec<String> {
    let frames: Vec<Frame> = opening().into_iter().chain(frames).collect();
    check(&frames, traffic).complaints
}

#[test]
fn a_pair_that_died_before_it_announced_itself_has_said_nothing() {
    let asked = vec![frame(HOST, 10, "question"), announcement(BACKUP, 11, 0)];
    assert_eq!(check(&asked, &traffic(&[])).complaints, Vec::<String>::new());
    let spoke: Vec<Frame> = asked.into_iter().chain([frame(PRIMARY, 12, "one")]).collect();
    let complaints = check(&spoke, &traffic(&["one"])).complaints;
    assert_eq!(complaints, ["port 1 spoke at 12 µs without the right to"]);
}

#[test]
fn frames_that_were_acknowledged_before_they_left_are_explained() {
    let frames = vec![
        frame(HOST, 90, "question"),
        frame(PRIMARY, 150, "one"),
        frame(PRIMARY, 300, "two"),
        announcement(BACKUP, 400, 2),
        rarp(BACKUP, 401),
        frame(BACKUP, 402, "two"),
        frame(BACKUP, 403, "new"),
    ];
    let all: Vec<Frame> = opening().into_iter().chain(frames).collect();
    let findings = check(&all, &traffic(&["one", "two", "three"]));
    assert_eq!(
        findings,
        Findings {
            frames: 2,
            late: 0,
            complaints: vec![]
        }
    );
}

#[test]
fn a_frame_that_the_log_does_not_have_is_found() {
    let found = complaints(
        vec![frame(PRIMARY, 150, "one"), frame(PRIMARY, 151, "invented")],
        &traffic(&["one"]),
    );
    assert!(found.len() == 1 && found[0].contains("has no entry"), "{found:?}");
}

#[test]
fn a_frame_that_left_before_its_acknowledgement_is_found() {
    let found = complaints(vec![frame(PRIMARY, 149, "one")], &traffic(&["one"]));
    assert!(
        found.len() == 1 && found[0].contains("acknowledged at 150"),
        "{found:?}"
    );
}

#[test]
fn a_frame_whose_acknowledgement_never_came_through_is_found() {
    let mut traffic = traffic(&["one", "two"]);
    traffic.passed.pop();
    let found = complaints(vec![frame(PRIMARY, 900, "two")], &traffic);
    assert!(found.len() == 1 && found[0].contains("never"), "{found:?}");
}

#[test]
fn frames_that_are_out_of_order_or_said_twice_are_found() {
    let twice = complaints(
        vec![frame(PRIMARY, 500, "one"), frame(PRIMARY, 501, "one")],
        &traffic(&["one", "two"]),
    );
    assert_eq!(twice.len(), 1, "{twice:?}");
    let swapped = complaints(
        vec![frame(PRIMARY, 500, "two"), frame(PRIMARY, 501, "one")],
        &traffic(&["one", "two"]),
    );
    assert_eq!(swapped.len(), 1, "{swapped:?}");
}

#[test]
fn an_acknowledgement_of_what_had_not_been_passed_on_is_found() {
    let mut traffic = traffic(&["one"]);
    traffic.passed.push((151, Passing::Acknowledged(Sequence(2))));
    let found = complaints(vec![], &traffic);
    assert!(
        found.len() == 1 && found[0].contains("entry 2 was acknowledged"),
        "{found:?}"
    );
}

#[test]
fn a_primary_that_has_won_needs_no_acknowledgement() {
    let frames = vec![
        announcement(PRIMARY, 200, 2),
        rarp(PRIMARY, 201),
        frame(PRIMARY, 202, "new"),
    ];
    assert_eq!(complaints(frames, &traffic(&["one"])), Vec::<String>::new());
}

#[test]
fn a_backup_that_speaks_before_it_has_won_is_found() {
    let found = complaints(vec![frame(BACKUP, 150, "one")], &traffic(&["one"]));
    assert!(
        found.len() == 1 && found[0].contains("without the right to"),
        "{found:?}"
    );
}

#[test]
fn a_backup_that_names_its_pair_has_no_right_to_speak() {
    let names = complaints(vec![announcement(BACKUP, 150, 0)], &traffic(&["one"]));
    assert_eq!(names, Vec::<String>::new());
    let speaks = vec![announcement(BACKUP, 150, 0), frame(BACKUP, 151, "one")];
    let found = complaints(speaks, &traffic(&["one"]));
    assert!(
        found.len() == 1 && found[0].contains("without the right to"),
        "{found:?}"
    );
}

#[test]
fn an_announcement_is_repeated_five_times_and_not_once_more() {
    let repeats = |count| (0..count).map(|number| rarp(PRIMARY, 20 + number)).collect();
    assert_eq!(complaints(repeats(5), &traffic(&["one"])), Vec::<String>::new());
    let found = complaints(repeats(6), &traffic(&["one"]));
    assert!(found.len() == 1 && found[0].contains("has no entry"), "{found:?}");
}

#[test]
fn a_repeat_of_the_old_machine_after_the_new_one_has_begun_is_late() {
    let frames = vec![announcement(BACKUP, 120, 2), rarp(PRIMARY, 150)];
    let all: Vec<Frame> = opening().into_iter().chain(frames).collect();
    assert_eq!(check(&all, &traffic(&["one"])).late, 1);
}

#[test]
fn two_winners_of_a_generation_are_found() {
    let found = complaints(
        vec![announcement(BACKUP, 150, 2), announcement(PRIMARY, 151, 2)],
        &traffic(&["one"]),
    );
    assert!(
        found.len() == 1 && found[0].contains("announced by port 1 too"),
        "{found:?}"
    );
}

#[test]
fn what_the_old_machine_says_after_the_new_one_has_begun_is_counted() {
    let frames = vec![
        announcement(BACKUP, 120, 2),
        frame(PRIMARY, 150, "one"),
        frame(PRIMARY, 151, "invented"),
    ];
    let all: Vec<Frame> = opening().into_iter().chain(frames).collect();
    let findings = check(&all, &traffic(&["one"]));
    assert_eq!((findings.late, findings.complaints.len()), (2, 1), "{findings:?}");
}

/// The log of [`traffic`], whose frames are held until a common point behind each, but for the
/// last.
fn held_traffic(texts: &[&str]) -> Traffic {
    let mut traffic = Traffic::default();
    for (text, number) in texts.iter().zip(1..) {
        let output = Body::HeldOutput(HeldOutput {
            target: OutputTarget::network(DeviceId(4)),
            bytes: frame(HOST, 0, text).bytes,
        });
        let point = Body::CommonPoint(CommonPoint {
            first: Sequence(2 * number),
            pages: 0,
            sections: Digest::of(&[]),
        });
        for (sequence, body) in [(2 * number - 1, output), (2 * number, point)] {
            traffic.entries.push(Entry {
                generation: Generation(1),
                sequence: Sequence(sequence),
                point: ExecutionPoint::default(),
                body,
            });
            let passed = [
                (sequence * 100, Passing::Entry(Sequence(sequence))),
                (sequence * 100 + 50, Passing::Acknowledged(Sequence(sequence))),
            ];
            traffic.passed.extend(passed);
        }
    }
    traffic.entries.pop();
    traffic
}

#[test]
fn a_frame_that_left_before_the_common_point_behind_it_was_acknowledged_is_found() {
    let traffic = held_traffic(&["one", "two"]);
    let in_time = complaints(vec![frame(PRIMARY, 250, "one")], &traffic);
    assert_eq!(in_time, Vec::<String>::new());
    let early = complaints(vec![frame(PRIMARY, 249, "one")], &traffic);
    assert!(early[0].contains("acknowledged at 250"), "{early:?}");
    let never = complaints(vec![frame(PRIMARY, 900, "two")], &traffic);
    assert!(never[0].contains("never"), "{never:?}");
}

#[test]
fn what_has_no_common_point_behind_it_need_not_be_said() {
    let mut frames = opening();
    let traffic = held_traffic(&["one", "two"]);
    assert!(unsaid(&frames, &traffic).unwrap().contains("that of entry 2"));
    frames.push(frame(PRIMARY, 250, "one"));
    assert_eq!(unsaid(&frames, &traffic), None);
}

#[test]
fn an_output_that_neither_side_has_said_is_found() {
    let mut frames = opening();
    frames.push(frame(PRIMARY, 150, "one"));
    let traffic = traffic(&["one", "two"]);
    assert!(unsaid(&frames, &traffic).unwrap().contains("that of entry 2"));
    frames.push(frame(BACKUP, 400, "two"));
    assert_eq!(unsaid(&frames, &traffic), None);
}

#[test]
fn a_capture_without_a_pair_is_found() {
    assert_eq!(check(&[], &traffic(&[])).complaints.len(), 1);
}
