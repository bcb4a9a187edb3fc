//! The judges. They know what was promised and see what comes out; they share nothing with the code under test.

use lockstep_logging_channel::Sequence;

use super::guest::Guest;
use super::plan::Side;

/// An output, by its entry and its bytes.
pub type Said = (Sequence, Vec<u8>);

/// What has been seen.
#[derive(Debug, Default)]
pub struct Checker {
    failure: Option<String>,
    /// What each side has let out, in order.
    said: [Vec<Said>; 2],
    /// The newest generation in which anybody spoke.
    spoken: u32,
    /// Who spoke first in each generation.
    speakers: Vec<(u32, Side)>,
    /// State of the primary's guest at each exit.
    states: Vec<u64>,
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

    /// A side lets an output out. `stored`: the newest entry that the backup's process has had;
    /// `alone`: the store says that the side has won its generation.
    pub fn output(&mut self, side: Side, generation: u32, alone: bool, stored: Sequence, said: Said) {
        let sequence = said.0;
        if generation < self.spoken {
            let spoken = self.spoken;
            self.fail(|| {
                format!("the {side:?} spoke in generation {generation} after generation {spoken} had")
            });
        }
        self.spoken = self.spoken.max(generation);
        match self.speakers.iter().find(|(spoken, _)| *spoken == generation) {
            Some((_, speaker)) if *speaker != side => {
                self.fail(|| format!("both sides spoke in generation {generation}"));
            }
            Some(_) => (),
            None => self.speakers.push((generation, side)),
        }
        if !alone && sequence > stored {
            self.fail(|| format!("output {} left, and the backup had only {}", sequence.0, stored.0));
        }
        let all = &mut self.said[side.index()];
        let newest = all.last().map(|(newest, _)| *newest);
        all.push(said);
        if newest >= Some(sequence) {
            self.fail(|| format!("the {side:?} said {} after {newest:?}", sequence.0));
        }
    }

    /// A side acts alone, in its own opinion; the store says who may.
    pub fn acts_alone(&mut self, side: Side, winner: Option<Side>) {
        if winner != Some(side) {
            self.fail(|| format!("the {side:?} acts alone, and the generation is of {winner:?}"));
        }
    }

    /// The clients have heard an output that was let out in `generation`, when `over` says that a newer one had
    /// been announced.
    pub fn heard(&mut self, side: Side, generation: u32, over: bool) {
        if over {
            self.fail(|| format!("the {side:?} was heard in generation {generation} after it was over"));
        }
    }

    /// Whether the primary has said the output of this entry.
    #[must_use]
    pub fn primary_said(&self, sequence: Sequence) -> bool {
        contains(&self.said[0], sequence)
    }

    /// A guest has passed an exit. A replaying one must be as the recorded one was there.
    pub fn exit(&mut self, side: Side, replaying: bool, guest: &Guest) {
        let (exits, state) = (guest.exits() as usize, guest.state());
        if let Some(wrong) = guest.wrong() {
            self.fail(|| format!("the guest of the {side:?} saw {wrong} at exit {exits}"));
        }
        if side == Side::Primary {
            self.states.resize(exits, 0);
            self.states.push(state);
        } else if replaying && self.states.get(exits).is_some_and(|recorded| *recorded != state) {
            self.fail(|| format!("the replay's state differs from the recorded one at exit {exits}"));
        }
    }

    /// The end: everything that was said must be of the history that survives, `history`.
    pub fn history(&mut self, history: &[Said]) {
        let newest = history.last().map(|(sequence, _)| *sequence);
        for (side, said) in Side::BOTH.into_iter().zip(std::mem::take(&mut self.said)) {
            for (sequence, bytes) in &said {
                let place = history.binary_search_by_key(sequence, |(sequence, _)| *sequence);
                let same = place
                    .ok()
                    .and_then(|place| history.get(place))
                    .is_some_and(|(_, is)| is == bytes);
                // What the survivor has not come to yet cannot be judged; the Output Rule was, when it left.
                if !same && Some(*sequence) <= newest {
                    self.fail(|| {
                        format!(
                            "output {} of the {side:?} is not of the surviving history",
                            sequence.0
                        )
                    });
                }
            }
            self.said[side.index()] = said;
        }
    }

    /// The first output of `history` that was neither said nor `dropped`.
    #[must_use]
    pub fn first_unsaid(&self, history: &[Said], dropped: &[Sequence]) -> Option<Sequence> {
        let said = |sequence| self.said.iter().any(|said| contains(said, sequence));
        let mut outputs = history.iter().map(|(sequence, _)| *sequence);
        outputs.find(|sequence| !said(*sequence) && !dropped.contains(sequence))
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

fn contains(said: &[Said], sequence: Sequence) -> bool {
    said.binary_search_by_key(&sequence, |(sequence, _)| *sequence)
        .is_ok()
}
