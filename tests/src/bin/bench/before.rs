//! An earlier build against this one (`make bench BEFORE=…`): the two in turn, round by round, so
//! that whatever else the host does meets both. The ratio of the medians is the result, and the
//! spread of each build says what a difference is worth.

use super::measure::median;
use super::options::Only;
use super::{channel, failover, serving};
use lockstep_tests::harness::Build;
use serde_json::{Value, json};

/// Clients, pipeline depth and requests of each kind.
const WORKLOADS: [(u32, u32, u32); 4] = [(1, 1, 3_000), (1, 16, 30_000), (16, 1, 15_000), (16, 16, 150_000)];

/// A figure, and its values before and now.
#[derive(Debug)]
struct Figure {
    name: String,
    before: Vec<f64>,
    now: Vec<f64>,
}

impl Figure {
    fn json(&self) -> Value {
        let Self { name, before, now } = self;
        let side = |values: &[f64]| {
            let least = values.iter().copied().fold(f64::NAN, f64::min);
            let most = values.iter().copied().fold(f64::NAN, f64::max);
            json!({ "median": median(values.to_vec()), "min": least, "max": most, "rounds": values.len() })
        };
        json!({
            "name": name,
            "before": side(before),
            "now": side(now),
            "ratio": median(now.clone()) / median(before.clone()),
        })
    }
}

/// Measures both, and prints the table.
pub fn figures(only: Option<Only>, rounds: u64) -> Value {
    let mut figures = Vec::new();
    for round in 0..rounds {
        eprintln!("bench: round {} of {rounds}, both builds", round + 1);
        let mut builds = [Build::Before, Build::Current];
        // Neither is always the first.
        if round % 2 == 1 {
            builds.reverse();
        }
        for build in builds {
            let measured = build.used_for(|| {
                if only.is_some() {
                    channel::named()
                } else {
                    ordinary()
                }
            });
            for (name, value) in measured {
                add(&mut figures, build, name, value);
            }
        }
    }
    print(&figures);
    json!({ "before_and_now": figures.iter().map(Figure::json).collect::<Vec<_>>() })
}

fn add(figures: &mut Vec<Figure>, build: Build, name: String, value: f64) {
    let known = figures.iter().position(|figure| figure.name == name);
    let place = known.unwrap_or_else(|| {
        figures.push(Figure {
            name,
            before: Vec::new(),
            now: Vec::new(),
        });
        figures.len() - 1
    });
    match build {
        Build::Before => figures[place].before.push(value),
        Build::Current => figures[place].now.push(value),
    }
}

/// One round of everything but the channel.
fn ordinary() -> Vec<(String, f64)> {
    let mut figures = Vec::new();
    for (clients, pipeline, requests) in WORKLOADS {
        let alone = serving::unprotected(clients, pipeline, requests);
        let protected = serving::protected(clients, pipeline, requests);
        let mut add =
            |name: &str, value: f64| figures.push((format!("{clients} x {pipeline}, {name}"), value));
        add("requests/s", protected.requests_per_second);
        add("CPU us an operation", protected.cpu_us_per_request);
        add(
            "CPU, of the unprotected",
            protected.cpu_us_per_request / alone.cpu_us_per_request,
        );
        add("latency added, us", (protected.p50_ms - alone.p50_ms) * 1_000.0);
    }
    let failover = failover::one().into_iter();
    figures.extend(failover.map(|(name, value)| (format!("failover, {name}"), value)));
    figures
}

fn print(figures: &[Figure]) {
    println!(
        "\n{:36} | {:>10} {:>23} | {:>10} {:>23} | {:>6}",
        "figure", "before", "least to most", "now", "least to most", "ratio"
    );
    for figure in figures {
        let value = figure.json();
        let number = |side: &str, key: &str| value[side][key].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:36} | {:10.2} {:11.2} {:11.2} | {:10.2} {:11.2} {:11.2} | {:6.2}",
            figure.name,
            number("before", "median"),
            number("before", "min"),
            number("before", "max"),
            number("now", "median"),
            number("now", "min"),
            number("now", "max"),
            value["ratio"].as_f64().unwrap_or(f64::NAN)
        );
    }
}
