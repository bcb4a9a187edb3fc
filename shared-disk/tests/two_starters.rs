//! Starters, newcomers and a holder in any order, with death between any two steps, never make two
//! machines.
//!
//! Each process is a future over the fake store, polled a step at a time in an order drawn from a
//! seed; killing one is dropping it. What it runs to read and to decide is what a replica runs.
//! `LOCKSTEP_STARTERS_SEED` gives one seed, `LOCKSTEP_STARTERS_RUNS` their number.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use lockstep_shared_disk::decision::{Decision, Reading, Starter, read};
use lockstep_shared_disk::fake::{FakeMachine, FakeStore, party, step};
use lockstep_shared_disk::{Backup, Claim, Ended, Generation, Line, MachineId, MachineStore, Party, Verdict};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

const RUNS: u64 = 100_000;
const STEPS: u32 = 160;
const SLOTS: usize = 3;
/// Processes that one run may start: numbers of parties.
const PROCESSES_MAX: u8 = 12;

/// State of a process, as the others and the judge see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Starting,
    /// Speaks to the world.
    Acting {
        generation: Generation,
        machine: MachineId,
        newcomer: Option<u8>,
        armed: bool,
    },
    /// Has a state, and is not armed.
    Loaded,
    /// May take over.
    Armed {
        machine: MachineId,
        next: Generation,
    },
    /// Asks who goes on, and says nothing.
    Claiming {
        machine: MachineId,
        next: Generation,
    },
    Gone,
}

/// Processes and hosts. Shared with the proof of death, which must be `Send`.
#[derive(Debug, Default)]
struct Hosts {
    roles: BTreeMap<u8, Role>,
    host: BTreeMap<u8, u8>,
    ended: Vec<MachineId>,
    reached: Reached,
}

/// Number of times that each thing happened: a thing that never happens proves nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    begun: u64,
    after_death: u64,
    after_end: u64,
    taken_over: u64,
    lost_claims: u64,
    waited_for_take_over: u64,
}

type World = Arc<Mutex<Hosts>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    None,
    /// Newcomers are read before the holder's death is proven.
    BackupsFirst,
    /// A holder's death is enough.
    ForgetBackups,
    /// A newcomer is armed before it is recorded.
    ArmedUnrecorded,
}

/// Numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

struct Process {
    number: u8,
    world: World,
    machine: FakeMachine,
    random: Rc<RefCell<Random>>,
    mutant: Mutant,
}

impl Process {
    fn role(&self, number: u8) -> Role {
        self.world.lock().unwrap().roles[&number]
    }

    fn set(&self, number: u8, role: Role) {
        self.world.lock().unwrap().roles.insert(number, role);
    }

    fn once_in(&self, bound: u64) -> bool {
        self.random.borrow_mut().below(bound) == 0
    }

    fn reach(&self, mark: impl FnOnce(&mut Reached)) {
        mark(&mut self.world.lock().unwrap().reached);
    }

    async fn life(self) {
        let mut starter = Starter::new(party(self.number).id, false);
        loop {
            let reading = self.read().await;
            match starter.decide(0, &reading) {
                Decision::Claim { generation, machine } => {
                    let fresh = MachineId([self.number.wrapping_add(100); 16]);
                    let machine = machine.unwrap_or(fresh);
                    if self.claimed(generation, machine).await {
                        self.begun(&reading, generation, machine);
                        return self.act(generation, machine).await;
                    }
                    self.reach(|reached| reached.lost_claims += 1);
                }
                Decision::Join { holder, .. } => {
                    if let Some((generation, machine)) = self.join(&holder).await {
                        return self.act(generation, machine).await;
                    }
                    if self.role(self.number) == Role::Gone {
                        return;
                    }
                }
                Decision::Wait(_) => {
                    self.reach(|reached| reached.waited_for_take_over += 1);
                    step().await;
                }
                Decision::Refuse(why) => panic!("{why}"),
            }
        }
    }

    async fn read(&self) -> Reading {
        let world = self.world.clone();
        let own = world.lock().unwrap().host[&self.number];
        let is_dead = move |party: &Party| {
            let (number, world) = (party.id[0], world.lock().unwrap());
            world.host[&number] == own && world.roles[&number] == Role::Gone
        };
        let early = if self.mutant == Mutant::BackupsFirst {
            let newest = self.machine.newest().await.unwrap();
            match newest {
                Some(claim) => Some((
                    claim.generation,
                    self.machine.backups(claim.generation).await.unwrap(),
                )),
                None => None,
            }
        } else {
            None
        };
        let mut reading = read(&self.machine, &is_dead).await.unwrap();
        if let (Some((generation, backups)), Some(newest)) = (early, &reading.newest)
            && newest.generation == generation
        {
            let backups = backups.into_iter().map(|backup| {
                let dead = is_dead(&backup.party);
                (backup, dead)
            });
            reading.backups = backups.collect();
        }
        if self.mutant == Mutant::ForgetBackups {
            reading.backups.clear();
        }
        reading
    }

    async fn claimed(&self, generation: Generation, machine: MachineId) -> bool {
        let claim = Claim {
            generation,
            machine,
            party: party(self.number),
        };
        self.machine.claim(&claim).await.unwrap() == Verdict::Won
    }

    /// A machine was begun, or begun again by the same process.
    fn begun(&self, reading: &Reading, generation: Generation, machine: MachineId) {
        let mut world = self.world.lock().unwrap();
        world.reached.begun += 1;
        world.reached.after_end += u64::from(reading.ended.is_some());
        world.reached.after_death += u64::from(reading.holder_dead && reading.ended.is_none());
        let ended = world.ended.clone();
        for (number, role) in &world.roles {
            let other = match *role {
                Role::Acting { machine, .. } => Some(machine),
                // It has lost already where somebody else has an earlier generation than the one
                // that was won now.
                Role::Claiming { machine, next } | Role::Armed { machine, next } => {
                    let winner = self.machine.winner(next).map(|claim| claim.party.id[0]);
                    let lost = next < generation && winner != Some(*number);
                    (!lost).then_some(machine)
                }
                Role::Starting | Role::Loaded | Role::Gone => None,
            };
            if let Some(other) = other {
                let over = other == machine || ended.contains(&other);
                assert!(over, "{machine} is begun while {number} has {other}: {world:?}");
            }
        }
    }

    /// Joins, and takes over where it can: then in which generation.
    async fn join(&self, holder: &Claim) -> Option<(Generation, MachineId)> {
        let number = holder.party.id[0];
        let backup = Backup {
            generation: holder.generation,
            party: party(self.number),
        };
        if self.mutant != Mutant::ArmedUnrecorded {
            self.machine.put_backup(&backup).await.unwrap();
        }
        // Loaded is said and taken in one step, because a connection is there or not.
        if !self.attach(number, holder) {
            step().await;
            return None;
        }
        loop {
            step().await;
            match (self.role(self.number), self.role(number)) {
                (Role::Loaded, Role::Acting { newcomer, .. }) if newcomer == Some(self.number) => {}
                (Role::Armed { .. }, Role::Acting { newcomer, .. }) if newcomer == Some(self.number) => {
                    if self.once_in(12) {
                        // Silence: the holder's lease is over before this side claims.
                        self.suspect(number);
                        break;
                    }
                }
                (Role::Armed { .. }, _) => break,
                _ => {
                    self.set(self.number, Role::Starting);
                    return None;
                }
            }
        }
        let machine = holder.machine;
        let generation = holder.generation.next().unwrap();
        let next = generation;
        self.set(self.number, Role::Claiming { machine, next });
        if self.claimed(generation, machine).await {
            self.reach(|reached| reached.taken_over += 1);
            return Some((generation, machine));
        }
        self.set(self.number, Role::Gone);
        None
    }

    fn attach(&self, number: u8, holder: &Claim) -> bool {
        let mut world = self.world.lock().unwrap();
        match world.roles.get_mut(&number) {
            Some(Role::Acting {
                generation, newcomer, ..
            }) if *generation == holder.generation && newcomer.is_none() => {
                *newcomer = Some(self.number);
                world.roles.insert(self.number, Role::Loaded);
                true
            }
            _ => false,
        }
    }

    fn suspect(&self, number: u8) {
        let mut world = self.world.lock().unwrap();
        if let Some(role) = world.roles.get_mut(&number)
            && let Role::Acting {
                machine, generation, ..
            } = *role
        {
            let next = generation.next().unwrap();
            *role = Role::Claiming { machine, next };
        }
    }

    async fn act(&self, mut generation: Generation, machine: MachineId) {
        loop {
            let alone = Role::Acting {
                generation,
                machine,
                newcomer: None,
                armed: false,
            };
            self.set(self.number, alone);
            if !self.run().await {
                return self.end(generation, machine).await;
            }
            // The backup is silent, or is about to claim.
            generation = generation.next().unwrap();
            let next = generation;
            self.set(self.number, Role::Claiming { machine, next });
            if !self.claimed(generation, machine).await {
                self.set(self.number, Role::Gone);
                return;
            }
        }
    }

    /// Runs the guest: true when this side must claim, false when the guest has ended.
    async fn run(&self) -> bool {
        loop {
            step().await;
            let mut world = self.world.lock().unwrap();
            let role = world.roles[&self.number];
            let Role::Acting {
                generation,
                machine,
                newcomer,
                armed,
            } = role
            else {
                return true;
            };
            let lost = newcomer
                .is_some_and(|number| !matches!(world.roles[&number], Role::Loaded | Role::Armed { .. }));
            match (newcomer, armed) {
                (Some(_), true) if lost => return true,
                (Some(_), false) if lost => {
                    if let Some(Role::Acting { newcomer, .. }) = world.roles.get_mut(&self.number) {
                        *newcomer = None;
                    }
                }
                (Some(number), false) => {
                    let holder = self.number;
                    let next = generation.next().unwrap();
                    world.roles.insert(number, Role::Armed { machine, next });
                    if let Some(Role::Acting { armed, .. }) = world.roles.get_mut(&holder) {
                        *armed = true;
                    }
                }
                _ => {}
            }
            drop(world);
            if self.once_in(40) {
                return false;
            }
        }
    }

    async fn end(&self, generation: Generation, machine: MachineId) {
        self.world.lock().unwrap().ended.push(machine);
        let ended = Ended {
            generation,
            machine,
            how: Line::shortened("powered off"),
            at_unix_s: 0,
        };
        self.machine.put_ended(&ended).await.unwrap();
        self.set(self.number, Role::Gone);
    }
}

type Life = Pin<Box<dyn Future<Output = ()>>>;

/// Runs one seed, and gives what was reached.
fn run(seed: u64, mutant: Mutant) -> Reached {
    let random = Rc::new(RefCell::new(Random(seed)));
    let world = World::default();
    let store = FakeStore::default();
    let machine = store.machine(&"web".parse().unwrap());
    store.answer_in_steps();
    let mut lives: Vec<Option<(u8, Life)>> = (0..SLOTS).map(|_| None).collect();
    let mut started = 0;
    for _ in 0..STEPS {
        let (slot, chance) = {
            let mut random = random.borrow_mut();
            (random.below(SLOTS as u64) as usize, random.below(20))
        };
        let Some((number, life)) = &mut lives[slot] else {
            if started < PROCESSES_MAX {
                started += 1;
                let mut hosts = world.lock().unwrap();
                hosts.roles.insert(started, Role::Starting);
                // Two of three slots are on one host.
                hosts.host.insert(started, u8::from(slot == 2));
                drop(hosts);
                let process = Process {
                    number: started,
                    world: world.clone(),
                    machine: machine.clone(),
                    random: random.clone(),
                    mutant,
                };
                lives[slot] = Some((started, Box::pin(process.life())));
            }
            continue;
        };
        let over =
            chance == 0 || life.as_mut().poll(&mut Context::from_waker(Waker::noop())) != Poll::Pending;
        if over {
            world.lock().unwrap().roles.insert(*number, Role::Gone);
            lives[slot] = None;
        }
        let world = world.lock().unwrap();
        let acting = world
            .roles
            .values()
            .filter(|role| matches!(role, Role::Acting { .. }));
        assert!(acting.count() <= 1, "two act: {world:?}");
    }
    world.lock().unwrap().reached
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The seed of the first run in which two machines were made.
fn first_failure(runs: std::ops::Range<u64>, mutant: Mutant) -> Option<u64> {
    let quiet = |seed: &u64| std::panic::catch_unwind(|| run(*seed, mutant)).is_err();
    runs.into_iter().find(quiet)
}

#[test]
fn no_order_of_steps_and_deaths_makes_two_machines() {
    let seeds = match number_from("LOCKSTEP_STARTERS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from("LOCKSTEP_STARTERS_RUNS").unwrap_or(RUNS),
    };
    println!("seeds {seeds:?}");
    let mut all = Reached::default();
    for seed in seeds.clone() {
        let reached = std::panic::catch_unwind(|| run(seed, Mutant::None));
        let reached = reached.unwrap_or_else(|_| panic!("LOCKSTEP_STARTERS_SEED={seed} fails"));
        all.begun += reached.begun;
        all.after_death += reached.after_death;
        all.after_end += reached.after_end;
        all.taken_over += reached.taken_over;
        all.lost_claims += reached.lost_claims;
        all.waited_for_take_over += reached.waited_for_take_over;
    }
    println!("{all:?}");
    if seeds.end - seeds.start >= RUNS {
        for count in [
            all.after_death,
            all.after_end,
            all.taken_over,
            all.lost_claims,
            all.waited_for_take_over,
        ] {
            assert!(count > 1_000, "{all:?}");
        }
    }
}

#[test]
fn each_mistake_is_found() {
    for mutant in [
        Mutant::BackupsFirst,
        Mutant::ForgetBackups,
        Mutant::ArmedUnrecorded,
    ] {
        let seed = first_failure(0..RUNS, mutant);
        println!("{mutant:?}: seed {seed:?}");
        assert!(seed.is_some(), "{mutant:?} is not found");
    }
}
