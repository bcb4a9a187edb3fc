//! A machine that heals, watched while a round runs: its sides, who holds it in which generation,
//! and the wires to it.

use super::bridge::Bridge;
use crate::campaign::clients::Clients;
use crate::campaign::web::{Starting, Web};
use crate::harness::proxy::Traffic;
use crate::harness::{Process, Proxy, times_reported};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(3);
/// Longest time until a newcomer is armed, or until it is clear who goes on.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two questions for the status.
const STATUS_PAUSE: Duration = Duration::from_millis(200);
/// Newcomers that may be started until one is armed: some are lost because the host is busy.
const NEWCOMERS_MAX: usize = 4;

/// The wires to a machine, of all its holders.
#[derive(Debug, Default)]
pub struct Wires {
    /// The holder of each.
    bridges: Vec<(usize, Bridge)>,
}

impl Wires {
    /// Those to the side that listened last.
    #[must_use]
    pub fn newest(&self) -> Vec<Arc<Proxy>> {
        self.bridges
            .last()
            .map(|(_, bridge)| bridge.wires())
            .unwrap_or_default()
    }

    /// Traffic on all of them, in the generations of their holders.
    #[must_use]
    pub fn traffic(&self) -> Vec<(u32, Traffic)> {
        self.bridges
            .iter()
            .flat_map(|(_, bridge)| {
                bridge
                    .wires()
                    .into_iter()
                    .map(|wire| (bridge.generation, wire.traffic()))
            })
            .collect()
    }
}

/// A machine, and the clients that it serves.
pub struct Machine<'a> {
    /// Its environment.
    pub web: Web,
    /// Its clients.
    pub clients: &'a Clients,
    /// Number of the side that holds it.
    pub holder: usize,
    /// The newest generation that was claimed.
    pub generation: u32,
    /// The wires to it.
    pub wires: Wires,
    /// The side that listened last, and its generation.
    listens: Option<(usize, u32)>,
    /// Of each side: how often it had listened when its newest bridge was opened.
    listened: BTreeMap<usize, usize>,
}

/// Times that a side has listened. Both counts are of one reading of its report: a holder that wakes
/// arms a newcomer, loses it and listens again within milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listened {
    times: usize,
    /// Before it armed a newcomer last: there it listens no more.
    before_it_armed: usize,
}

impl Listened {
    fn by(events: &[Value]) -> Self {
        let armed = events.iter().rposition(|line| line["event"] == "armed");
        Self {
            times: times_reported(events, "listening"),
            before_it_armed: times_reported(&events[..armed.unwrap_or(0)], "listening"),
        }
    }
}

impl<'a> Machine<'a> {
    /// The machine that the first side of `web` has begun.
    #[must_use]
    pub fn new(web: Web, clients: &'a Clients) -> Self {
        Self {
            web,
            clients,
            holder: 0,
            generation: 1,
            wires: Wires::default(),
            listens: None,
            listened: BTreeMap::new(),
        }
    }

    /// Keeps what has to be kept up all the time: sides go on whose time has come, and each holder
    /// has its bridge. A side that has stopped itself goes on at once: a point is met once, and a
    /// program that begins again meets it again.
    pub fn look(&mut self) {
        self.web.look_at_the_time();
        for number in self.web.stopped_by_themselves() {
            self.web.go_on_after(number, 0);
        }
        self.look_at_the_holder();
    }

    /// Finds out who holds it, and gives that side its bridge.
    pub fn look_at_the_holder(&mut self) {
        self.look_at_the_claims();
        if !self.web.is_running(self.holder) {
            return;
        }
        let holder = self.holder;
        let listened = Listened::by(&self.web.sides[holder].replica.events());
        self.close_bridges(listened.before_it_armed);
        let known = self.listened.entry(holder).or_default();
        if listened.times > *known {
            *known = listened.times;
            // It listens for the generation that it has claimed before, maybe since the look above.
            self.look_at_the_claims();
            let path = self.web.sides[holder].channel.clone();
            self.listens = Some((holder, self.generation));
            let bridge = Bridge::open(&path, listened.times, self.generation);
            self.wires.bridges.extend(bridge.map(|bridge| (holder, bridge)));
        }
    }

    fn look_at_the_claims(&mut self) {
        if let Some((holder, claim)) = self.web.holder()
            && claim.generation > self.generation
        {
            (self.holder, self.generation) = (holder, claim.generation);
        }
    }

    /// Waits until `found`.
    ///
    /// # Panics
    /// It does not come to that, or a client's connection breaks before.
    pub fn wait(&mut self, what: &str, mut found: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !found(self) {
            assert!(Instant::now() < deadline, "{what}: it does not come to that");
            assert!(!self.clients.any_broken(), "{what}: a client's connection broke");
            thread::sleep(LOOK);
        }
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, ms: u64) {
        let until = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < until {
            self.look();
            thread::sleep(LOOK);
        }
    }

    /// Waits until each client has had `answers` more.
    pub fn served(&mut self, answers: u64) {
        let enough = self.clients.fewest_answers() + answers;
        self.wait("clients are served", |machine| {
            machine.look();
            machine.clients.fewest_answers() >= enough
        });
    }

    /// Starts a newcomer with this stop point, and waits until it is armed.
    pub fn join(&mut self, point: Option<String>) -> usize {
        let holder = self.holder;
        let armed = self.web.count(holder, "armed");
        let newcomer = self.web.start(&Starting::replica(point));
        self.wait("a newcomer is armed", |machine| {
            machine.look();
            machine.web.count(holder, "armed") > armed && machine.web.count(newcomer, "armed") > 0
        });
        newcomer
    }

    /// Waits until the store says that the machine is protected by two sides that run. Where nobody
    /// is left to join it, a newcomer is started.
    pub fn heal(&mut self) {
        let (mut started, mut asking, mut asked_at) = (0, None::<Process>, Instant::now());
        self.wait("the machine is protected", |machine| {
            machine.look();
            if machine.web.running().len() < 2 && machine.listens() {
                assert!(started < NEWCOMERS_MAX, "nobody joins: {}", machine.account());
                started += 1;
                let _ = machine.web.start(&Starting::replica(None));
            }
            let asked = asking.get_or_insert_with(|| {
                asked_at = Instant::now();
                machine.web.ask_for_status()
            });
            if asked.is_running() || asked_at.elapsed() < STATUS_PAUSE {
                return false;
            }
            let text = asked.wait().stdout;
            asking = None;
            let status: Value = serde_json::from_str(&text).unwrap_or_default();
            status["protected"] == true && status["generation"] == machine.generation
        });
    }

    /// True if the holder listens, and had its bridge if nobody was there before.
    fn listens(&self) -> bool {
        self.listens == Some((self.holder, self.generation))
    }

    /// True if it is clear who goes on from generation `before`: somebody acts in a later one, or
    /// both `sides` are as they were.
    #[must_use]
    pub fn goes_on(&mut self, before: u32, sides: [usize; 2]) -> bool {
        if self.generation > before {
            return self.web.is_running(self.holder) && self.acts(self.holder);
        }
        sides.iter().all(|side| self.web.is_running(*side))
    }

    /// True if a side acts alone, in the generation that it holds.
    #[must_use]
    pub fn acts(&self, number: usize) -> bool {
        self.web.acts(number, self.generation)
    }

    /// The holder may listen where its bridges up to this number are.
    fn close_bridges(&mut self, last: usize) {
        for (holder, bridge) in &self.wires.bridges {
            if *holder == self.holder && bridge.number <= last {
                bridge.close();
            }
        }
    }

    /// Messages and reports of every side, for a round that fails.
    #[must_use]
    pub fn account(&self) -> String {
        let accounts = self.web.sides.iter().map(|side| side.replica.account());
        accounts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listened(events: &[&str]) -> Listened {
        let events: Vec<_> = events.iter().map(|event| json!({ "event": event })).collect();
        Listened::by(&events)
    }

    #[test]
    fn who_listens_again_as_soon_as_it_has_armed_keeps_its_newest_bridge() {
        let began = ["begun", "listening", "newcomer"];
        let [before, armed] = [
            listened(&began),
            listened(&[&began[..], &["armed", "solo", "listening"]].concat()),
        ];
        assert_eq!((before.times, before.before_it_armed), (1, 0));
        assert_eq!((armed.times, armed.before_it_armed), (2, 1));
    }
}
