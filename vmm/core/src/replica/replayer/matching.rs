//! Comparison of parts of digests, and of answers with questions.

use crate::machine::cpu::saved::PROCESSOR_PART;
use crate::machine::door::Question;
use lockstep_logging_channel::{PartDigest, Value};

/// The parts that are compared with those of a log: logs of the first release have no digest of
/// [`PROCESSOR_PART`].
pub(super) fn as_recorded<'a>(expected: &[PartDigest], found: &'a [PartDigest]) -> &'a [PartDigest] {
    match found.split_last() {
        Some((last, others))
            if last.part == PROCESSOR_PART && expected.iter().all(|part| part.part != PROCESSOR_PART) =>
        {
            others
        }
        _ => found,
    }
}

/// Names of the parts, to be compared and to be shown.
pub(super) fn names(parts: &[PartDigest]) -> String {
    let names: Vec<_> = parts.iter().map(|part| part.part.as_str()).collect();
    names.join(", ")
}

/// The question in words.
pub(super) fn asked(question: Question) -> String {
    match question {
        Question::Tsc => "tsc".to_owned(),
        Question::Monotonic => "monotonic".to_owned(),
        Question::Wall => "wall".to_owned(),
        Question::Random { length_bytes } => format!("random {length_bytes} bytes"),
    }
}

/// True if this is an answer to that question.
pub(super) fn answers(value: &Value, question: Question) -> bool {
    match (value, question) {
        (Value::Tsc(_), Question::Tsc)
        | (Value::Monotonic(_), Question::Monotonic)
        | (Value::Wall(_), Question::Wall) => true,
        (Value::Random(bytes), Question::Random { length_bytes }) => bytes.len() == length_bytes as usize,
        _ => false,
    }
}
