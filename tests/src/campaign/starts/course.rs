//! One round of starts.

use super::counter::Counter;
use super::judge;
use super::plan::{Life, Plan};
use crate::campaign::course::Standing;
use crate::campaign::evidence::Evidence;
use crate::campaign::outcome::{Outcome, Points, judge_processes};
use crate::campaign::round::text_of;
use crate::campaign::web::Web;
use crate::harness::switch::Frame;
use nix::sys::signal::Signal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(3);
/// Between two questions for the status.
const STATUS_PAUSE: Duration = Duration::from_millis(300);
/// Longest time until the machine is there again, once nothing is killed any more.
const PATIENCE: Duration = Duration::from_secs(60);
/// Answers to a client of the machine that has come back.
const ANSWERS: u64 = 20;

/// A hand, with the life that it leads.
struct Hand<'a> {
    lives: &'a [Life],
    /// The process of the newest life.
    side: Option<usize>,
    /// Lives that have begun.
    begun: usize,
    /// Time at which its newest life began, or the one before has ended.
    since: Instant,
    asked: bool,
}

/// Runs the starts of `plan` and judges them. `mutant`: a defect that all sides are to have.
#[must_use]
pub fn run(plan: &Plan, mutant: Option<&str>) -> (Outcome, Option<Evidence>) {
    let began = Instant::now();
    let mut web = Web::new(plan.switches, mutant);
    let counters: Vec<Counter> = web.addresses().into_iter().map(Counter::start).collect();
    let mut failures = Vec::new();
    let mut stops = 0;
    let driven = catch_unwind(AssertUnwindSafe(|| {
        lead(&mut web, plan, &mut stops);
        comes_back(&mut web, &counters);
    }));
    failures.extend(driven.err().map(|why| text_of(&*why)));
    let counted: Vec<_> = counters.into_iter().map(Counter::stop).collect();
    let generation = web.holder().map(|(_, claim)| claim.generation);
    let ended = catch_unwind(AssertUnwindSafe(|| end(&mut web)));
    match ended {
        Ok(complaints) => failures.extend(complaints),
        Err(why) => failures.push(text_of(&*why)),
    }
    let claims = web.claims();
    failures.extend(judge::claims(&claims));
    let frames: Vec<Vec<Frame>> = web.switches.iter().map(|switch| switch.frames()).collect();
    let (complaints, late) = judge::frames(&frames);
    failures.extend(complaints);
    // One that was stopped between its look at the clock and the system call says that one frame.
    if late > stops {
        failures.push(format!(
            "{late} frames of old machines after newer ones had begun"
        ));
    }
    match judge::reigns(&claims, &frames) {
        Ok(reigns) => failures.extend(judge::counts(&counted, &reigns)),
        Err(complaint) => failures.push(complaint),
    }
    let evidence = Evidence {
        said: web.said(),
        files: web.files(),
        ..Evidence::default()
    };
    let mut outcome = Outcome {
        points: Points {
            planned: plan.points(),
            met: web.points_met(),
        },
        standing: generation.filter(|_| failures.is_empty()).map(Standing::Healed),
        failures,
        acknowledged: counted.iter().map(|counted| counted.len() as u64).sum(),
        late,
        took: began.elapsed(),
        ..Outcome::failed(plan.title(), "")
    };
    judge_processes(&evidence, 0, &mut outcome);
    (outcome, Some(evidence))
}

/// Leads every life to its end but the last of each hand. Counts in `stops` how often a side stood
/// still.
fn lead(web: &mut Web, plan: &Plan, stops: &mut u64) {
    let mut hands: Vec<Hand<'_>> = plan
        .hands
        .iter()
        .map(|lives| Hand {
            lives,
            side: None,
            begun: 0,
            since: Instant::now(),
            asked: false,
        })
        .collect();
    while hands.iter().any(|hand| hand.begun < hand.lives.len()) {
        web.look_at_the_time();
        let stopped = web.stopped_by_themselves();
        for hand in &mut hands {
            hand.look(web, &stopped, stops);
        }
        thread::sleep(LOOK);
    }
}

impl Hand<'_> {
    fn look(&mut self, web: &mut Web, stopped: &[usize], stops: &mut u64) {
        if let Some(side) = self.side {
            if web.is_running(side) {
                let life = &self.lives[self.begun - 1];
                if stopped.contains(&side) {
                    *stops += 1;
                    web.go_on_after(side, life.stopped_ms);
                }
                let over = life
                    .lasts_ms
                    .is_some_and(|ms| self.since.elapsed() > Duration::from_millis(ms));
                if over && life.asked && !self.asked {
                    self.asked = true;
                    web.sides[side].replica.process.signal(Signal::SIGTERM);
                    // One that cannot is killed.
                    self.since = Instant::now();
                } else if over {
                    web.kill(side);
                }
                return;
            }
            (self.side, self.since, self.asked) = (None, Instant::now(), false);
        }
        let Some(life) = self.lives.get(self.begun) else {
            return;
        };
        if self.since.elapsed() >= Duration::from_millis(life.after_ms) {
            self.side = Some(web.start(&life.starting));
            self.begun += 1;
            self.since = Instant::now();
        }
    }
}

/// Waits until the machine is there, once, with its backup, and counts.
fn comes_back(web: &mut Web, counters: &[Counter]) {
    let deadline = Instant::now() + PATIENCE;
    let mut asked_at: Option<Instant> = None;
    let mut enough: Option<Vec<u64>> = None;
    loop {
        web.look_at_the_time();
        for number in web.stopped_by_themselves() {
            web.go_on_after(number, 0);
        }
        if enough.is_none() && asked_at.is_none_or(|at| at.elapsed() > STATUS_PAUSE) {
            asked_at = Some(Instant::now());
            if web.status().is_some_and(|status| status["protected"] == true) {
                enough = Some(
                    counters
                        .iter()
                        .map(|counter| counter.answers() + ANSWERS)
                        .collect(),
                );
            }
        }
        if let Some(enough) = &enough
            && counters
                .iter()
                .zip(enough)
                .any(|(counter, enough)| counter.answers() >= *enough)
        {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "the machine does not come back: {:?}, {}",
            web.status(),
            web.sides
                .iter()
                .map(|side| side.replica.account())
                .collect::<String>()
        );
        thread::sleep(LOOK);
    }
}

/// Ends what still runs: the machine last, as its user does. Gives what is wrong with how processes
/// ended.
fn end(web: &mut Web) -> Vec<String> {
    let holder = web.holder().map(|(number, _)| number);
    let others: Vec<usize> = web
        .running()
        .into_iter()
        .filter(|number| Some(*number) != holder)
        .collect();
    for number in others {
        web.kill(number);
    }
    if let Some(holder) = holder.filter(|holder| web.is_running(*holder)) {
        let _ = web.sides[holder].replica.stop();
    }
    let mut complaints = Vec::new();
    for number in 0..web.sides.len() {
        let ended = web.sides[number].replica.process.wait();
        web.is_running(number);
        let side = &web.sides[number];
        if side.killed {
            continue;
        }
        if Some(number) == holder && ended.code() != Some(0) {
            complaints.push(format!(
                "{} held the machine and ended with {}",
                side.name, ended.status
            ));
        } else if judge::is_a_wrong_end(ended.code(), &ended.stderr) {
            complaints.push(format!("{} ended with {}", side.name, ended.status));
        }
    }
    complaints
}
