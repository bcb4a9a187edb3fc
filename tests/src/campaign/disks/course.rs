//! One round of a machine with a disk.

use super::ending::{self, Ending};
use super::images::{Held, Images};
use super::judge::Kept;
use super::plan::{ALWAYS, Plan};
use crate::campaign::clients::Account;
use crate::campaign::evidence::Evidence;
use crate::campaign::healing::{Course, Machine, round};
use crate::campaign::history::Record;
use crate::campaign::kind::{Fault, Side};
use crate::campaign::outcome::Outcome;
use crate::campaign::web::Web;
use crate::harness::clock::monotonic_ns;
use crate::harness::proxy::Toward;
use crate::harness::{Client, Guest, Reply};
use std::cell::Cell;

/// Answers to each client before the fault, and after it.
const ANSWERS: u64 = 10;
/// Time of the guest after which a file that is flushed once a second has what was acknowledged
/// before: from one flush to the next, and as much again.
const FLUSHED_AFTER_US: u64 = 2_000_000;
/// Between two looks at the guest's clock.
const LOOK_MS: u64 = 50;

/// A machine with a disk.
struct Written<'a, 'b> {
    machine: &'a mut Machine<'b>,
    plan: &'a Plan,
    course: &'a mut Course,
    /// Numbers of the holder and of its backup.
    sides: [usize; 2],
    kept: &'a Cell<Kept>,
}

/// Runs the round of `plan` and judges it. `mutant`: a defect that all sides are to have.
#[must_use]
pub fn run(plan: &Plan, mutant: Option<&str>) -> (Outcome, Option<Evidence>) {
    let frame = round::Frame {
        title: &plan.title(),
        points: usize::from(plan.point().is_some()),
        first_point: None,
        clients: plan.clients,
    };
    let kept = Cell::new(Kept::All);
    let drive = |machine: &mut Machine<'_>, course: &mut Course| {
        machine.look();
        let backup = machine.join(plan.point());
        let sides = [machine.holder, backup];
        Written {
            machine,
            plan,
            course,
            sides,
            kept: &kept,
        }
        .run();
    };
    let web = web(plan.strike.held, plan.guest_settings(), mutant);
    round::run_to_an_end(&frame, web, drive, |web, holder, accounts, course| {
        end(web, holder, accounts, course, plan.clients, kept.get())
    })
}

/// Runs a round of another plan, whose machine has a disk with a file that is flushed before each
/// answer, and is protected at its end, or gone.
#[must_use]
pub fn run_with_disk(
    frame: &round::Frame<'_>,
    held: Held,
    mutant: Option<&str>,
    drive: impl FnOnce(&mut Machine<'_>, &mut Course),
) -> (Outcome, Option<Evidence>) {
    let web = web(held, vec![ALWAYS], mutant);
    round::run_to_an_end(frame, web, drive, |web, holder, accounts, course| {
        end(web, holder, accounts, course, frame.clients, Kept::All)
    })
}

/// An environment with a second switch, for the machine that begins again.
fn web(held: Held, settings: Vec<&'static str>, mutant: Option<&str>) -> Web {
    Web::new(2, mutant)
        .with(Guest::KeyValue, settings)
        .with_disk(Images::new(held))
}

fn end(
    web: &mut Web,
    holder: usize,
    accounts: &[Account],
    course: &mut Course,
    clients: usize,
    kept: Kept,
) -> Vec<Record> {
    let ending = Ending {
        web,
        course,
        clients,
        accounts,
        kept,
    };
    ending::end(ending, holder)
}

impl Written<'_, '_> {
    fn run(&mut self) {
        self.machine.served(ANSWERS);
        self.machine.heal();
        self.machine.pass(self.plan.protected_ms);
        if self.plan.every_second {
            self.wait_for_a_flush();
        }
        self.course.struck.insert(self.machine.generation);
        self.strike();
        self.settle();
        if self.course.gone {
            return;
        }
        // Nobody is lost with both sides: their machine has everything.
        self.kept.set(Kept::All);
        self.machine.served(ANSWERS);
        self.machine.heal();
        self.machine.served(ANSWERS);
    }

    /// Waits until the guest, by its own clock, has flushed what it has acknowledged.
    fn wait_for_a_flush(&mut self) {
        self.kept.set(Kept::Before(monotonic_ns()));
        let mut client = Client::connect(self.machine.web.addresses()[0]);
        let until_us = guest_us(&mut client) + FLUSHED_AFTER_US;
        while guest_us(&mut client) < until_us {
            self.machine.pass(LOOK_MS);
        }
    }

    fn strike(&mut self) {
        let [holder, backup] = self.sides;
        let of = |side: Side| if side == Side::Primary { holder } else { backup };
        let (web, generation) = (&mut self.machine.web, self.machine.generation);
        let mut may_be_late = |count| {
            self.course.late_allowed.insert(generation, count);
        };
        if self.plan.point().is_some() {
            web.kill(holder);
            return;
        }
        match self.plan.strike.fault {
            Fault::Kill(side) => web.kill(of(side)),
            Fault::KillBoth => [holder, backup].into_iter().for_each(|side| web.kill(side)),
            Fault::Stop(side) => {
                if side == Side::Primary {
                    may_be_late(1);
                }
                web.stop(of(side), self.plan.lasts_ms);
            }
            Fault::StopBoth => {
                may_be_late(1);
                web.stop(holder, self.plan.lasts_ms);
                web.stop(backup, self.plan.other_lasts_ms);
            }
            Fault::KillWhileOtherStopped(side) => {
                web.stop(of(side.other()), self.plan.lasts_ms);
                web.kill(of(side));
            }
            Fault::Close | Fault::Blackhole(None) | Fault::Damage(Side::Backup) => {
                for wire in self.machine.wires.newest() {
                    match self.plan.strike.fault {
                        Fault::Close => wire.close(),
                        Fault::Damage(_) => wire.damage(Toward::Backup),
                        _ => wire.cut(),
                    }
                }
                if self.plan.strike.fault == Fault::Close {
                    may_be_late(u64::MAX);
                }
            }
            other => panic!("a machine with a disk, and {other}"),
        }
    }

    /// Waits until it is clear who goes on, or that nobody does.
    fn settle(&mut self) {
        let Self {
            machine,
            plan,
            course,
            sides,
            ..
        } = self;
        let (sides, before) = (*sides, machine.generation);
        let mut stopped = false;
        machine.wait("it becomes clear who goes on", |machine| {
            if !stopped && machine.web.stopped_by_themselves().contains(&sides[1]) {
                stopped = true;
                machine.web.go_on_after(sides[1], plan.lasts_ms);
            }
            machine.look();
            if machine.web.running().is_empty() {
                course.gone = true;
                return true;
            }
            let has_parted = !plan.strike.parts() || machine.generation > before;
            has_parted && machine.goes_on(before, sides) && machine.web.is_settled()
        });
    }
}

/// The guest's clock.
fn guest_us(client: &mut Client) -> u64 {
    let reply = client.call(&["TIME"]);
    let Reply::Array(parts) = &reply else {
        panic!("TIME was answered {reply:?}");
    };
    let parts: Vec<u64> = parts
        .iter()
        .filter_map(|part| match part {
            Reply::Bulk(Some(text)) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        })
        .collect();
    let [seconds, us] = parts[..] else {
        panic!("TIME was answered {reply:?}");
    };
    seconds * 1_000_000 + us
}
