//! A fake for tests: a store in memory, which answers at once.

use std::collections::BTreeMap;
use std::future::{poll_fn, ready};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use lockstep_generation::Generation;

use crate::store::{Asked, MachineStore, Store};
use crate::{
    Backup, Claim, Ended, Line, MachineId, MachineName, Party, Process, Seen, StoreError, Switchover, Verdict,
};

/// A store whose content ends with its last clone.
#[derive(Clone, Debug, Default)]
pub struct FakeStore(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    identity: Option<[u8; 16]>,
    machines: BTreeMap<MachineName, Remembered>,
    hangs: bool,
    in_steps: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Remembered {
    claims: BTreeMap<Generation, Claim>,
    seen: BTreeMap<Generation, Seen>,
    backups: BTreeMap<(Generation, [u8; 16]), Backup>,
    asked: BTreeMap<Generation, Switchover>,
    ended: BTreeMap<Generation, Ended>,
}

/// A machine's part of a [`FakeStore`].
#[derive(Clone, Debug)]
pub struct FakeMachine {
    store: FakeStore,
    name: MachineName,
}

impl FakeStore {
    /// From now on questions are never answered, and change nothing; or are answered again.
    pub fn hang(&self, hangs: bool) {
        self.content().hangs = hangs;
    }

    /// From now on a question is carried out when its answer is polled for the second time: who
    /// polls decides what happens between two questions.
    pub fn answer_in_steps(&self) {
        self.content().in_steps = true;
    }

    /// The machine's part, for those who cannot wait for a future.
    #[must_use]
    pub fn machine(&self, name: &MachineName) -> FakeMachine {
        self.content().machines.entry(name.clone()).or_default();
        FakeMachine {
            store: self.clone(),
            name: name.clone(),
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Content) -> Result<T, StoreError> + Send + 'static,
    ) -> Asked<T> {
        let mut content = self.content();
        if content.hangs {
            return Box::pin(std::future::pending());
        }
        if !content.in_steps {
            return Box::pin(ready(question(&mut content)));
        }
        let store = self.clone();
        Box::pin(async move {
            step().await;
            question(&mut store.content())
        })
    }
}

/// Is ready when it is polled for the second time.
pub fn step() -> impl Future<Output = ()> + Send {
    let mut polled = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

impl Store for FakeStore {
    fn place(&self) -> String {
        "in memory".to_owned()
    }

    fn identity(&self, fresh: [u8; 16]) -> Asked<[u8; 16]> {
        self.answer(move |content| Ok(*content.identity.get_or_insert(fresh)))
    }

    fn names(&self) -> Asked<Vec<MachineName>> {
        self.answer(|content| Ok(content.machines.keys().cloned().collect()))
    }

    fn open(&self, name: &MachineName) -> Asked<Arc<dyn MachineStore>> {
        let machine = FakeMachine {
            store: self.clone(),
            name: name.clone(),
        };
        self.answer(move |content| {
            content.machines.entry(machine.name.clone()).or_default();
            Ok(Arc::new(machine) as Arc<dyn MachineStore>)
        })
    }

    fn expect(&self, name: &MachineName) -> Arc<dyn MachineStore> {
        Arc::new(FakeMachine {
            store: self.clone(),
            name: name.clone(),
        })
    }

    fn find(&self, name: &MachineName) -> Asked<Option<Arc<dyn MachineStore>>> {
        let machine = FakeMachine {
            store: self.clone(),
            name: name.clone(),
        };
        self.answer(move |content| {
            let found = content.machines.contains_key(&machine.name);
            Ok(found.then(|| Arc::new(machine) as Arc<dyn MachineStore>))
        })
    }
}

impl FakeMachine {
    /// As [`MachineStore::claim`], at once.
    #[must_use]
    pub fn claim_now(&self, claim: &Claim) -> Verdict {
        remembered(&mut self.store.content(), &self.name).claim(claim)
    }

    /// The claim of `generation`.
    #[must_use]
    pub fn winner(&self, generation: Generation) -> Option<Claim> {
        let content = self.store.content();
        content.machines.get(&self.name)?.claims.get(&generation).cloned()
    }

    fn ask<T: Send + 'static>(&self, work: impl FnOnce(&mut Remembered) -> T + Send + 'static) -> Asked<T> {
        let name = self.name.clone();
        self.store.answer(move |content| {
            if content.machines.contains_key(&name) {
                return Ok(work(remembered(content, &name)));
            }
            let mut fresh = Remembered::default();
            let answer = work(&mut fresh);
            // Reading makes nothing.
            if fresh != Remembered::default() {
                content.machines.insert(name, fresh);
            }
            Ok(answer)
        })
    }
}

impl Remembered {
    fn claim(&mut self, claim: &Claim) -> Verdict {
        let winner = self
            .claims
            .entry(claim.generation)
            .or_insert_with(|| claim.clone());
        claim.verdict(winner.clone())
    }
}

fn remembered<'a>(content: &'a mut Content, name: &MachineName) -> &'a mut Remembered {
    content.machines.entry(name.clone()).or_default()
}

impl MachineStore for FakeMachine {
    fn folder(&self) -> Option<PathBuf> {
        None
    }

    fn claim(&self, claim: &Claim) -> Asked<Verdict> {
        let claim = claim.clone();
        self.ask(move |machine| machine.claim(&claim))
    }

    fn prepare(&self, _: &Claim) -> Asked<()> {
        self.ask(|_| ())
    }

    fn forget_prepared(&self, _: [u8; 16]) -> Asked<()> {
        self.ask(|_| ())
    }

    fn newest(&self) -> Asked<Option<Claim>> {
        self.ask(|machine| machine.claims.values().next_back().cloned())
    }

    fn history(&self) -> Asked<Vec<Claim>> {
        self.ask(|machine| machine.claims.values().cloned().collect())
    }

    fn put_seen(&self, seen: &Seen) -> Asked<()> {
        let seen = seen.clone();
        self.ask(|machine| drop(machine.seen.insert(seen.generation(), seen)))
    }

    fn seen(&self, generation: Generation) -> Asked<Option<Seen>> {
        self.ask(move |machine| machine.seen.get(&generation).cloned())
    }

    fn put_backup(&self, backup: &Backup) -> Asked<()> {
        let backup = backup.clone();
        let key = (backup.generation, backup.party.id);
        self.ask(move |machine| drop(machine.backups.insert(key, backup)))
    }

    fn remove_backup(&self, generation: Generation, party: [u8; 16]) -> Asked<()> {
        self.ask(move |machine| drop(machine.backups.remove(&(generation, party))))
    }

    fn backups(&self, generation: Generation) -> Asked<Vec<Backup>> {
        let range = (generation, [0; 16])..=(generation, [u8::MAX; 16]);
        self.ask(|machine| {
            machine
                .backups
                .range(range)
                .map(|(_, backup)| backup.clone())
                .collect()
        })
    }

    fn ask_switchover(&self, asked: &Switchover) -> Asked<Switchover> {
        let asked = asked.clone();
        self.ask(|machine| machine.asked.entry(asked.generation).or_insert(asked).clone())
    }

    fn switchover(&self, generation: Generation) -> Asked<Option<Switchover>> {
        self.ask(move |machine| machine.asked.get(&generation).cloned())
    }

    fn remove_switchover(&self, generation: Generation) -> Asked<()> {
        self.ask(move |machine| drop(machine.asked.remove(&generation)))
    }

    fn put_ended(&self, ended: &Ended) -> Asked<()> {
        let ended = ended.clone();
        self.ask(|machine| {
            machine.ended.entry(ended.generation).or_insert(ended);
        })
    }

    fn ended(&self, generation: Generation) -> Asked<Option<Ended>> {
        self.ask(move |machine| machine.ended.get(&generation).cloned())
    }
}

/// A party for tests, told apart by its number.
#[must_use]
pub fn party(number: u8) -> Party {
    Party {
        id: [number; 16],
        label: Line::shortened(&format!("party {number}")),
        host: Line::shortened("example"),
        boot: [7; 16],
        process: Process {
            id: number.into(),
            ..Process::default()
        },
        address: Line::exact(&format!("unix:/run/{number}")),
        written_unix_s: 1_700_000_000,
    }
}

/// A claim for tests, of one machine.
#[must_use]
pub fn claim(generation: Generation, number: u8) -> Claim {
    Claim {
        generation,
        machine: MachineId([9; 16]),
        party: party(number),
    }
}
