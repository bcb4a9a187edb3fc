//! The judges. They know what was promised and see what comes out; they share nothing with the code
//! under test.

use std::collections::BTreeMap;

use lockstep_logging_channel::Sequence;

use super::guest::Guest;
use super::plan::Side;

/// Place of an output: its entry, and its ordinal among those of the same entry.
pub type Place = (Sequence, u32);

/// An output, by its place and its bytes.
pub type Said = (Place, Vec<u8>);

/// The outputs of a history, each with its place.
pub fn places(history: &[(Sequence, Vec<u8>)]) -> impl Iterator<Item = (Place, &Vec<u8>)> {
    let mut newest = (Sequence(0), 0);
    history.iter().map(move |(sequence, bytes)| {
        newest = if newest.0 == *sequence {
            (*sequence, newest.1 + 1)
        } else {
            (*sequence, 0)
        };
        (newest, bytes)
    })
}

/// What has been seen.
#[derive(Debug, Default)]
pub struct Checker {
    failure: Option<String>,
    /// Outputs that each process has let out, in order.
    said: BTreeMap<u32, Vec<Said>>,
    /// The newest generation in which anybody spoke.
    spoken: u32,
    /// Who spoke first in each generation.
    speakers: Vec<(u32, u32)>,
    /// State of each process's guest at each exit, from the first on.
    states: BTreeMap<u32, (usize, Vec<u64>)>,
    /// All of each process's guest at the common points that it made, by their exits.
    points: BTreeMap<(u32, u64), u64>,
}

impl Checker {
    /// The first promise that was broken.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// A promise was broken.
    pub fn fail(&mut self, what: impl FnOnce() -> String) {
        self.failure.get_or_insert_with(what);
    }

    /// A process speaks in this generation.
    pub fn speaks(&mut self, process: u32, generation: u32) {
        if generation < self.spoken {
            let spoken = self.spoken;
            self.fail(|| {
                format!("process {process} spoke in generation {generation} after generation {spoken} had")
            });
        }
        self.spoken = self.spoken.max(generation);
        match self.speakers.iter().find(|(spoken, _)| *spoken == generation) {
            Some((_, speaker)) if *speaker != process => {
                self.fail(|| format!("two processes spoke in generation {generation}"));
            }
            Some(_) => (),
            None => self.speakers.push((generation, process)),
        }
    }

    /// A process lets an output out. `stored`: the newest entry that its armed backup's process has
    /// had; `alone`: it acts alone, and the store says that it has won its generation.
    pub fn output(&mut self, process: u32, alone: bool, stored: Sequence, said: Said) {
        let place = said.0;
        let (sequence, _) = place;
        if !alone && sequence > stored {
            self.fail(|| format!("output {} left, and the backup had only {}", sequence.0, stored.0));
        }
        let all = self.said.entry(process).or_default();
        let newest = all.last().map(|(newest, _)| *newest);
        all.push(said);
        if newest >= Some(place) {
            self.fail(|| format!("process {process} said {place:?} after {newest:?}"));
        }
    }

    /// A side acts alone, in its own opinion; the store says who may.
    pub fn acts_alone(&mut self, side: Side, won: bool, winner: Option<u32>) {
        if !won {
            self.fail(|| format!("the {side:?} acts alone, and the generation is of process {winner:?}"));
        }
    }

    /// The clients have heard an output that was let out in `generation`, when `over` says that a
    /// newer one had been announced.
    pub fn heard(&mut self, side: Side, generation: u32, over: bool) {
        if over {
            self.fail(|| format!("the {side:?} was heard in generation {generation} after it was over"));
        }
    }

    /// True if another process has let out the output of this place.
    #[must_use]
    pub fn was_said(&self, process: u32, place: Place) -> bool {
        let others = self.said.iter().filter(|(other, _)| **other != process);
        others.into_iter().any(|(_, said)| contains(said, place))
    }

    /// A guest has passed an exit. One that replays what `leader` has recorded must be as that was
    /// there.
    pub fn exit(&mut self, process: u32, leader: Option<u32>, guest: &Guest) {
        let (exits, state) = (guest.exits() as usize, guest.state());
        if let Some(wrong) = guest.wrong() {
            self.fail(|| format!("the guest of process {process} saw {wrong} at exit {exits}"));
        }
        let (first, states) = self.states.entry(process).or_insert((exits, Vec::new()));
        states.resize(exits - *first, 0);
        states.push(state);
        let recorded = leader.and_then(|leader| {
            let (first, states) = self.states.get(&leader)?;
            states.get(exits.checked_sub(*first)?)
        });
        if recorded.is_some_and(|recorded| *recorded != state) {
            self.fail(|| format!("the replay's state differs from the recorded one at exit {exits}"));
        }
    }

    /// A process has made a common point.
    pub fn point(&mut self, process: u32, guest: &Guest) {
        self.points.insert((process, guest.exits()), guest.whole());
    }

    /// A process that follows `leader` without running would run on as `guest`: it must be what
    /// that was there.
    pub fn put(&mut self, leader: Option<u32>, guest: &Guest) {
        let exits = guest.exits();
        let made = leader.and_then(|leader| self.points.get(&(leader, exits)));
        if made != Some(&guest.whole()) {
            self.fail(|| format!("who follows is at exit {exits}, and is not what the live guest was there"));
        }
    }

    /// The end: everything that was said must be of the history that survives, `history`.
    pub fn history(&mut self, history: &[(Sequence, Vec<u8>)]) {
        let history: Vec<_> = places(history).collect();
        let newest = history.last().map(|(place, _)| place.0);
        let all = std::mem::take(&mut self.said);
        for (process, said) in &all {
            for (place, bytes) in said {
                let found = history.binary_search_by_key(place, |(place, _)| *place);
                let same = found
                    .ok()
                    .and_then(|found| history.get(found))
                    .is_some_and(|(_, is)| *is == bytes);
                // An output that the survivor has not reached yet cannot be judged; the Output Rule
                // was, when it left.
                if !same && Some(place.0) <= newest {
                    self.fail(|| {
                        format!("output {place:?} of process {process} is not of the surviving history")
                    });
                }
            }
        }
        self.said = all;
    }

    /// The first output of `history` that was neither said nor `dropped`.
    #[must_use]
    pub fn first_unsaid(&self, history: &[(Sequence, Vec<u8>)], dropped: &[Place]) -> Option<Sequence> {
        let said = |place| self.said.values().any(|said| contains(said, place));
        let mut outputs = places(history).map(|(place, _)| place);
        let unsaid = outputs.find(|place| !said(*place) && !dropped.contains(place));
        unsaid.map(|(sequence, _)| sequence)
    }

    /// The end: what clients saw acknowledged must be in the surviving guest's log, in its place.
    pub fn nothing_lost(&mut self, acknowledged: &[(u8, u32, u32)], log: &[(u8, u32)]) {
        for (client, number, index) in acknowledged {
            if log.get(*index as usize) != Some(&(*client, *number)) {
                self.fail(|| format!("request {number} of client {client} was acknowledged, and is lost"));
            }
        }
    }
}

fn contains(said: &[Said], place: Place) -> bool {
    said.binary_search_by_key(&place, |(place, _)| *place).is_ok()
}
