//! Judgement of starts: there was one machine at a time, and clients saw one history of each.

use super::counter::Counted;
use crate::campaign::web::Claimed;
use crate::harness::switch::Frame;
use std::collections::BTreeMap;

/// Place where a frame entered: a switch, and a port of it.
type Port = (usize, u32);

/// Complaints about the claims: one is missing, or a machine comes back after another has begun.
#[must_use]
pub fn claims(claims: &[Claimed]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut over: Vec<&str> = Vec::new();
    for (expected, claim) in (1..).zip(claims) {
        if claim.generation != expected {
            complaints.push(format!("generation {expected} is missing"));
        }
        if over.contains(&claim.machine.as_str()) {
            complaints.push(format!(
                "machine {} is back in generation {}",
                claim.machine, claim.generation
            ));
        }
        let earlier = claims
            .iter()
            .filter(|earlier| earlier.generation < claim.generation);
        over = earlier
            .map(|earlier| earlier.machine.as_str())
            .filter(|machine| *machine != claim.machine)
            .collect();
    }
    complaints
}

/// True if no side may end like that, whatever was done to the others: by a signal that nobody
/// sent, or as if its guest had failed, its log were damaged or its peer of another environment, of
/// which no plan has any.
#[must_use]
pub fn is_a_wrong_end(code: Option<i32>) -> bool {
    matches!(code, None | Some(1 | 42 | 43))
}

/// Number of machines that were claimed.
#[must_use]
pub fn machines(claims: &[Claimed]) -> usize {
    let mut machines: Vec<&str> = claims.iter().map(|claim| claim.machine.as_str()).collect();
    machines.sort_unstable();
    machines.dedup();
    machines.len()
}

/// Complaints about the frames on all switches: who spoke without having announced itself, two
/// that announced one generation, and an earlier one after a later one. Second: how many frames
/// came from a machine behind the announcement of a later generation.
#[must_use]
pub fn frames(switches: &[Vec<Frame>]) -> (Vec<String>, u64) {
    let mut all: Vec<(Port, &Frame)> = Vec::new();
    for (switch, frames) in switches.iter().enumerate() {
        all.extend(frames.iter().map(|frame| ((switch, frame.interface), frame)));
    }
    all.sort_by_key(|(_, frame)| frame.at_us);
    let mut complaints = Vec::new();
    let mut speakers: BTreeMap<u32, Port> = BTreeMap::new();
    let mut late = 0;
    for (port, frame) in all {
        match frame.announced_generation() {
            // A side that stands by names its machine to the switch. That gives no right to speak.
            Some(0) => {}
            Some(generation) => {
                if let Some((newest, _)) = speakers.last_key_value()
                    && *newest > generation
                {
                    complaints.push(format!("generation {generation} was announced after {newest}"));
                }
                let known = *speakers.entry(generation).or_insert(port);
                if known != port {
                    complaints.push(format!(
                        "generation {generation} was announced twice: {known:?}, {port:?}"
                    ));
                }
            }
            None if frame.is_from_host => {}
            None if !speakers.values().any(|speaker| *speaker == port) => {
                complaints.push(format!(
                    "{port:?} spoke at {} µs without the right to",
                    frame.at_us
                ));
            }
            None => {
                late += u64::from(
                    speakers
                        .last_key_value()
                        .is_some_and(|(_, newest)| *newest != port),
                )
            }
        }
    }
    (complaints, late)
}

/// Complaints about the counts of clients, where so many machines were begun. Each machine counts
/// from 1 and no number twice; and for each client a count goes back only where another machine has
/// begun.
#[must_use]
pub fn counts(clients: &[Vec<Counted>], machines: usize) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for (client, counted) in clients.iter().enumerate() {
        counted
            .iter()
            .for_each(|counted| *times.entry(counted.value).or_default() += 1);
        let back = counted
            .windows(2)
            .filter(|pair| pair[1].value <= pair[0].value)
            .count();
        if back >= machines.max(1) {
            complaints.push(format!(
                "what client {client} counted went back {back} times, and there were {machines} machines"
            ));
        }
    }
    let twice = times.iter().find(|(_, times)| **times > machines);
    complaints.extend(twice.map(|(value, times)| {
        format!("{value} was counted {times} times, and there were {machines} machines")
    }));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures::{announcement, claim, frame};

    fn counted(values: &[u64]) -> Vec<Counted> {
        values
            .iter()
            .map(|value| Counted {
                value: *value,
                at_ns: 0,
            })
            .collect()
    }

    #[test]
    fn a_side_ends_well_fenced_or_refused_and_not_with_a_failure_or_a_mismatch() {
        for code in [0, 3, 41] {
            assert!(!is_a_wrong_end(Some(code)), "{code}");
        }
        for code in [1, 42, 43] {
            assert!(is_a_wrong_end(Some(code)), "{code}");
        }
        assert!(is_a_wrong_end(None));
    }

    #[test]
    fn a_machine_that_is_over_does_not_come_back() {
        let good = [claim(1, "a"), claim(2, "a"), claim(3, "b"), claim(4, "b")];
        assert_eq!(claims(&good), Vec::<String>::new());
        assert_eq!(machines(&good), 2);
        let back = [claim(1, "a"), claim(2, "b"), claim(3, "a")];
        assert!(claims(&back)[0].contains("machine a is back in generation 3"));
        assert!(claims(&[claim(1, "a"), claim(3, "a")])[0].contains("2 is missing"));
    }

    #[test]
    fn one_that_speaks_beside_another_on_either_switch_is_found() {
        let first = vec![announcement(1, 10, 1), frame(1, 11, ""), frame(0, 12, "")];
        let second = vec![announcement(1, 20, 0), announcement(1, 30, 2), frame(1, 31, "")];
        assert_eq!(frames(&[first.clone(), second.clone()]), (Vec::new(), 0));
        let late = [first.clone(), vec![frame(1, 40, "")]].concat();
        assert_eq!(frames(&[late, second.clone()]), (Vec::new(), 1));
        let twice = [second, vec![announcement(2, 40, 2)]].concat();
        assert!(frames(&[first.clone(), twice]).0[0].contains("announced twice"));
        let silent = vec![frame(1, 40, "")];
        assert!(frames(&[first.clone(), silent]).0[0].contains("without the right to"));
        let back = [first, vec![announcement(2, 50, 3), announcement(3, 51, 2)]].concat();
        assert!(frames(&[back]).0[0].contains("announced after 3"));
    }

    #[test]
    fn a_number_that_two_machines_gave_at_once_is_found() {
        assert_eq!(
            counts(&[counted(&[1, 2, 5]), counted(&[3, 4])], 1),
            Vec::<String>::new()
        );
        assert_eq!(counts(&[counted(&[1, 2, 1, 2])], 2), Vec::<String>::new());
        assert_eq!(counts(&[counted(&[1, 2]), counted(&[2])], 1).len(), 1);
        assert_eq!(counts(&[counted(&[1, 2, 1])], 1).len(), 2);
    }
}
