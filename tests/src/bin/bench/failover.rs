//! Times of a failover: `lockstep demo`, several times.

use super::measure::median;
use super::serving;
use lockstep_tests::harness::{Process, lockstep};
use serde_json::{Value, json};

const ROUNDS: usize = 7;
/// Demonstrations given up because the pair had parted before; after as many the host is not a
/// place to measure on.
const PARTED_MAX: usize = 10;
const FIGURES: [&str; 4] = ["detect_ms", "arbitrate_ms", "live_ms", "client_gap_ms"];

/// Medians and maxima of what the demonstration reports of a killed primary.
pub fn figures() -> Value {
    let (mut results, mut parted) = (Vec::new(), 0);
    while results.len() < ROUNDS {
        match demonstration() {
            Some(result) => results.push(result),
            None => parted += 1,
        }
        assert!(parted < PARTED_MAX, "demonstrations do not succeed on this host");
    }
    let mut figures = json!({ "rounds": ROUNDS });
    for key in FIGURES {
        let values: Vec<f64> = results.iter().filter_map(|result| result[key].as_f64()).collect();
        let largest = values.iter().copied().fold(f64::NAN, f64::max);
        figures[key] = json!({ "p50": median(values), "max": largest });
    }
    figures
}

/// Figures of one demonstration, by the names that [`FIGURES`] has.
///
/// # Panics
/// Demonstrations do not succeed on this host.
pub fn one() -> Vec<(&'static str, f64)> {
    let result = (0..PARTED_MAX).find_map(|_| demonstration());
    let result = result.expect("a demonstration succeeds on this host");
    let figure = |key: &'static str| Some((key, result[key].as_f64()?));
    FIGURES.into_iter().filter_map(figure).collect()
}

fn demonstration() -> Option<Value> {
    let mut command = lockstep();
    command.args(["demo", "--json", "--after", "1", "--duration", "2"]);
    command.args(["--timeout-ms", &serving::timeout_ms().to_string()]);
    if has_rounds() {
        command.args(["--rounds", "1"]);
    }
    let ended = Process::start("demo", &mut command).wait();
    let last = ended.stdout.lines().last().unwrap_or_default();
    let result: Option<Value> = serde_json::from_str(last).ok();
    let good = result.filter(|result| result["ok"] == true);
    if good.is_none() {
        eprintln!("bench: a demonstration did not succeed:\n{ended}");
    }
    good
}

/// A table for people.
pub fn print(figures: &Value) {
    println!("\nkilled primary, {ROUNDS} times: milliseconds, median and maximum");
    for (key, name) in FIGURES.into_iter().zip([
        "noticed after the loss",
        "test-and-set won after noticing",
        "live after noticing",
        "longest wait of a client",
    ]) {
        println!(
            "  {name:32} {:8.1} {:8.1}",
            figures[key]["p50"], figures[key]["max"]
        );
    }
}

/// True if the command shows more than one failover unless it is told otherwise.
fn has_rounds() -> bool {
    let help = lockstep().args(["demo", "--help"]).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--rounds"))
}
