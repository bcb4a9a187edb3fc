//! Times as arguments of a command line.

use std::time::Duration;

/// Longest time that makes sense as an argument: a day.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A time in seconds, or with a unit: `2`, `2.5s`, `500ms`.
///
/// # Errors
/// Text that says which forms a time may have.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 0.001),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (text, 1.0),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * unit);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| *time <= TIME_MAX)
        .ok_or_else(|| "write a time up to a day, in seconds or with a unit: 2, 2.5s or 500ms".to_owned())
}
