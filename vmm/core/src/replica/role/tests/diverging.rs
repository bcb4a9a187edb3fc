//! A replay that differs from the log: its side leaves and claims nothing, and the other goes on.

use lockstep_logging_channel::message::Diverged;

use super::*;

const PART: &str = "registers";

fn diverged(again: bool) -> Input<(), u64> {
    Input::Diverged {
        sequence: Sequence(2),
        part: PART.to_owned(),
        again,
    }
}

fn word(again: bool) -> Message {
    Message::Diverged(Diverged {
        sequence: Sequence(2),
        part: PART.to_owned(),
        again,
    })
}

fn cause(again: bool) -> Cause {
    Cause::Diverged {
        sequence: Sequence(2),
        part: PART.to_owned(),
        again,
    }
}

fn with_entries() -> Subject {
    let (mut subject, _) = Subject::backup();
    subject.entries(1);
    subject.entries(2);
    subject
}

#[test]
fn a_backup_says_so_and_leaves_without_a_claim() {
    for again in [true, false] {
        let mut subject = with_entries();
        let actions = subject.step(3, diverged(again));
        let halt = Action::Halt(Halt::Diverged { again });
        assert_eq!(actions, [Action::Send(word(again)), halt]);
        assert_eq!(subject.wake_until(4, 1_000), NO_ACTION);
    }
}

#[test]
fn a_newcomer_does_too() {
    let (mut subject, _) = Subject::start(Replica::newcomer(Config::default(), 0).unwrap());
    subject.entries(1);
    let actions = subject.step(3, diverged(true));
    let halt = Action::Halt(Halt::Diverged { again: true });
    assert_eq!(actions, [Action::Send(word(true)), halt]);
}

#[test]
fn one_that_has_lost_its_primary_tells_nobody_and_joins_again_only_where_it_has_asked_for_nothing() {
    let mut waits = with_entries();
    waits.step(3, broken());
    let halt = |again| Action::Halt(Halt::Diverged { again });
    assert_eq!(waits.step(4, diverged(true)), [halt(true)]);

    let mut claims = with_entries();
    claims.step(3, goodbye());
    assert_eq!(claims.step(4, diverged(true)), [halt(false)]);

    let mut wins = with_entries();
    wins.step(3, goodbye());
    wins.claimed(4, Outcome::Won);
    assert_eq!(wins.step(5, diverged(true)), [halt(false)]);
}

#[test]
fn behind_the_end_of_the_log_nothing_is_left_to_join() {
    let (mut subject, _) = Subject::backup();
    subject.end_entry(1);
    let actions = subject.step(2, diverged(true));
    let halt = Action::Halt(Halt::Diverged { again: false });
    assert_eq!(actions, [Action::Send(word(false)), halt]);
}

#[test]
fn a_primary_claims_at_once_and_goes_on_alone() {
    for again in [true, false] {
        let (mut subject, _) = Subject::primary();
        let actions = subject.step(5, Input::Received(word(again)));
        assert_eq!(causes(&actions), [&cause(again)]);
        assert_eq!(claims(&actions), [2]);
        assert!(
            reports(&subject.claimed(6, Outcome::Won)).contains(&&Report::Solo {
                generation: Generation(2)
            })
        );
    }
}

#[test]
fn a_backup_hears_no_such_thing() {
    let mut subject = with_entries();
    let actions = subject.step(5, Input::Received(word(true)));
    assert!(matches!(causes(&actions)[..], [Cause::Violation { .. }]));
}
