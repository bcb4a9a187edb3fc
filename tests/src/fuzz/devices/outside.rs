//! What answers the devices' questions: honestly, or with anything at all.

use lockstep_core::machine::door::{DoorError, Question};
use lockstep_logging_channel::Value;

use super::super::input::Input;

/// Guest time that passes with every question and event, in nanoseconds.
const STEP_NS: u64 = 250_000;

/// How it answers.
#[derive(Clone, Copy, Debug, Default)]
enum Manner {
    #[default]
    Honest,
    /// With an answer to something else.
    Beside,
    /// Not.
    Refusing,
}

/// The outside of a machine.
#[derive(Debug, Default)]
pub struct Outside {
    now_ns: u64,
    manner: Manner,
}

impl Outside {
    /// Changes the time, perhaps backwards, and the manner.
    pub fn choose(&mut self, input: &mut Input<'_>) {
        self.manner = input.pick(&[Manner::Honest, Manner::Honest, Manner::Beside, Manner::Refusing]);
        self.now_ns = match input.byte() % 4 {
            0 => self.now_ns,
            1 => self.now_ns.saturating_add(u64::from(input.long())),
            2 => self.now_ns.saturating_sub(u64::from(input.long())),
            _ => input.quad(),
        };
    }

    /// Guest time, which passes.
    pub fn time_ns(&mut self) -> u64 {
        self.now_ns = self.now_ns.saturating_add(STEP_NS);
        self.now_ns
    }

    /// Answers.
    pub fn answer(&mut self, question: Question) -> Result<Value, DoorError> {
        let now_ns = self.time_ns();
        match (self.manner, question) {
            (Manner::Refusing, _) => Err(DoorError::Stopped),
            (Manner::Beside, Question::Random { .. }) => Ok(Value::Tsc(now_ns)),
            (Manner::Beside, _) => Ok(Value::Random(vec![7; 3])),
            (Manner::Honest, Question::Tsc) => Ok(Value::Tsc(now_ns)),
            (Manner::Honest, Question::Monotonic) => Ok(Value::Monotonic(now_ns)),
            (Manner::Honest, Question::Wall) => Ok(Value::Wall(now_ns)),
            (Manner::Honest, Question::Random { length_bytes }) => Ok(Value::Random(
                (0..length_bytes)
                    .map(|index| (now_ns >> (index % 8)) as u8)
                    .collect(),
            )),
        }
    }
}
