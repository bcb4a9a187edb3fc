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
/// which no plan has any. `said` is its standard error: who may only be a backup gives up where its
/// holder is killed while the machine is sent.
#[must_use]
pub fn is_a_wrong_end(code: Option<i32>, said: &str) -> bool {
    let lost_its_holder = code == Some(43) && said.contains("the machine was lost while it was received");
    !lost_its_holder && matches!(code, None | Some(1 | 42 | 43))
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

/// A machine, and the time for which it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign<'a> {
    machine: &'a str,
    /// Time of its first announcement.
    from_us: u64,
    /// Time of the first announcement of the next machine.
    until_us: u64,
}

/// The machines that spoke, one after another, by their claims and by the announcements on all
/// switches.
///
/// # Errors
/// A generation was announced that nobody has claimed.
pub fn reigns<'a>(claims: &'a [Claimed], switches: &[Vec<Frame>]) -> Result<Vec<Reign<'a>>, String> {
    let mut announced: BTreeMap<u32, u64> = BTreeMap::new();
    for frame in switches.iter().flatten() {
        if let Some(generation) = frame.announced_generation().filter(|number| *number > 0) {
            let first_us = announced.entry(generation).or_insert(frame.at_us);
            *first_us = frame.at_us.min(*first_us);
        }
    }
    let mut reigns: Vec<Reign<'_>> = Vec::new();
    for (generation, from_us) in announced {
        let claim = claims.iter().find(|claim| claim.generation == generation);
        let claim = claim.ok_or_else(|| format!("generation {generation} was announced and not claimed"))?;
        if let Some(last) = reigns.last_mut() {
            if last.machine == claim.machine {
                continue;
            }
            last.until_us = from_us;
        }
        reigns.push(Reign {
            machine: &claim.machine,
            from_us,
            until_us: u64::MAX,
        });
    }
    Ok(reigns)
}

/// Complaints about the counts of clients. A machine gives no number twice, and what is asked for
/// after an answer of it is higher, whoever asks. A count under whose question another machine
/// began may be of either, and has to fit one of them.
#[must_use]
pub fn counts(clients: &[Vec<Counted>], reigns: &[Reign<'_>]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut given: Vec<Vec<Counted>> = vec![Vec::new(); reigns.len()];
    let mut unsure: Vec<(Counted, Vec<usize>)> = Vec::new();
    for counted in clients.iter().flatten() {
        let spoke = |reign: &Reign<'_>| reign.from_us <= counted.at_us && reign.until_us >= counted.asked_us;
        let mut by: Vec<usize> = (0..reigns.len()).filter(|place| spoke(&reigns[*place])).collect();
        match by.len() {
            0 => complaints.push(format!("{counted:?} was answered when no machine spoke")),
            1 => given[by.remove(0)].push(*counted),
            _ => unsure.push((*counted, by)),
        }
    }
    for (reign, given) in reigns.iter().zip(&mut given) {
        given.sort_by_key(|counted| counted.asked_us);
        for (kind, is) in [("twice", twice as Rule), ("back", back)] {
            let mut pairs = given
                .iter()
                .enumerate()
                .flat_map(|(place, first)| given[place + 1..].iter().map(move |later| (first, later)));
            let broken = pairs.find(|(first, later)| is(first, later));
            complaints.extend(broken.map(|(first, later)| {
                format!("machine {} counted {kind}: {first:?}, {later:?}", reign.machine)
            }));
        }
    }
    for (counted, by) in unsure {
        let fits = |place: &usize| {
            let mut others = given[*place].iter();
            others.all(|other| !twice(other, &counted) && !back(other, &counted) && !back(&counted, other))
        };
        if !by.iter().any(fits) {
            let machines: Vec<&str> = by.iter().map(|place| reigns[*place].machine).collect();
            complaints.push(format!("{counted:?} is a count of none of {machines:?}"));
        }
    }
    complaints
}

/// True if two counts of one machine break it.
type Rule = fn(&Counted, &Counted) -> bool;

fn twice(one: &Counted, other: &Counted) -> bool {
    one.value == other.value
}

/// The second was asked for when the first had been answered, and is not higher.
fn back(first: &Counted, second: &Counted) -> bool {
    first.at_us < second.asked_us && first.value >= second.value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures::{announcement, claim, frame};

    /// Counts that were asked for every 10 µs, and answered 5 µs later.
    fn counted(from_us: u64, values: &[u64]) -> Vec<Counted> {
        let times = (from_us..).step_by(10);
        times
            .zip(values)
            .map(|(asked_us, value)| Counted {
                value: *value,
                asked_us,
                at_us: asked_us + 5,
            })
            .collect()
    }

    /// Machines that begin at these times.
    fn machines(begin: &[u64]) -> Vec<Reign<'static>> {
        let until = begin[1..].iter().copied().chain([u64::MAX]);
        begin
            .iter()
            .zip(until)
            .map(|(from_us, until_us)| Reign {
                machine: "one of them",
                from_us: *from_us,
                until_us,
            })
            .collect()
    }

    #[test]
    fn a_side_ends_well_fenced_or_refused_and_not_with_a_failure_or_a_mismatch() {
        for code in [0, 3, 41] {
            assert!(!is_a_wrong_end(Some(code), ""), "{code}");
        }
        for code in [1, 42, 43] {
            assert!(is_a_wrong_end(Some(code), ""), "{code}");
        }
        assert!(is_a_wrong_end(None, ""));
        let lost = "ERROR the machine was lost while it was received: the transfer was cut short";
        assert!(!is_a_wrong_end(Some(43), lost));
        assert!(is_a_wrong_end(Some(1), lost));
    }

    #[test]
    fn a_machine_that_is_over_does_not_come_back() {
        let good = [claim(1, "a"), claim(2, "a"), claim(3, "b"), claim(4, "b")];
        assert_eq!(claims(&good), Vec::<String>::new());
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
    fn a_machine_speaks_from_its_first_announcement_to_that_of_the_next_on_any_switch() {
        let claims = [claim(1, "a"), claim(2, "a"), claim(3, "b"), claim(4, "c")];
        let first = vec![announcement(1, 10, 1), announcement(2, 50, 3)];
        let second = vec![
            announcement(1, 5, 0),
            announcement(1, 20, 2),
            announcement(2, 52, 3),
        ];
        let reign = |machine, from_us, until_us| Reign {
            machine,
            from_us,
            until_us,
        };
        assert_eq!(
            reigns(&claims, &[first.clone(), second]),
            Ok(vec![reign("a", 10, 50), reign("b", 50, u64::MAX)])
        );
        assert!(
            reigns(&claims[..2], &[first])
                .unwrap_err()
                .contains("generation 3")
        );
    }

    #[test]
    fn a_number_that_two_machines_gave_at_once_is_found() {
        let one = machines(&[0]);
        assert_eq!(
            counts(&[counted(10, &[1, 2, 5]), counted(22, &[3, 4])], &one),
            Vec::<String>::new()
        );
        assert_eq!(
            counts(&[counted(10, &[1, 2, 1, 2])], &machines(&[0, 28])),
            Vec::<String>::new()
        );
        assert_eq!(counts(&[counted(10, &[1, 2]), counted(20, &[2])], &one).len(), 1);
        assert_eq!(counts(&[counted(10, &[1, 2, 1])], &one).len(), 2);
    }

    #[test]
    fn an_acknowledged_count_that_one_of_several_machines_lost_is_found() {
        let three = machines(&[0, 48, 100]);
        let found = counts(&[counted(10, &[1, 2, 2, 3, 1, 2])], &three);
        assert_eq!(found.len(), 2, "{found:?}");
        // Another client is told so, which had been told nothing of it before.
        let found = counts(
            &[counted(10, &[1, 2, 4]), counted(50, &[1]), counted(40, &[3])],
            &three,
        );
        assert!(found.len() == 1 && found[0].contains("counted back"), "{found:?}");
    }

    #[test]
    fn a_count_under_whose_question_a_machine_began_is_of_one_of_the_two() {
        let two = machines(&[0, 32]);
        for fits in [[1, 2, 3, 2, 3], [1, 2, 1, 2, 3]] {
            assert_eq!(
                counts(&[counted(10, &fits)], &two),
                Vec::<String>::new(),
                "{fits:?}"
            );
        }
        let found = counts(&[counted(10, &[1, 2, 2, 1, 2])], &two);
        assert!(found.len() == 1 && found[0].contains("none of"), "{found:?}");
    }

    #[test]
    fn a_count_before_any_machine_spoke_is_found() {
        assert_eq!(counts(&[counted(10, &[1])], &machines(&[20])).len(), 1);
    }
}
