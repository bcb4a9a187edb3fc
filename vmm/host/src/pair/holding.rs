//! The holder of a machine at the store while it runs: it keeps signs of life there, with
//! what `lockstep status` shows, looks for a later generation, in which somebody else acts, and for
//! a request to hand the machine over.

use super::follows::Follows;
use super::identity::published::{Disk, Published, Side, shortened};
use super::identity::{Identity, Kept, SECOND, process};
use super::sending::Progress;
use crate::disk::executor::DiskState;
use lockstep_core::machine::memory::PAGE_BYTES;
use lockstep_core::replica::role::{Protection, Statistics};
use lockstep_logging_channel::message::FollowsBy;
use lockstep_logging_channel::{Environment, Generation};
use lockstep_shared_disk::{Line, MachineId, Party, Switchover};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// A replica that is to end within a second gives the record of the machine's end this much of it.
const RECORD_LIMIT: Duration = Duration::from_millis(300);

/// A store that is slower does not say what the holder before has counted: this side has to give
/// signs of life.
const BEFORE_LIMIT: Duration = Duration::from_secs(1);

/// Pause between two questions to the store who the other side is.
const ASK_PAUSE: Duration = Duration::from_secs(1);

/// A machine, as one of its sides keeps it in the store.
pub struct Holding {
    identity: Identity,
    machine: MachineId,
    published: watch::Sender<Published>,
    /// Of the generation that this side holds.
    held: Option<Held>,
    /// The other side, once the store was asked who it is.
    other: watch::Sender<Option<Party>>,
    asked_at: Option<Instant>,
    /// The question to the store, which may hang.
    asking: Option<JoinHandle<()>>,
    /// Reason why no newcomer can connect.
    deaf: Option<String>,
    /// Why the last backup has left, where its replay has diverged, until another one is there.
    diverged: Option<String>,
}

struct Held {
    generation: Generation,
    _seen: Kept,
    _watching: Kept,
    later: mpsc::Receiver<Generation>,
    _listening: Kept,
    asked: mpsc::Receiver<Switchover>,
}

/// Something that the store shows to the holder of a generation.
#[derive(Debug)]
pub enum Noticed {
    /// Somebody holds a later one.
    Later(Generation),
    /// Somebody wants the holder to hand its machine over.
    Asked(Switchover),
}

impl Holding {
    /// A side of `machine`, which holds no generation.
    #[must_use]
    pub fn new(identity: Identity, machine: MachineId) -> Self {
        let published = Published {
            since_unix_s: process::now_unix_s(),
            why_not: Some(why_not(Protection::Alone).to_owned()),
            sides: vec![Side::of(identity.party(), "primary")],
            ..Published::default()
        };
        Self {
            identity,
            machine,
            published: watch::Sender::new(published),
            held: None,
            other: watch::Sender::new(None),
            asked_at: None,
            asking: None,
            deaf: None,
            diverged: None,
        }
    }

    /// Newcomers can connect, or cannot for this reason. Returns true where that is new.
    pub fn listens(&mut self, deaf: Option<&str>) -> bool {
        let is_new = self.deaf.as_deref() != deaf;
        self.deaf = deaf.map(str::to_owned);
        is_new
    }

    /// Another side joins, or is gone: who it is must be asked anew.
    pub fn other_changes(&mut self) {
        (self.other, self.asked_at) = (watch::Sender::new(None), None);
    }

    /// The other side, as it has recorded itself; the store is asked at most once a second until it
    /// says so, and not while a question hangs.
    fn other(&mut self) -> Option<Party> {
        let known = self.other.borrow().clone();
        let Some(held) = self.held.as_ref().filter(|_| known.is_none()) else {
            return known;
        };
        let is_open = |asking: &JoinHandle<()>| !asking.is_finished();
        if self.asked_at.is_some_and(|at| at.elapsed() < ASK_PAUSE)
            || self.asking.as_ref().is_some_and(is_open)
        {
            return None;
        }
        self.asked_at = Some(Instant::now());
        let recorded = self.identity.machine().backups(held.generation);
        let other = self.other.clone();
        self.asking = Some(tokio::spawn(async move {
            let recorded = recorded.await.unwrap_or_default();
            // The newest is the one that joins now: there is room for one at a time.
            let parties = recorded.into_iter().map(|backup| backup.party);
            let living = parties.filter(|party| !process::is_dead(party));
            other.send_replace(living.max_by_key(|party| party.written_unix_s));
        }));
        None
    }

    /// The machine's identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The replay of the other side has differed from the log in `part`. `again`: it joins again.
    /// Gives how often that was so with this machine.
    pub fn diverged(&mut self, part: &Line, again: bool) -> u64 {
        self.diverged = Some(if again {
            format!("the last one's replay differed from the log in its {part}, and it joins again")
        } else {
            format!("the last one's replay differed from the log in its {part}, and it does not join again")
        });
        self.published.send_modify(|published| published.divergences += 1);
        self.published.borrow().divergences
    }

    /// The backup follows so.
    pub fn follows(&self, follows: &Follows) {
        self.published.send_modify(|published| {
            published.mode = Some(follows.by().to_string());
            published.mode_why = follows.why().map(str::to_owned);
        });
    }

    /// A side that joins must have the same as this `environment`.
    pub fn compares(&self, environment: &Environment) {
        let compared = shortened(environment);
        self.published
            .send_modify(|published| published.compared = compared);
    }

    /// This side has won `generation`, and holds it from now on. It goes on with what the holder
    /// before it has counted.
    pub fn take_over(&mut self, generation: Generation) {
        let before = self.held.is_none().then(|| generation.0.checked_sub(1)).flatten();
        let (identity, published) = (self.identity.clone(), self.published.clone());
        self.hold_after(generation, async move {
            let Some(before) = before else { return };
            let seen = identity.machine().seen(Generation(before));
            let Ok(Ok(Some(seen))) = timeout(BEFORE_LIMIT, seen).await else {
                return;
            };
            let before = Published::from_json(seen.status()).unwrap_or_default();
            published.send_modify(|published| {
                published.divergences += before.divergences;
                if published.mode == before.mode && before.mode_why.is_some() {
                    published.mode_why = before.mode_why;
                }
            });
        });
    }

    /// This side holds `generation` from now on.
    pub fn hold(&mut self, generation: Generation) {
        self.hold_after(generation, async {});
    }

    fn hold_after(&mut self, generation: Generation, first: impl Future<Output = ()> + Send + 'static) {
        let published = self.published.subscribe();
        let seen = self.identity.keep_seen(first, generation, published);
        let (watching, later) = self.identity.watch(generation, SECOND);
        let (listening, asked) = self.identity.watch_requests(generation);
        self.held = Some(Held {
            generation,
            _seen: seen,
            _watching: watching,
            later,
            _listening: listening,
            asked,
        });
    }

    /// Waits for what the store shows next. Cancel-safe.
    pub async fn notices(&mut self) -> Noticed {
        let Some(held) = &mut self.held else {
            return std::future::pending().await;
        };
        tokio::select! {
            biased;
            Some(generation) = held.later.recv() => Noticed::Later(generation),
            Some(asked) = held.asked.recv() => Noticed::Asked(asked),
            else => std::future::pending().await,
        }
    }

    /// Forgets a request that nobody can be handed over to.
    pub fn refuse(&self, asked: &Switchover) {
        let forgotten = self.identity.machine().remove_switchover(asked.generation);
        tokio::spawn(async move {
            if let Err(why) = forgotten.await {
                tracing::debug!("the request for a switchover is left in the store: {why}");
            }
        });
    }

    /// Publishes how the machine is. `peer`: where the other side is connected from; `sent`:
    /// progress of the transfer to it.
    pub fn publish(
        &mut self,
        statistics: &Statistics,
        peer: Option<&str>,
        sent: Option<Progress>,
        follows_by: FollowsBy,
    ) {
        let protection = statistics.protection;
        let protected = protection == Protection::Protected;
        let peer = peer.filter(|_| protection != Protection::Alone || sent.is_some());
        let other = peer.map(|peer| {
            let role = if protected { "backup" } else { "newcomer" };
            let side = match self.other() {
                Some(party) => Side::of(&party, role),
                None => Side {
                    role: role.to_owned(),
                    address: Some(peer.to_owned()),
                    ..Side::default()
                },
            };
            Side {
                lag_ms: Some(statistics.lag_ns / 1_000_000),
                ..side
            }
        });
        let sides = std::iter::once(Side::of(self.identity.party(), "primary")).chain(other);
        let (sides, now_unix_s): (Vec<_>, _) = (sides.collect(), process::now_unix_s());
        self.diverged.take_if(|_| protected);
        let alone = why_not(Protection::Alone);
        let why_not = match (sent, &self.deaf, &self.diverged) {
            (Some(sent), ..) => receiving(sent),
            (None, Some(why), _) if protection == Protection::Alone => format!("no backup can join: {why}"),
            (None, None, Some(why)) if protection == Protection::Alone => format!("{alone}: {why}"),
            _ if protection == Protection::CatchingUp => catching_up(follows_by).to_owned(),
            _ => why_not(protection).to_owned(),
        };
        self.published.send_modify(|published| {
            if published.protected != protected {
                published.since_unix_s = now_unix_s;
            }
            published.protected = protected;
            published.why_not = (!protected).then_some(why_not);
            published.sides = sides;
        });
    }

    /// Publishes the state of the machine's disks.
    pub fn publish_disks(&mut self, states: Vec<(String, DiskState)>) {
        let disks = states.into_iter().map(|(name, state)| Disk::of(&name, state));
        let disks: Vec<_> = disks.collect();
        self.published.send_if_modified(|published| {
            let is_new = published.disks != disks;
            published.disks = disks;
            is_new
        });
    }

    /// The machine is at its end in `generation`: the next start begins a new one.
    pub async fn ended(&self, generation: Generation, how: &str) {
        let ended = self.identity.ended(generation, self.machine, how, RECORD_LIMIT);
        ended.await;
    }

    /// Forgets what this side has prepared for a later generation: it ends.
    pub async fn forget_prepared(&self) {
        self.identity.forget_prepared(RECORD_LIMIT).await;
    }
}

/// The state of a machine that is sent to a newcomer.
fn receiving(sent: Progress) -> String {
    let mebibytes = |pages: u64| (pages * PAGE_BYTES) >> 20;
    let Progress { machine: sent, disks } = sent;
    if let Some(disks) = disks.filter(|_| sent.round == 0) {
        return format!(
            "{}: {} of {} MiB of disks compared, {} MiB copied",
            why_not(Protection::Loading),
            disks.compared_bytes >> 20,
            disks.all_bytes >> 20,
            disks.copied_bytes >> 20
        );
    }
    format!(
        "{}: {} MiB of memory sent, {} MiB left in round {}",
        why_not(Protection::Loading),
        mebibytes(sent.pages),
        mebibytes(sent.pages_left),
        sent.round.max(1)
    )
}

fn catching_up(follows_by: FollowsBy) -> &'static str {
    match follows_by {
        FollowsBy::Replay => "a newcomer replays what it has missed",
        FollowsBy::Checkpoints => "a newcomer takes the checkpoints that it has missed",
    }
}

fn why_not(protection: Protection) -> &'static str {
    match protection {
        Protection::Protected => "it is protected",
        Protection::Alone => "no backup has joined",
        Protection::Loading => "a newcomer is receiving the machine",
        Protection::CatchingUp => "a newcomer is catching up",
        Protection::Undecided => "the other side is gone, and it is not decided who goes on",
        Protection::Over => "it is at its end",
    }
}
