//! One round of a chain.

use super::bridge::Bridge;
use super::judge::{Course, judge};
use super::plan::{Link, Loss, Plan, Trouble};
use crate::campaign::clients::Clients;
use crate::campaign::course::Standing;
use crate::campaign::evidence::Evidence;
use crate::campaign::outcome::{Outcome, Points};
use crate::campaign::round::{read_the_survivor, text_of};
use crate::campaign::web::{Starting, Web};
use crate::harness::proxy::Toward;
use crate::simulator::rng::mix;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(3);
/// Longest time until a newcomer is armed, or until it is clear who goes on.
const PATIENCE: Duration = Duration::from_secs(40);
/// Answers to each client before the first loss, and after each.
const ANSWERS: u64 = 10;
/// Newcomers of one link that may be started: the first, those that the plan kills, and some that
/// are lost because the host is busy.
const NEWCOMERS_MAX: usize = 4;

/// A chain while it runs.
struct Chain<'a> {
    web: Web,
    plan: &'a Plan,
    clients: &'a Clients,
    course: &'a mut Course,
    holder: usize,
    generation: u32,
    bridges: Vec<(usize, Bridge)>,
    /// Of each side: how often it had listened when its newest bridge was opened.
    listened: BTreeMap<usize, usize>,
    /// Of each side: how often it had armed a newcomer when its newest bridge was closed.
    armed: BTreeMap<usize, usize>,
}

/// Runs the chain of `plan` and judges it. `mutant`: a defect that all sides are to have.
#[must_use]
pub fn run(plan: &Plan, mutant: Option<&str>) -> (Outcome, Option<Evidence>) {
    let began = Instant::now();
    let mut course = Course::default();
    let mut web = Web::new(1, mutant);
    web.start(&Starting::replica(holder_point(plan, 0)));
    let listening = catch_unwind(AssertUnwindSafe(|| web.sides[0].replica.wait_for("listening")));
    if let Err(why) = listening {
        let why = format!("the machine did not begin: {}", text_of(&*why));
        return (Outcome::failed(plan.title(), &why), None);
    }
    let address = web.addresses()[0];
    let clients = Clients::start(address, plan.clients, mix(plan.seed) ^ plan.round);
    let mut chain = Chain {
        web,
        plan,
        clients: &clients,
        course: &mut course,
        holder: 0,
        generation: 1,
        bridges: Vec::new(),
        listened: BTreeMap::new(),
        armed: BTreeMap::new(),
    };
    let driven = catch_unwind(AssertUnwindSafe(|| chain.run()));
    let Chain {
        mut web,
        bridges,
        holder,
        generation,
        ..
    } = chain;
    course.failures.extend(driven.err().map(|why| text_of(&*why)));
    let serves = course.failures.is_empty() && !course.gone;
    let accounts = clients.stop(!serves);
    let read = serves.then(|| read_the_survivor(address, plan.clients, &mut course.failures));
    let (held, last) = read.unwrap_or_default();
    let ended = catch_unwind(AssertUnwindSafe(|| end(&mut web, holder, &mut course)));
    course.failures.extend(ended.err().map(|why| text_of(&*why)));
    let wires = bridges
        .iter()
        .flat_map(|(_, bridge)| {
            bridge
                .wires()
                .into_iter()
                .map(|wire| (bridge.generation, wire.traffic()))
        })
        .collect();
    let evidence = Evidence {
        accounts,
        last,
        held,
        frames: web.switches[0].frames(),
        said: web.said(),
        files: web.files(),
        wires,
        ..Evidence::default()
    };
    course.points = Points {
        planned: plan.points(),
        met: web.points_met(),
    };
    let standing = serves.then_some(Standing::Healed(generation));
    let standing = standing.or(course.gone.then_some(Standing::Down));
    let outcome = judge(plan, course, standing, &web.claims(), &evidence, began.elapsed());
    (outcome, Some(evidence))
}

/// The point of the side that holds the machine in link `number`: it is told when it starts.
fn holder_point(plan: &Plan, number: usize) -> Option<String> {
    let link = plan.links.get(number)?;
    link.trouble.holder_point(link.ordinal)
}

impl Chain<'_> {
    fn run(&mut self) {
        self.look();
        for (number, link) in self.plan.links.iter().enumerate() {
            let backup = self.join(number, link);
            let armed = (self.holder, self.generation);
            self.served();
            if !self.lose(link, armed, backup) {
                return;
            }
            self.served();
        }
    }

    /// Keeps what has to be kept up all the time: sides go on whose time has come, and each holder
    /// has its bridge.
    fn look(&mut self) {
        self.web.look_at_the_time();
        // A point is met once. A program that begins again meets it again, and goes on at once.
        for number in self.web.stopped_by_themselves() {
            self.web.go_on_after(number, 0);
        }
        self.look_at_the_claims();
        if !self.web.is_running(self.holder) {
            return;
        }
        let armed = self.web.count(self.holder, "armed");
        let known = self.armed.entry(self.holder).or_default();
        if armed > *known {
            *known = armed;
            self.close_bridge();
        }
        let holder = self.holder;
        let listened = self.web.count(holder, "listening");
        let known = self.listened.entry(holder).or_default();
        if listened > *known {
            *known = listened;
            // It listens for the generation that it has claimed before, maybe since the look above.
            self.look_at_the_claims();
            let path = self.web.sides[holder].channel.clone();
            let bridge = Bridge::open(&path, listened, self.generation);
            self.bridges.push((holder, bridge));
        }
    }

    fn look_at_the_claims(&mut self) {
        if let Some((holder, claim)) = self.web.holder()
            && claim.generation > self.generation
        {
            (self.holder, self.generation) = (holder, claim.generation);
        }
    }

    fn wait(&mut self, what: &str, mut found: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !found(self) {
            assert!(Instant::now() < deadline, "{what}: it does not come to that");
            assert!(!self.clients.any_broken(), "{what}: a client's connection broke");
            thread::sleep(LOOK);
        }
    }

    /// Waits until each client has had some more answers.
    fn served(&mut self) {
        let enough = self.clients.fewest_answers() + ANSWERS;
        self.wait("clients are served", |chain| {
            chain.look();
            chain.clients.fewest_answers() >= enough
        });
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
        let armed = self.web.count(self.holder, "armed");
        let mut newcomer = self.web.start(&Starting::replica(point));
        let (mut started, mut troubled, mut stopped) = (1, false, false);
        let (mut since, mut armed_before) = ((self.holder, self.generation), armed);
        self.wait(&format!("link {number}: a newcomer is armed"), |chain| {
            // Before anything goes on by itself.
            if !stopped && chain.stands_at_its_point(newcomer, link) {
                stopped = true;
                chain.web.go_on_after(newcomer, link.trouble_ms);
            }
            if matches!(link.trouble, Trouble::StopHolder(_))
                && chain.web.stopped_by_themselves().contains(&chain.holder)
            {
                let holder = chain.holder;
                chain.web.go_on_after(holder, link.trouble_ms);
            }
            chain.look();
            if !troubled && chain.trouble_the_channel(link) {
                troubled = true;
            }
            if (chain.holder, chain.generation) != since {
                // The holder went on alone meanwhile, or lost to a newcomer that was armed.
                chain.course.early |= matches!(link.trouble, Trouble::None);
                since = (chain.holder, chain.generation);
                armed_before = chain.web.count(chain.holder, "armed");
            }
            if newcomer == chain.holder || !chain.web.is_running(newcomer) {
                assert!(
                    started < NEWCOMERS_MAX,
                    "newcomers come to nothing: {}",
                    chain.account()
                );
                started += 1;
                newcomer = chain.web.start(&Starting::replica(None));
            }
            chain.web.count(chain.holder, "armed") > armed_before
                && chain.web.count(newcomer, "armed") > 0
                && chain.web.is_running(newcomer)
        });
        newcomer
    }

    /// True if the newcomer has stopped itself where the plan says it. Points of a takeover come
    /// later.
    fn stands_at_its_point(&mut self, newcomer: usize, link: &Link) -> bool {
        let is_joining = matches!(link.trouble, Trouble::StopNewcomer(_));
        is_joining && self.web.stopped_by_themselves().contains(&newcomer)
    }

    /// Does to the channel what the link says, once enough has come. Says whether it is done.
    fn trouble_the_channel(&mut self, link: &Link) -> bool {
        if !matches!(
            link.trouble,
            Trouble::CloseChannel | Trouble::DamageChannel | Trouble::CutChannel
        ) {
            return true;
        }
        let Some(wire) = self.bridges.last().and_then(|(_, bridge)| bridge.wires().pop()) else {
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

    /// One of the two that were armed in `generation` is lost; the other goes on in the next. Says
    /// whether there is a machine left.
    fn lose(&mut self, link: &Link, (holder, generation): (usize, u32), backup: usize) -> bool {
        let protected = Instant::now() + Duration::from_millis(link.protected_ms);
        while Instant::now() < protected {
            self.look();
            thread::sleep(LOOK);
        }
        let newest = self.web.claims().pop().map_or(0, |claim| claim.generation);
        if newest > generation {
            // It has come about by itself, or the trouble came with the arming: a link as well.
            self.course.early |= matches!(link.trouble, Trouble::None);
        } else {
            self.course.struck.insert(generation);
            self.strike(link, (holder, generation), backup);
        }
        let mut stopped = false;
        self.wait("it becomes clear who goes on", |chain| {
            if matches!(link.trouble, Trouble::StopTakingOver(_))
                && !stopped
                && chain.web.stopped_by_themselves().contains(&backup)
            {
                stopped = true;
                chain.web.go_on_after(backup, link.trouble_ms);
            }
            chain.look();
            if chain.generation > generation
                && !chain.web.is_running(chain.holder)
                && !chain.alive(holder, backup)
            {
                chain.course.early = true;
                chain.course.gone = true;
                return true;
            }
            chain.generation > generation && chain.acts(chain.holder) && chain.web.is_settled()
        });
        if self.course.gone {
            return false;
        }
        // Whoever lost ends by itself.
        let loser = if self.holder == backup { holder } else { backup };
        self.wait("who has lost ends", |chain| {
            chain.look();
            !chain.web.is_running(loser)
        });
        true
    }

    fn alive(&mut self, one: usize, other: usize) -> bool {
        self.web.is_running(one) || self.web.is_running(other)
    }

    fn strike(&mut self, link: &Link, (holder, generation): (usize, u32), backup: usize) {
        match link.loss {
            Loss::KillHolder => self.web.kill(holder),
            Loss::KillBackup => self.web.kill(backup),
            Loss::StopHolder => {
                self.course.late_allowed.insert(generation, 1);
                self.web.stop(holder, link.loss_ms);
            }
            Loss::StopBackup => self.web.stop(backup, link.loss_ms),
            Loss::Cut | Loss::Close => {
                let wires = self
                    .bridges
                    .last()
                    .map(|(_, bridge)| bridge.wires())
                    .unwrap_or_default();
                for wire in wires {
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

    /// True if a side acts alone, in the generation that it holds.
    fn acts(&self, number: usize) -> bool {
        let events = self.web.sides[number].replica.events();
        events.iter().any(|line| {
            (line["event"] == "live" || line["event"] == "solo") && line["generation"] == self.generation
        })
    }

    /// The holder may listen where its bridge is.
    fn close_bridge(&mut self) {
        let path = self.web.sides[self.holder].channel.clone();
        for (holder, bridge) in &self.bridges {
            if *holder == self.holder {
                bridge.close(&path);
            }
        }
    }

    fn account(&self) -> String {
        let accounts = self.web.sides.iter().map(|side| side.replica.account());
        accounts.collect()
    }
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
