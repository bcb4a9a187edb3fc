//! One round of a guest without exits.

use super::judge::{self, Words};
use super::plan::Plan;
use crate::campaign::course::Standing;
use crate::campaign::evidence::Evidence;
use crate::campaign::faults::Subject;
use crate::campaign::kind::{Fault, Place, Side};
use crate::campaign::outcome::{Outcome, Points, judge_processes};
use crate::campaign::plan::TIMEOUT_MS;
use crate::campaign::round::text_of;
use crate::campaign::stop_point;
use crate::campaign::web::MUTANT;
use crate::harness::{Guest, Pair, PairSpec};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(1);
/// Longest time until the guest is at its end. It computes for two seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// First words of the guest, when it begins to compute.
const COMPUTES: &str = "steady: computes";

/// Runs the round of `plan` and judges it. `mutant`: a defect that both sides are to have.
#[must_use]
pub fn run(plan: &Plan, mutant: Option<&str>) -> (Outcome, Option<Evidence>) {
    let began = Instant::now();
    let started = catch_unwind(AssertUnwindSafe(|| start(plan, mutant)));
    let mut subject = match started {
        Ok(pair) => Subject::new(pair, None),
        Err(why) => {
            let why = format!("the pair did not start: {}", text_of(&*why));
            return (Outcome::failed(plan.title(), &why), None);
        }
    };
    let mut met = false;
    let driven = catch_unwind(AssertUnwindSafe(|| lead(&mut subject, plan, &mut met)));
    let mut failures: Vec<String> = driven.err().map(|why| text_of(&*why)).into_iter().collect();
    for side in Side::BOTH {
        if subject.is_running(side) {
            failures.push(format!("the guest of the {} is not at its end", side.name()));
            subject.kill(side);
        }
    }
    let words: BTreeMap<Side, Words> = Side::BOTH
        .into_iter()
        .map(|side| {
            let ended = subject.side(side).process.wait();
            let was_killed = subject.killed.contains(&side);
            (side, Words::new(ended.stdout, ended.status.code(), was_killed))
        })
        .collect();
    let mut evidence = Evidence::collect(&mut subject, Vec::new(), Vec::new(), BTreeMap::new());
    for (side, words) in &words {
        let name = format!("{}.stdout", side.name());
        evidence.files.push((name, words.text.clone().into_bytes()));
    }
    failures.extend(judge::words(
        plan,
        &words,
        evidence.traffic.as_ref(),
        evidence.winner,
    ));
    if let Some(traffic) = &evidence.traffic {
        failures.extend(judge::traffic(plan, traffic, evidence.winner));
    }
    let standing = match evidence.winner {
        _ if !failures.is_empty() => None,
        Some(winner) => Some(Standing::Alone(winner)),
        None => Some(Standing::Protected),
    };
    let mut outcome = Outcome {
        points: Points {
            planned: 1,
            met: usize::from(met),
        },
        standing,
        failures,
        took: began.elapsed(),
        ..Outcome::failed(plan.title(), "")
    };
    judge_processes(&evidence, 0, &mut outcome);
    (outcome, Some(evidence))
}

fn start(plan: &Plan, mutant: Option<&str>) -> Pair {
    let mut spec = PairSpec::new(Guest::Steady)
        .setting("memory-mib", "16")
        .setting("timeout-ms", &TIMEOUT_MS.to_string())
        .setting("command-line", &plan.options());
    if let Some((side, point)) = plan.point() {
        spec = spec.variable(side.name(), stop_point::VARIABLE, &point);
    }
    for side in Side::BOTH {
        if let Some(mutant) = mutant {
            spec = spec.variable(side.name(), MUTANT, mutant);
        }
    }
    spec.with_proxy().start()
}

/// Strikes the pair where the plan says it, and waits until both sides have ended.
fn lead(subject: &mut Subject<'_>, plan: &Plan, met: &mut bool) {
    if plan.strike.place == Place::Time {
        subject.pair.primary.process.wait_for_stdout(COMPUTES);
        thread::sleep(Duration::from_millis(plan.ordinal));
        *met = true;
        strike(subject, plan);
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        subject.look_at_the_time();
        if let Some((side, _)) = plan.point()
            && !*met
            && subject.is_at_its_point(side)
        {
            *met = true;
            strike(subject, plan);
            if plan.strike.fault != Fault::Stop(side) {
                subject.signal(side, Signal::SIGCONT);
            }
        }
        if Side::BOTH.into_iter().all(|side| !subject.is_running(side)) {
            return;
        }
        thread::sleep(LOOK);
    }
}

fn strike(subject: &mut Subject<'_>, plan: &Plan) {
    subject.apply(plan.strike.fault, plan.lasts_ms, plan.other_lasts_ms, None);
}
