//! One round of a guest that diverges.

use super::plan::{Plan, Strike};
use crate::campaign::evidence::Evidence;
use crate::campaign::healing::{Course, Machine, round};
use crate::campaign::kind::{Fault, Side};
use crate::campaign::outcome::Outcome;
use crate::campaign::web::Web;
use crate::harness::{Client, Guest, Reply};
use std::time::{Duration, Instant};

/// Answers to each client before the divergence, and after each step of the round.
const ANSWERS: u64 = 10;
/// Time after a side was armed in which its point, or the holder's, may still be met.
const POINT_PATIENCE: Duration = Duration::from_secs(2);
/// Digests are compared often, and a difference lasts for longer than from one to the next.
const SETTINGS: [&str; 2] = ["--digest-interval-exits=64", "--command-line=exits=200"];

/// A machine whose guest diverges.
struct Diverging<'a, 'b> {
    machine: &'a mut Machine<'b>,
    plan: &'a Plan,
    course: &'a mut Course,
    /// Numbers of the holder and of its backup, which diverges.
    sides: [usize; 2],
}

/// Runs the divergence of `plan` and judges it. `mutant`: a defect that all sides are to have.
#[must_use]
pub fn run(plan: &Plan, mutant: Option<&str>) -> (Outcome, Option<Evidence>) {
    let frame = round::Frame {
        title: &plan.title(),
        points: 1,
        first_point: plan.strike.holder_point(),
        clients: plan.clients,
    };
    let web = Web::new(1, mutant).with(Guest::Diverging, SETTINGS);
    round::run(&frame, web, |machine, course| {
        machine.look();
        let backup = machine.join(plan.strike.newcomer_point());
        let sides = [machine.holder, backup];
        Diverging {
            machine,
            plan,
            course,
            sides,
        }
        .run();
    })
}

impl Diverging<'_, '_> {
    fn run(&mut self) {
        // It joins twice, and passes its point both times.
        self.course.points_met = Some(0);
        self.machine.served(ANSWERS);
        self.machine.heal();
        self.machine.pass(self.plan.protected_ms);
        self.course.struck.insert(self.machine.generation);
        self.course.divergences = 1;
        let mut client = Client::connect(self.machine.web.addresses()[0]);
        assert_eq!(client.call(&["SET", "diverge", self.plan.part]), Reply::ok());
        self.join_again();
        self.machine.heal();
        self.machine.served(ANSWERS);
        if let Strike::Armed(fault) = self.plan.strike {
            self.lose(fault);
            self.machine.heal();
            self.machine.served(ANSWERS);
        }
    }

    /// The backup has diverged, and joins again: until it is struck, or armed.
    fn join_again(&mut self) {
        let Self {
            machine,
            plan,
            course,
            sides: [holder, backup],
        } = self;
        let strike = plan.strike;
        let stops = match strike {
            Strike::StopHolder(_) => Some(*holder),
            Strike::KillNewcomer(_) | Strike::StopNewcomer(_) => Some(*backup),
            Strike::Armed(_) => None,
        };
        let (armed, generation) = (machine.web.count(*backup, "armed"), machine.generation);
        let mut armed_at = None;
        machine.wait("the side that has diverged joins again", |machine| {
            machine.web.look_at_the_time();
            let has_diverged = machine.web.count(*holder, "peer_diverged") > 0;
            let is_struck = course.points_met == Some(1);
            if let Some(side) = stops.filter(|_| has_diverged && !is_struck)
                && machine.web.stopped_by_themselves().contains(&side)
            {
                course.points_met = Some(1);
                match strike {
                    Strike::KillNewcomer(_) => machine.web.kill(side),
                    _ => machine.web.go_on_after(side, plan.lasts_ms),
                }
                if matches!(strike, Strike::StopHolder(_)) {
                    course.late_allowed.insert(machine.generation, 1);
                }
            }
            machine.look();
            if armed_at.is_none() && machine.web.count(*backup, "armed") > armed {
                armed_at = Some(Instant::now());
            }
            let patience = if stops.is_some() {
                POINT_PATIENCE
            } else {
                Duration::ZERO
            };
            let is_armed = armed_at.is_some_and(|at| at.elapsed() >= patience);
            let is_over = course.points_met == Some(1) || is_armed;
            has_diverged && machine.generation > generation && is_over && machine.web.is_settled()
        });
    }

    /// One of the two is lost, once the machine is protected.
    fn lose(&mut self, fault: Fault) {
        let machine = &mut self.machine;
        let (before, sides) = (machine.generation, self.sides);
        self.course.points_met = Some(1);
        match fault {
            Fault::Kill(side) => machine.web.kill(sides[side as usize]),
            Fault::Stop(side) => {
                if side == Side::Primary {
                    self.course.late_allowed.insert(before, 1);
                }
                machine.web.stop(sides[side as usize], self.plan.lasts_ms);
            }
            other => panic!("a pair that diverges with {other}"),
        }
        machine.wait("it becomes clear who goes on", |machine| {
            machine.look();
            machine.goes_on(before, sides) && machine.web.is_settled()
        });
    }
}
