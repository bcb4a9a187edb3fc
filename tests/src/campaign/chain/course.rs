//! One round of a chain.

use super::plan::{Link, Loss, Plan, Trouble};
use crate::campaign::disks;
use crate::campaign::evidence::Evidence;
use crate::campaign::healing::{Course, Machine, round};
use crate::campaign::outcome::Outcome;
use crate::campaign::web::{Starting, Web};
use crate::harness::proxy::Toward;
use std::thread;
use std::time::Duration;

/// Answers to each client before the first loss, and after each.
const ANSWERS: u64 = 10;
/// Newcomers of one link that may be started: the first, those that the plan kills, and some that
/// are lost because the host is busy.
const NEWCOMERS_MAX: usize = 4;

/// A chain while it runs.
struct Chain<'a, 'b> {
    machine: &'a mut Machine<'b>,
    plan: &'a Plan,
    course: &'a mut Course,
}

/// Runs the chain of `plan` and judges it. `mutant`: a defect that all sides are to have.
#[must_use]
pub fn run(plan: &Plan, mutant: Option<&str>) -> (Outcome, Option<Evidence>) {
    let frame = round::Frame {
        title: &plan.title(),
        points: plan.points(),
        first_point: holder_point(plan, 0),
        clients: plan.clients,
    };
    let drive = |machine: &mut Machine<'_>, course: &mut Course| {
        Chain {
            machine,
            plan,
            course,
        }
        .run();
    };
    match plan.held {
        None => round::run(&frame, Web::new(1, mutant), drive),
        Some(held) => disks::run_with_disk(&frame, held, mutant, drive),
    }
}

/// The point of the side that holds the machine in link `number`: it is told when it starts.
fn holder_point(plan: &Plan, number: usize) -> Option<String> {
    let link = plan.links.get(number)?;
    link.trouble.holder_point(link.ordinal)
}

impl Chain<'_, '_> {
    fn run(&mut self) {
        self.machine.look();
        for (number, link) in self.plan.links.iter().enumerate() {
            let backup = self.join(number, link);
            let armed = (self.machine.holder, self.machine.generation);
            self.machine.served(ANSWERS);
            if !self.lose(link, armed, backup) {
                return;
            }
            self.machine.served(ANSWERS);
        }
        if self.plan.held.is_some() {
            // Both images are compared at the end.
            self.machine.heal();
        }
    }

    /// A newcomer joins, or one after the other, until one is armed. Gives it.
    fn join(&mut self, number: usize, link: &Link) -> usize {
        let next_holder_point = || {
            // One point a process: the side takes over in the next link, if the plan's loss says
            // so.
            let as_holder = holder_point(self.plan, number + 1);
            as_holder.filter(|_| link.loss.hands_over())
        };
        let point = link
            .trouble
            .newcomer_point(link.ordinal)
            .or_else(next_holder_point);
        let Self { machine, course, .. } = self;
        let armed = machine.web.count(machine.holder, "armed");
        let mut newcomer = machine.web.start(&Starting::replica(point));
        let (mut started, mut troubled, mut stopped) = (1, false, false);
        let (mut since, mut armed_before) = ((machine.holder, machine.generation), armed);
        machine.wait(&format!("link {number}: a newcomer is armed"), |machine| {
            // Before anything goes on by itself.
            if !stopped && stands_at_its_point(machine, newcomer, link) {
                stopped = true;
                machine.web.go_on_after(newcomer, link.trouble_ms);
            }
            if matches!(link.trouble, Trouble::StopHolder(_))
                && machine.web.stopped_by_themselves().contains(&machine.holder)
            {
                let holder = machine.holder;
                machine.web.go_on_after(holder, link.trouble_ms);
            }
            machine.look();
            if !troubled && trouble_the_channel(machine, link) {
                troubled = true;
            }
            if (machine.holder, machine.generation) != since {
                // The holder went on alone meanwhile, or lost to a newcomer that was armed.
                course.early |= matches!(link.trouble, Trouble::None);
                since = (machine.holder, machine.generation);
                armed_before = machine.web.count(machine.holder, "armed");
            }
            if newcomer == machine.holder || !machine.web.is_running(newcomer) {
                assert!(
                    started < NEWCOMERS_MAX,
                    "newcomers come to nothing: {}",
                    machine.account()
                );
                started += 1;
                newcomer = machine.web.start(&Starting::replica(None));
            }
            machine.web.count(machine.holder, "armed") > armed_before
                && machine.web.count(newcomer, "armed") > 0
                && machine.web.is_running(newcomer)
        });
        newcomer
    }

    /// One of the two that were armed in `generation` is lost; the other goes on in the next. Says
    /// whether there is a machine left.
    fn lose(&mut self, link: &Link, (holder, generation): (usize, u32), backup: usize) -> bool {
        self.machine.pass(link.protected_ms);
        let newest = self
            .machine
            .web
            .claims()
            .pop()
            .map_or(0, |claim| claim.generation);
        if newest > generation {
            // It has come about by itself, or the trouble came with the arming: a link as well.
            self.course.early |= matches!(link.trouble, Trouble::None);
        } else {
            self.course.struck.insert(generation);
            self.strike(link, (holder, generation), backup);
        }
        let mut stopped = false;
        let Self { machine, course, .. } = self;
        machine.wait("it becomes clear who goes on", |machine| {
            if matches!(link.trouble, Trouble::StopTakingOver(_))
                && !stopped
                && machine.web.stopped_by_themselves().contains(&backup)
            {
                stopped = true;
                machine.web.go_on_after(backup, link.trouble_ms);
            }
            machine.look();
            if machine.generation > generation
                && !machine.web.is_running(machine.holder)
                && !(machine.web.is_running(holder) || machine.web.is_running(backup))
            {
                course.early = true;
                course.gone = true;
                return true;
            }
            machine.generation > generation && machine.acts(machine.holder) && machine.web.is_settled()
        });
        if course.gone {
            return false;
        }
        // Whoever lost ends by itself.
        let loser = if machine.holder == backup { holder } else { backup };
        machine.wait("who has lost ends", |machine| {
            machine.look();
            !machine.web.is_running(loser)
        });
        true
    }

    fn strike(&mut self, link: &Link, (holder, generation): (usize, u32), backup: usize) {
        match link.loss {
            Loss::KillHolder => self.machine.web.kill(holder),
            Loss::KillBackup => self.machine.web.kill(backup),
            Loss::StopHolder => {
                self.course.late_allowed.insert(generation, 1);
                self.machine.web.stop(holder, link.loss_ms);
            }
            Loss::StopBackup => self.machine.web.stop(backup, link.loss_ms),
            Loss::Cut | Loss::Close => {
                for wire in self.machine.wires.newest() {
                    match link.loss {
                        Loss::Cut => wire.cut(),
                        _ => wire.close(),
                    }
                }
                if link.loss == Loss::Close {
                    self.course.late_allowed.insert(generation, u64::MAX);
                }
            }
        }
    }
}

/// True if the newcomer has stopped itself where the plan says it. Points of a takeover come
/// later.
fn stands_at_its_point(machine: &mut Machine<'_>, newcomer: usize, link: &Link) -> bool {
    let is_joining = matches!(link.trouble, Trouble::StopNewcomer(_));
    is_joining && machine.web.stopped_by_themselves().contains(&newcomer)
}

/// Does to the channel what the link says, once enough has come. Says whether it is done.
fn trouble_the_channel(machine: &Machine<'_>, link: &Link) -> bool {
    if !matches!(
        link.trouble,
        Trouble::CloseChannel | Trouble::DamageChannel | Trouble::CutChannel
    ) {
        return true;
    }
    let Some(wire) = machine.wires.newest().pop() else {
        return false;
    };
    if wire.traffic().pieces < link.ordinal {
        return false;
    }
    match link.trouble {
        Trouble::CloseChannel => wire.close(),
        Trouble::DamageChannel => wire.damage(Toward::Backup),
        _ => {
            wire.cut();
            let ms = link.trouble_ms;
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(ms));
                wire.mend();
            });
        }
    }
    true
}
