//! Judgement of a guest without exits: by its own words, which come once, from whoever goes on.

use super::plan::Plan;
use crate::campaign::kind::Side;
use crate::harness::proxy::Traffic;
use lockstep_logging_channel::{Body, Entry};
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
/// the guest says, once: that it computes, that its interrupts were counted, and that its memory is
/// as computed. Whoever was not killed has come to the guest's end, or was fenced.
#[must_use]
pub fn words(plan: &Plan, words: &BTreeMap<Side, Words>, winner: Option<Side>) -> Vec<String> {
    let mut complaints = Vec::new();
    let said: String = words.values().map(|words| words.text.as_str()).collect();
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

    fn complaints(primary: &str, backup: &str, code: i32) -> usize {
        let sides = [
            (Side::Primary, Words::new(primary.to_owned(), None, true)),
            (Side::Backup, Words::new(backup.to_owned(), Some(code), false)),
        ];
        words(&plan(), &sides.into(), Some(Side::Backup)).len()
    }

    #[test]
    fn words_that_come_once_from_whoever_goes_on_are_right() {
        assert_eq!(complaints(BEGINNING, END, 0), 0);
        assert_eq!(complaints("", &format!("{BEGINNING}{END}"), 0), 0);
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
        let found = words(&plan(), &fenced.clone().into(), Some(Side::Backup));
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(
            words(&plan(), &fenced.into(), None).len(),
            1,
            "nobody has claimed"
        );
    }
}
