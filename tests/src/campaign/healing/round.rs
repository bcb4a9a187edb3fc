//! One round of a machine that heals: it begins, clients come, the plan does what it does, and the
//! end is judged.

use super::judge::{Course, judge};
use super::machine::Machine;
use crate::campaign::clients::{Account, Clients};
use crate::campaign::course::Standing;
use crate::campaign::evidence::Evidence;
use crate::campaign::history::Record;
use crate::campaign::outcome::{Outcome, Points};
use crate::campaign::plan::Title;
use crate::campaign::round::{read_the_survivor, text_of};
use crate::campaign::web::{Starting, Web};
use crate::simulator::rng::mix;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// The frame of a round.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Names of the round.
    pub title: &'a Title,
    /// Number of points that its plan has.
    pub points: usize,
    /// Stop point of the side that begins the machine.
    pub first_point: Option<String>,
    /// Clients.
    pub clients: usize,
}

/// Begins the machine of `web`, has `drive` do what the plan says, ends it, and judges the round.
#[must_use]
pub fn run(
    frame: &Frame<'_>,
    web: Web,
    drive: impl FnOnce(&mut Machine<'_>, &mut Course),
) -> (Outcome, Option<Evidence>) {
    run_to_an_end(frame, web, drive, |web, holder, _, course| {
        end(web, holder, course);
        Vec::new()
    })
}

/// The same, and `end` ends the machine that this side holds, of which the clients have these
/// accounts. It may read more from the machine.
#[must_use]
pub fn run_to_an_end(
    frame: &Frame<'_>,
    mut web: Web,
    drive: impl FnOnce(&mut Machine<'_>, &mut Course),
    end: impl FnOnce(&mut Web, usize, &[Account], &mut Course) -> Vec<Record>,
) -> (Outcome, Option<Evidence>) {
    let began = Instant::now();
    let mut course = Course::default();
    web.start(&Starting::replica(frame.first_point.clone()));
    let listening = catch_unwind(AssertUnwindSafe(|| web.sides[0].replica.wait_for("listening")));
    if let Err(why) = listening {
        let why = format!("the machine did not begin: {}", text_of(&*why));
        return (Outcome::failed(frame.title.clone(), &why), None);
    }
    let address = web.addresses()[0];
    let clients = Clients::start(address, frame.clients, mix(frame.title.seed) ^ frame.title.round);
    let mut machine = Machine::new(web, &clients);
    let driven = catch_unwind(AssertUnwindSafe(|| drive(&mut machine, &mut course)));
    let Machine {
        mut web,
        wires,
        holder,
        generation,
        ..
    } = machine;
    course.failures.extend(driven.err().map(|why| text_of(&*why)));
    let serves = course.failures.is_empty() && !course.gone;
    let accounts = clients.stop(!serves);
    let read = serves.then(|| read_the_survivor(address, frame.clients, &mut course.failures));
    let (held, mut last) = read.unwrap_or_default();
    let ended = catch_unwind(AssertUnwindSafe(|| end(&mut web, holder, &accounts, &mut course)));
    match ended {
        Ok(records) => last.extend(records),
        Err(why) => course.failures.push(text_of(&*why)),
    }
    let evidence = Evidence {
        accounts,
        last,
        held,
        frames: web.switches[0].frames(),
        said: web.said(),
        files: web.files(),
        wires: wires.traffic(),
        ..Evidence::default()
    };
    course.points = Points {
        planned: frame.points,
        met: course.points_met.unwrap_or_else(|| web.points_met()),
    };
    let standing = serves.then_some(Standing::Healed(generation));
    let standing = standing.or(course.gone.then_some(Standing::Down));
    let outcome = judge(
        frame.title.clone(),
        course,
        standing,
        &web.claims(),
        &evidence,
        began.elapsed(),
    );
    (outcome, Some(evidence))
}

/// Ends what still runs: the machine last, as its user does.
fn end(web: &mut Web, holder: usize, course: &mut Course) {
    for number in web.running() {
        web.go_on_after(number, 0);
    }
    web.look_at_the_time();
    for number in web.running() {
        if number != holder {
            web.kill(number);
        }
    }
    if web.is_running(holder) {
        let _ = web.sides[holder].replica.stop();
    }
    for number in 0..web.sides.len() {
        let ended = web.sides[number].replica.process.wait();
        web.is_running(number);
        let expected = if number == holder { 0 } else { 41 };
        let side = &web.sides[number];
        if !side.killed && ended.code() != Some(expected) {
            course.failures.push(format!(
                "{} ended with {}, not {expected}",
                side.name, ended.status
            ));
        }
    }
}
