//! Judgement of a guest without exits: by its own words, which come once, from whoever goes on.

use super::plan::Plan;
use crate::campaign::kind::Side;
use crate::harness::proxy::Traffic;
use lockstep_logging_channel::{Body, Entry, OutputKind};
use std::collections::BTreeMap;

/// Exit status of a side that was fenced.
const FENCED: i32 = 41;

/// Console text and end of a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Its standard output.
    pub text: String,
    code: Option<i32>,
    was_killed: bool,
}

impl Words {
    /// Those of a side that ended with `code`, or was killed.
    #[must_use]
    pub fn new(text: String, code: Option<i32>, was_killed: bool) -> Self {
        Self {
            text,
            code,
            was_killed,
        }
    }
}

/// Complaints about the words of both sides. What the primary and then the backup have said is what
/// the guest says, once (see [`said`]): that it computes, that its interrupts were counted, and that
/// its memory is as computed. Whoever was not killed has come to the guest's end, or was fenced.
#[must_use]
pub fn words(
    plan: &Plan,
    words: &BTreeMap<Side, Words>,
    traffic: Option<&Traffic>,
    winner: Option<Side>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let said = said(words, traffic);
    let expected = [
        format!("steady: computes over {} pages", plan.pages),
        format!("steady: {} interrupts", plan.interrupts),
        "steady: ".to_owned(),
    ];
    let lines: Vec<&str> = said.lines().collect();
    let fits = lines.len() == expected.len()
        && lines
            .iter()
            .zip(&expected)
            .all(|(line, begins)| line.starts_with(begins))
        && lines.last().is_some_and(|last| last.contains("are as computed"));
    if !fits {
        complaints.push(format!("the guest's words are {lines:?}"));
    }
    for (side, words) in words.iter().filter(|(_, words)| !words.was_killed) {
        let expected = match winner {
            Some(winner) if winner != *side => FENCED,
            _ => 0,
        };
        if words.code != Some(expected) {
            complaints.push(format!(
                "the {} ended with {:?}, not {expected}",
                side.name(),
                words.code
            ));
        }
    }
    complaints
}

/// Words of the primary and then of the backup. A backup says again what has left and it was not told
/// of (ARCHITECTURE.md): that is left out, and not more.
fn said(words: &BTreeMap<Side, Words>, traffic: Option<&Traffic>) -> String {
    let of = |side| words.get(&side).map_or("", |words| words.text.as_str());
    let (primary, backup) = (of(Side::Primary), of(Side::Backup));
    let bytes = traffic.map_or(0, untold_bytes).min(backup.len());
    let new = (0..=bytes)
        .rev()
        .filter_map(|bytes| backup.split_at_checked(bytes))
        .find(|(again, _)| primary.ends_with(again))
        .map_or(backup, |(_, new)| new);
    format!("{primary}{new}")
}

/// Bytes of text in the log whose leaving the backup was not told of.
fn untold_bytes(traffic: &Traffic) -> usize {
    let told = traffic.told();
    let untold = traffic.entries.iter().filter(|entry| Some(entry.sequence) > told);
    let lengths = untold.filter_map(|entry| match &entry.body {
        Body::Output(output) if output.target.kind == OutputKind::Text => Some(output.length as usize),
        _ => None,
    });
    lengths.sum()
}

/// Complaints about what went over the channel, where nobody was lost: each interrupt has entered
/// at a common point.
#[must_use]
pub fn traffic(plan: &Plan, traffic: &Traffic, winner: Option<Side>) -> Option<String> {
    let is_common_point = |entry: &&Entry| matches!(entry.body, Body::CommonPoint(_));
    let points = traffic.entries.iter().filter(is_common_point).count() as u64;
    let too_few = winner.is_none() && points < plan.interrupts;
    too_few.then(|| format!("{points} common points, and {} interrupts", plan.interrupts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::proxy::{Passing, Toward};
    use lockstep_logging_channel::{
        DeviceId, Digest, ExecutionPoint, Generation, OutputDigest, OutputTarget, Sequence,
    };

    fn plan() -> Plan {
        let strike = "kill-primary@primary:part-sent".parse().unwrap();
        Plan {
            interrupts: 200,
            pages: 3,
            ..Plan::draw(1, 1, strike)
        }
    }

    const BEGINNING: &str = "steady: computes over 3 pages until 200 interrupts\n";
    const END: &str =
        "steady: 200 interrupts, 190 of them in the loop\nsteady: 7 passes over 3 pages are as computed\n";

    /// A log with the beginning as its second entry.
    fn log(told: Option<u64>) -> Traffic {
        let output = OutputDigest {
            target: OutputTarget::console(DeviceId(3)),
            length: BEGINNING.len() as u32,
            digest: Digest([0; 16]),
        };
        let beat = |told| (0, Passing::Heartbeat(Toward::Backup, Sequence(told)));
        let entry = Entry {
            generation: Generation::FIRST,
            sequence: Sequence(2),
            point: ExecutionPoint::default(),
            body: Body::Output(output),
        };
        let mut traffic = Traffic::default();
        traffic.entries.push(entry);
        traffic.passed.extend(told.map(beat));
        traffic
    }

    fn complaints_told(primary: &str, backup: &str, code: i32, told: Option<u64>) -> usize {
        let sides = [
            (Side::Primary, Words::new(primary.to_owned(), None, true)),
            (Side::Backup, Words::new(backup.to_owned(), Some(code), false)),
        ];
        words(&plan(), &sides.into(), Some(&log(told)), Some(Side::Backup)).len()
    }

    fn complaints(primary: &str, backup: &str, code: i32) -> usize {
        complaints_told(primary, backup, code, Some(2))
    }

    #[test]
    fn words_that_come_once_from_whoever_goes_on_are_right() {
        assert_eq!(complaints(BEGINNING, END, 0), 0);
        assert_eq!(complaints("", &format!("{BEGINNING}{END}"), 0), 0);
    }

    #[test]
    fn words_that_the_backup_was_not_told_of_may_come_again() {
        let again = format!("{BEGINNING}{END}");
        for told in [None, Some(0), Some(1)] {
            assert_eq!(complaints_told(BEGINNING, &again, 0, told), 0);
            assert_eq!(complaints_told(BEGINNING, END, 0, told), 0);
            let thrice = format!("{BEGINNING}{again}");
            assert_eq!(complaints_told(BEGINNING, &thrice, 0, told), 1);
        }
    }

    #[test]
    fn words_that_are_lost_repeated_or_wrong_are_found() {
        assert_eq!(complaints("", END, 0), 1);
        assert_eq!(complaints(BEGINNING, &format!("{BEGINNING}{END}"), 0), 1);
        assert_eq!(complaints(BEGINNING, "", 0), 1);
        let fewer = END.replace("200", "199");
        assert_eq!(complaints(BEGINNING, &fewer, 0), 1);
        let wrong = END.replace("are as computed", "differ");
        assert_eq!(complaints(BEGINNING, &wrong, 0), 1);
    }

    #[test]
    fn a_guest_whose_interrupts_did_not_enter_at_common_points_is_found() {
        let nothing = Traffic::default();
        assert!(traffic(&plan(), &nothing, None).is_some());
        assert_eq!(
            traffic(&plan(), &nothing, Some(Side::Backup)),
            None,
            "it was lost early"
        );
    }

    #[test]
    fn a_survivor_that_does_not_come_to_the_guests_end_is_found() {
        assert_eq!(complaints(BEGINNING, END, 1), 1);
        let fenced = [
            (
                Side::Primary,
                Words::new(BEGINNING.to_owned(), Some(FENCED), false),
            ),
            (Side::Backup, Words::new(END.to_owned(), Some(0), false)),
        ];
        let found = words(&plan(), &fenced.clone().into(), None, Some(Side::Backup));
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(
            words(&plan(), &fenced.into(), None, None).len(),
            1,
            "nobody has claimed"
        );
    }
}
