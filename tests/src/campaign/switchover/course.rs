//! One round of a switchover.

use super::plan::Plan;
use crate::campaign::evidence::Evidence;
use crate::campaign::healing::{Course, Machine, round};
use crate::campaign::kind::{Fault, Side};
use crate::campaign::outcome::Outcome;
use crate::campaign::web::Web;
use crate::harness::Guest;

/// Answers to each client before a switchover, and after each.
const ANSWERS: u64 = 10;
/// Seconds after which a switchover that is struck is given up. Without a fault it takes one.
const STRUCK_LIMIT: &str = "10";

/// A machine that is switched over.
struct Switching<'a, 'b> {
    machine: &'a mut Machine<'b>,
    plan: &'a Plan,
    course: &'a mut Course,
    /// Numbers of the primary and of the backup, before the first switchover.
    sides: [usize; 2],
}

/// Runs the switchover of `plan` and judges it. `mutant`: a defect that all sides are to have.
#[must_use]
pub fn run(plan: &Plan, mutant: Option<&str>) -> (Outcome, Option<Evidence>) {
    let frame = round::Frame {
        title: &plan.title(),
        points: usize::from(plan.strike.point().is_some()),
        first_point: plan.point_of(Side::Primary),
        clients: plan.clients,
    };
    let web = Web::new(1, mutant);
    let web = if plan.in_checkpoint_mode {
        web.with(Guest::KeyValue, ["--mode=checkpoint"])
    } else {
        web
    };
    round::run(&frame, web, |machine, course| {
        machine.look();
        let backup = machine.join(plan.point_of(Side::Backup));
        let sides = [machine.holder, backup];
        Switching {
            machine,
            plan,
            course,
            sides,
        }
        .run();
    })
}

impl Switching<'_, '_> {
    fn run(&mut self) {
        self.machine.served(ANSWERS);
        self.machine.heal();
        self.machine.pass(self.plan.protected_ms);
        self.course.struck.insert(self.machine.generation);
        self.switch_over_struck();
        if self.course.gone {
            return;
        }
        self.machine.served(ANSWERS);
        self.machine.heal();
        self.switch_over();
        self.machine.served(ANSWERS);
    }

    /// The first switchover: waits until it is clear who goes on.
    fn switch_over_struck(&mut self) {
        let Self {
            machine,
            plan,
            course,
            sides,
        } = self;
        let before = machine.generation;
        let mut asking = machine.web.switch_over(&["--no-wait", "--timeout", STRUCK_LIMIT]);
        let at_point = plan.strike.point().map(|(side, _)| sides[side as usize]);
        let mut is_struck = false;
        machine.wait("it becomes clear who goes on", |machine| {
            if !is_struck && at_point.is_some_and(|side| machine.web.is_at_its_point(side)) {
                is_struck = true;
                strike(machine, plan, *sides, course);
            }
            machine.look();
            if is_gone(machine, before, sides[1]) {
                // Whoever is left would begin another one.
                let running = machine.web.running();
                running.into_iter().for_each(|side| machine.web.kill(side));
                course.gone = true;
                course.last_generation = Some(before + 1);
            }
            let is_over = machine.goes_on(before, *sides) && !asking.is_running();
            course.gone || (is_over && machine.web.is_settled())
        });
        let ended = asking.wait();
        let refused = ended.code() == Some(1) && is_struck;
        if ended.code() != Some(0) && !refused {
            course.failures.push(ended.to_string());
        }
    }

    /// A switchover without a fault.
    fn switch_over(&mut self) {
        let Self { machine, course, .. } = self;
        let (holder, generation) = (machine.holder, machine.generation);
        let mut asking = machine.web.switch_over(&[]);
        machine.wait("the machine is switched over", |machine| {
            machine.look();
            !asking.is_running()
        });
        let ended = asking.wait();
        if ended.code() != Some(0) {
            course.failures.push(ended.to_string());
        } else if machine.holder == holder || machine.generation != generation + 1 {
            course.failures.push(format!(
                "it was switched over from side {holder} in generation {generation} to side {} in {}",
                machine.holder, machine.generation
            ));
        }
    }
}

/// Does what the plan says, to the side that has come to its point or to the other one. What has
/// stopped itself for the other's fault goes on at once.
fn strike(machine: &mut Machine<'_>, plan: &Plan, sides: [usize; 2], course: &mut Course) {
    let (Some(fault), Some((own, _))) = (plan.strike.fault(), plan.strike.point()) else {
        return;
    };
    match fault {
        Fault::Stop(side) => {
            if side == Side::Primary {
                course.late_allowed.insert(machine.generation, 1);
            }
            machine.web.stop(sides[side as usize], plan.lasts_ms);
        }
        // It has done that itself.
        Fault::Kill(side) if side == own => {}
        Fault::Kill(side) => machine.web.kill(sides[side as usize]),
        other => panic!("a switchover with {other}"),
    }
}

/// True if the backup has claimed the machine and is lost: so is the machine.
fn is_gone(machine: &mut Machine<'_>, before: u32, backup: usize) -> bool {
    let id = machine.web.sides[backup].replica.process.id();
    let claims = machine.web.claims();
    let mut won = claims.iter().filter(|claim| claim.generation == before + 1);
    won.any(|claim| claim.process == id) && !machine.web.is_running(backup)
}
