//! One round: a pair, its clients, the fault of the plan, and the wait until it is clear who goes
//! on.

use super::clients::{self, Clients};
use super::course::{Course, Standing};
use super::evidence::Evidence;
use super::faults::Subject;
use super::history::Record;
use super::kind::{Fault, Mode, Place, Side};
use super::outcome::{Outcome, judge};
use super::plan::{Plan, TIMEOUT_MS, Trigger};
use super::stop_point::{self, REACHED};
use super::web::MUTANT;
use crate::harness::clock::monotonic_ns;
use crate::harness::hosts::{self, ARP_WITNESS, Hosts};
use crate::harness::{Guest, PairSpec};
use crate::simulator::rng::mix;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(1);
/// How long the pair is waited for at a point.
const POINT_PATIENCE: Duration = Duration::from_secs(20);
/// How long after somebody has won, for other reasons than the plan's, a point may still be met.
const WON_PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take until it is clear who goes on, and clients are served again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers to each client before the round takes a time, and after it is clear who goes on.
const ANSWERS_BEFORE: u64 = 5;
const ANSWERS_AFTER: u64 = 20;

/// Runs the round of `plan` and judges it. `mutant`: a defect that both sides are to have. A round
/// that needs a host for each side runs among namespaces, or not at all where there can be none,
/// which was said.
#[must_use]
pub fn run(plan: &Plan, mutant: Option<&str>) -> (Outcome, Option<Evidence>) {
    if !plan.kind.fault.needs_hosts() {
        return run_on(None, plan, mutant);
    }
    if !hosts::offered() {
        return (Outcome::skipped(plan.title()), None);
    }
    let ran = catch_unwind(|| hosts::among(|hosts| run_on(Some(hosts), plan, mutant)));
    ran.unwrap_or_else(|why| {
        let why = format!("there are no hosts: {}", text_of(&*why));
        (Outcome::failed(plan.title(), &why), None)
    })
}

fn run_on(hosts: Option<&Hosts>, plan: &Plan, mutant: Option<&str>) -> (Outcome, Option<Evidence>) {
    let began = Instant::now();
    let started = catch_unwind(AssertUnwindSafe(|| start(hosts, plan, mutant)));
    let mut subject = match started {
        Ok(pair) => Subject::new(pair, hosts),
        Err(why) => {
            return (
                Outcome::failed(
                    plan.title(),
                    &format!("the pair did not start: {}", text_of(&*why)),
                ),
                None,
            );
        }
    };
    let mut course = Course::default();
    let address = subject.client_address();
    let clients = Clients::start(address, plan.clients, mix(plan.seed) ^ plan.round);
    let driven = catch_unwind(AssertUnwindSafe(|| {
        meet_the_point(&mut subject, &clients, plan, &mut course);
        settle(&mut subject, &clients, plan, &mut course);
    }));
    course.failures.extend(driven.err().map(|why| text_of(&*why)));
    let serves = !matches!(course.standing, None | Some(Standing::Down));
    let accounts = clients.stop(!serves);
    let read = serves.then(|| read_the_survivor(address, plan.clients, &mut course.failures));
    let (held, last) = read.unwrap_or_default();
    let ended = catch_unwind(AssertUnwindSafe(|| end(&mut subject, &mut course)));
    course.failures.extend(ended.err().map(|why| text_of(&*why)));
    let evidence = Evidence::collect(&mut subject, accounts, last, held);
    let outcome = judge(plan, course, &evidence, serves, began.elapsed());
    (outcome, Some(evidence))
}

/// Values of every key where the machine serves, and the reads that gave them.
pub(super) fn read_the_survivor(
    address: SocketAddr,
    clients: usize,
    failures: &mut Vec<String>,
) -> (BTreeMap<String, u64>, Vec<Record>) {
    clients::read_all(address, clients).unwrap_or_else(|why| {
        failures.push(format!("the survivor is not read: {why}"));
        Default::default()
    })
}

/// The words of a panic.
pub(super) fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

fn start(hosts: Option<&Hosts>, plan: &Plan, mutant: Option<&str>) -> crate::harness::Pair {
    let mut spec = PairSpec::new(Guest::KeyValue)
        .setting("memory-mib", "16")
        .setting("timeout-ms", &TIMEOUT_MS.to_string());
    if plan.kind.mode == Mode::Checkpoint {
        spec = spec.setting("mode", "checkpoint");
    }
    if let Some((side, point)) = plan.stop_point() {
        spec = spec.variable(side.name(), stop_point::VARIABLE, &point);
    }
    for side in Side::BOTH {
        if let Some(mutant) = mutant {
            spec = spec.variable(side.name(), MUTANT, mutant);
        }
    }
    let mut pair = match hosts {
        Some(hosts) => hosts.start(&spec.setting("witness", ARP_WITNESS)),
        None => spec.with_switch().with_proxy().start(),
    };
    if let Some((side, _)) = plan.stop_point() {
        let replica = match side {
            Side::Primary => &mut pair.primary,
            Side::Backup => &mut pair.backup,
        };
        // A build without stop points says nothing, and would meet none.
        let _ = replica.process.wait_for_stderr("stop point armed");
    }
    pair
}

/// Does what the plan says where it says it.
fn meet_the_point(subject: &mut Subject<'_>, clients: &Clients, plan: &Plan, course: &mut Course) {
    let is_early = matches!(plan.kind.place, Place::Step(..)) && plan.trigger.is_none();
    if !is_early {
        wait(subject, PATIENCE, |_| {
            clients.fewest_answers() >= ANSWERS_BEFORE || clients.any_broken()
        });
        let ms = if plan.trigger.is_some() {
            plan.trigger_at_ms
        } else {
            plan.ordinal
        };
        thread::sleep(Duration::from_millis(ms));
    }
    pull(subject, plan, course);
    let Some((side, _)) = plan.stop_point() else {
        course.met = true;
        course.fault_ns = Some(monotonic_ns());
        apply(subject, plan);
        return;
    };
    let mut won_at = None;
    wait(subject, POINT_PATIENCE, |subject| {
        course.met = has_stopped(subject, side, plan);
        if won_at.is_none() && subject.winner().is_some() {
            won_at = Some(Instant::now());
        }
        course.met || won_at.is_some_and(|at| at.elapsed() > WON_PATIENCE)
    });
    if !course.met {
        return;
    }
    let reached_ns = reached_ns(subject, side);
    let by_itself = plan.kind.fault == Fault::Kill(side);
    let own_ns = if by_itself || plan.kind.fault == Fault::Stop(side) {
        reached_ns
    } else {
        Some(monotonic_ns())
    };
    course.fault_ns = course.fault_ns.or(own_ns);
    apply(subject, plan);
    if !plan.keeps_stopped(side) {
        subject.signal(side, Signal::SIGCONT);
    }
}

/// What leads to a failover, for a point in one.
fn pull(subject: &mut Subject<'_>, plan: &Plan, course: &mut Course) {
    let (Some(trigger), Some((side, _))) = (plan.trigger, plan.kind.place.step()) else {
        return;
    };
    course.fault_ns = Some(monotonic_ns());
    match trigger {
        Trigger::Kill => subject.kill(side.other()),
        // It goes on when the point has been met.
        Trigger::Stop { .. } => subject.signal(side.other(), Signal::SIGSTOP),
        Trigger::Blackhole => subject.blackhole(None, None),
    }
}

fn apply(subject: &mut Subject<'_>, plan: &Plan) {
    subject.apply(
        plan.kind.fault,
        plan.lasts_ms,
        plan.other_lasts_ms,
        plan.mended_after_ms,
    );
    if let (Some(Trigger::Stop { ms }), Some((side, _))) = (plan.trigger, plan.kind.place.step()) {
        subject.stop(side.other(), ms);
    }
}

/// True if a side has come to its stop point, and stands there or is gone.
fn has_stopped(subject: &mut Subject<'_>, side: Side, plan: &Plan) -> bool {
    let holds = plan.holds() && subject.side(side).process.stderr().contains(REACHED);
    holds || subject.is_at_its_point(side)
}

fn reached_ns(subject: &mut Subject<'_>, side: Side) -> Option<u64> {
    let stderr = subject.side(side).process.stderr();
    let (_, after) = stderr.split_once("stop point reached at_ns=")?;
    after.split_whitespace().next()?.parse().ok()
}

/// Waits until `found`, undoing meanwhile what is due. Says whether it came to that.
fn wait(
    subject: &mut Subject<'_>,
    patience: Duration,
    mut found: impl FnMut(&mut Subject<'_>) -> bool,
) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        subject.look_at_the_time();
        if found(subject) {
            return true;
        }
        thread::sleep(LOOK);
    }
    false
}

/// Waits until it is clear who goes on, and every client was served by it.
fn settle(subject: &mut Subject<'_>, clients: &Clients, plan: &Plan, course: &mut Course) {
    if !course.met {
        // A process that the plan had stopped for its point must not stay so.
        Side::BOTH
            .into_iter()
            .for_each(|side| subject.signal(side, Signal::SIGCONT));
    }
    let mut seen = None;
    let mut enough = u64::MAX;
    let settled = wait(subject, PATIENCE, |subject| {
        if !course.met {
            take_late_point(subject, plan);
        }
        let standing = standing(subject);
        if standing != seen {
            seen = standing;
            enough = clients.fewest_answers() + ANSWERS_AFTER;
        }
        match standing {
            Some(Standing::Down) => true,
            Some(_) => clients.fewest_answers() >= enough || clients.any_broken(),
            None => false,
        }
    });
    course.standing = seen;
    if !settled {
        let why = match seen {
            None => "it does not become clear who goes on".to_owned(),
            Some(standing) => format!("clients are not served: {standing:?}"),
        };
        course.failures.push(why);
    }
}

/// A point that is met when nobody waits for it any more still kills its process, or stops it,
/// which then goes on at once.
fn take_late_point(subject: &mut Subject<'_>, plan: &Plan) {
    let Some((side, _)) = plan.stop_point() else {
        return;
    };
    if subject.killed.contains(&side) || !has_stopped(subject, side, plan) {
        return;
    }
    if subject.is_running(side) {
        subject.signal(side, Signal::SIGCONT);
    } else if plan.kind.fault == Fault::Kill(side) {
        subject.killed.push(side);
    }
}

/// How the pair stands, where that is clear.
fn standing(subject: &mut Subject<'_>) -> Option<Standing> {
    let running: Vec<Side> = Side::BOTH
        .into_iter()
        .filter(|side| subject.is_running(*side))
        .collect();
    if !subject.is_settled() && !running.is_empty() {
        return None;
    }
    match (running.as_slice(), subject.winner()) {
        ([], _) => Some(Standing::Down),
        ([side], Some(winner)) if *side == winner => {
            let goes_on = if winner == Side::Primary { "solo" } else { "live" };
            subject
                .side(winner)
                .event(goes_on)
                .map(|_| Standing::Alone(winner))
        }
        ([_, _], None) if !subject.channel_is_gone => Some(Standing::Protected),
        _ => None,
    }
}

/// Ends what still runs, as its user does: the backup first, so that the primary goes on alone.
fn end(subject: &mut Subject<'_>, course: &mut Course) {
    let mut codes = BTreeMap::new();
    for side in [Side::Backup, Side::Primary] {
        let was_running = subject.is_running(side);
        if was_running && course.standing.is_some() {
            let goes_on = side == Side::Backup && subject.is_running(Side::Primary);
            let _ = subject.side(side).stop();
            if goes_on {
                subject.side(Side::Primary).wait_for("solo");
            }
        } else if was_running {
            subject.kill(side);
        }
        let ended = subject.side(side).process.wait();
        codes.insert(side, (was_running, ended.code(), ended.status));
    }
    for (side, (was_running, code, status)) in codes {
        let expected = match course.standing {
            _ if subject.killed.contains(&side) => continue,
            None => continue,
            Some(_) if was_running => 0,
            Some(_) => 41,
        };
        if code != Some(expected) {
            course
                .failures
                .push(format!("the {} ended with {status}, not {expected}", side.name()));
        }
    }
}
