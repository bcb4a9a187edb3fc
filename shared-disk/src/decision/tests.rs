use super::*;
use crate::fake::{self, party};

const MS: u64 = 1_000_000;
const SELF: u8 = 9;

fn starter(afresh: bool) -> Starter {
    Starter::new(party(SELF).id, afresh)
}

/// Generation 3, held by party 1.
fn held() -> Reading {
    Reading {
        newest: Some(fake::claim(Generation(3), 1)),
        ..Reading::default()
    }
}

fn seen(counter: u64) -> Reading {
    Reading {
        seen: Seen::new(Generation(3), party(1).id, counter, "{}"),
        ..held()
    }
}

fn backup(number: u8, dead: bool) -> (Backup, bool) {
    let backup = Backup {
        generation: Generation(3),
        party: party(number),
    };
    (backup, dead)
}

fn dead(backups: Vec<(Backup, bool)>) -> Reading {
    Reading {
        holder_dead: true,
        backups,
        ..seen(1)
    }
}

fn ended(machine: u8) -> Option<Ended> {
    Some(Ended {
        generation: Generation(3),
        machine: MachineId([machine; 16]),
        how: crate::Line::shortened("powered off"),
        at_unix_s: 1,
    })
}

fn begin(generation: u32) -> Decision {
    Decision::Claim {
        generation: Generation(generation),
        machine: None,
    }
}

fn take_over(backups: &[u8]) -> Decision {
    Decision::Wait(Waiting::TakeOver {
        holder: party(1),
        backups: backups.iter().map(|number| party(*number)).collect(),
    })
}

fn join() -> Decision {
    Decision::Join {
        holder: fake::claim(Generation(3), 1),
        sighting: Sighting::Silent { for_ns: 0 },
    }
}

#[test]
fn one_look_decides_where_no_word_is_needed() {
    let own = Reading {
        newest: Some(fake::claim(Generation(3), SELF)),
        ..Reading::default()
    };
    let claim_again = Decision::Claim {
        generation: Generation(3),
        machine: Some(MachineId([9; 16])),
    };
    let mut unreachable = held();
    if let Some(newest) = &mut unreachable.newest {
        newest.party.address = None;
    }
    let no_address = Decision::Wait(Waiting::NoAddress {
        holder: unreachable.newest.clone().unwrap().party,
    });
    let ended_and_alive = Reading {
        ended: ended(9),
        ..seen(1)
    };
    let alive_with = |backups| Reading { backups, ..seen(1) };
    let table = [
        ("nobody yet", Reading::default(), begin(1)),
        ("held", held(), join()),
        ("held and seen", seen(4), join()),
        ("held, its backup dead", alive_with(vec![backup(2, true)]), join()),
        ("own claim without a verdict", own, claim_again),
        ("held, without an address", unreachable, no_address),
        ("ended", ended_and_alive, begin(4)),
        ("dead", dead(vec![]), begin(4)),
        (
            "dead with its backups",
            dead(vec![backup(2, true), backup(3, true)]),
            begin(4),
        ),
        (
            "dead, a backup may live",
            dead(vec![backup(2, true), backup(3, false)]),
            take_over(&[3]),
        ),
        (
            "dead, only this one was recorded",
            dead(vec![backup(SELF, false)]),
            begin(4),
        ),
        (
            "dead, this one and another were recorded",
            dead(vec![backup(SELF, false), backup(4, false)]),
            take_over(&[4]),
        ),
    ];
    for (what, reading, expected) in table {
        assert_eq!(starter(false).decide(0, &reading), expected, "{what}");
    }
}

#[test]
fn a_word_is_not_needed_where_nobody_lives() {
    let gone = Reading {
        ended: ended(9),
        ..held()
    };
    for reading in [dead(vec![]), gone] {
        assert_eq!(starter(true).decide(0, &reading), begin(4));
    }
    assert_eq!(starter(true).decide(0, &Reading::default()), begin(1));
}

/// Returns the last decision of a starter with the operator's word, given these readings in turn.
fn afresh(readings: &[(u64, Reading)]) -> Decision {
    let mut starter = starter(true);
    let decided = readings
        .iter()
        .map(|(at_ms, reading)| starter.decide(at_ms * MS, reading));
    decided.last().unwrap()
}

#[test]
fn afresh_is_refused_while_the_holder_is_seen() {
    let refused = Decision::Refuse(Refusal::HolderAlive {
        generation: Generation(3),
        holder: party(1),
    });
    let signs: [&[(u64, Reading)]; 4] = [
        &[(0, seen(1)), (1_000, seen(2))],
        &[(0, held()), (1_000, seen(1))],
        // A counter that goes back is a sign of life as well.
        &[(0, seen(7)), (4_000, seen(7)), (4_999, seen(6))],
        &[(0, seen(1)), (4_999, seen(2)), (9_000, seen(2))],
    ];
    for readings in signs {
        assert_eq!(afresh(readings), refused, "{readings:?}");
    }
}

#[test]
fn afresh_waits_for_a_sign_and_then_begins() {
    let wait = Decision::Wait(Waiting::Sign { holder: party(1) });
    let may_live = || dead(vec![backup(2, false)]);
    let cases: [(&[(u64, Reading)], Decision); 8] = [
        (&[(0, seen(1))], wait.clone()),
        (&[(0, seen(1)), (4_999, seen(1))], wait.clone()),
        (&[(0, seen(1)), (5_000, seen(1))], begin(4)),
        (&[(0, held()), (5_000, held())], begin(4)),
        (&[(0, seen(1)), (1_000, held()), (5_000, seen(1))], begin(4)),
        (&[(0, may_live()), (4_999, may_live())], wait.clone()),
        (&[(0, may_live()), (5_000, may_live())], begin(4)),
        (&[(0, seen(1)), (4_999, seen(2)), (9_999, seen(2))], begin(4)),
    ];
    for (readings, expected) in cases {
        assert_eq!(afresh(readings), expected, "{readings:?}");
    }
}

#[test]
fn afresh_watches_each_holder_for_itself() {
    let later = Reading {
        newest: Some(fake::claim(Generation(4), 2)),
        ..Reading::default()
    };
    let readings = [(0, seen(1)), (4_999, later.clone()), (5_001, later)];
    assert_eq!(
        afresh(&readings),
        Decision::Wait(Waiting::Sign { holder: party(2) })
    );
}

#[test]
fn a_holder_that_stops_giving_signs_is_told() {
    let mut starter = starter(false);
    let mut sighting = |at_ms: u64, reading: &Reading| match starter.decide(at_ms * MS, reading) {
        Decision::Join { sighting, .. } => sighting,
        other => panic!("{other:?}"),
    };
    assert_eq!(sighting(0, &seen(1)), Sighting::Silent { for_ns: 0 });
    assert_eq!(sighting(1_000, &seen(2)), Sighting::Alive);
    assert_eq!(sighting(5_999, &seen(2)), Sighting::Alive);
    let silent = Sighting::Silent { for_ns: 5_000 * MS };
    assert_eq!(sighting(6_000, &seen(2)), silent);
}

/// Times of two hosts are for people.
#[test]
fn no_wall_time_decides() {
    let written = |mut reading: Reading, at: u64| {
        reading
            .newest
            .iter_mut()
            .for_each(|claim| claim.party.written_unix_s = at);
        let backups = reading.backups.iter_mut();
        backups.for_each(|(backup, _)| backup.party.written_unix_s = u64::MAX - at);
        reading.ended.iter_mut().for_each(|ended| ended.at_unix_s = at);
        reading
    };
    let readings = [
        held(),
        seen(1),
        dead(Vec::new()),
        dead(vec![backup(2, false)]),
        Reading {
            ended: ended(9),
            ..held()
        },
    ];
    for (reading, afresh) in readings
        .iter()
        .flat_map(|reading| [(reading, false), (reading, true)])
    {
        // A decision names parties with their wall times; its kind does not depend on these.
        let sort = |at| std::mem::discriminant(&starter(afresh).decide(0, &written(reading.clone(), at)));
        assert_eq!(sort(0), sort(u64::MAX));
    }
}

#[test]
fn a_store_that_says_two_things_is_refused() {
    let table = [
        (
            Reading {
                ended: ended(8),
                ..held()
            },
            "machine 08080808080808080808080808080808 has ended",
        ),
        (
            Reading {
                seen: Seen::new(Generation(3), party(2).id, 1, "{}"),
                ..held()
            },
            "another one gives its signs of life",
        ),
        (
            Reading {
                backups: vec![backup(1, false)],
                ..held()
            },
            "and a backup of it",
        ),
    ];
    for (reading, expected) in table {
        for afresh in [false, true] {
            match starter(afresh).decide(0, &reading) {
                Decision::Refuse(why) => assert!(why.to_string().contains(expected), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn after_the_last_generation_there_is_none() {
    let last = Reading {
        newest: Some(fake::claim(Generation(u32::MAX), 1)),
        holder_dead: true,
        ..Reading::default()
    };
    let refused = Decision::Refuse(Refusal::LastGeneration(Generation(u32::MAX)));
    assert_eq!(starter(false).decide(0, &last), refused);
}
