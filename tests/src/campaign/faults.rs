//! The pair of a round in the hands of its plan: what kills, stops, cuts and takes away, and what
//! undoes it later.

use super::kind::{Fault, Side};
use super::plan::{FAR_BEFORE_MS, FAR_GROWS_MS, FAR_MS, SLOW_BEFORE_MS, SLOW_MS};
use super::stop_point::{REACHED, is_stopped};
use crate::harness::clock::monotonic_ns;
use crate::harness::hosts::{Cable, Hosts};
use crate::harness::proxy::Toward;
use crate::harness::{Pair, Replica};
use nix::sys::signal::Signal;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

const NS_PER_MS: u64 = 1_000_000;

/// What is undone later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undo {
    /// The rest of a fault that has begun.
    Do(Fault),
    Continue(Side),
    Mend,
    BringStorage,
    Plug,
}

/// A pair, what was done to it, and what is still to be undone.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The pair.
    pub pair: Pair,
    /// Where it runs, where each side has a host of its own.
    hosts: Option<&'a Hosts>,
    /// Sides that were killed.
    pub killed: Vec<Side>,
    /// The channel will never be whole again.
    pub channel_is_gone: bool,
    later: Vec<(u64, Undo)>,
}

impl<'a> Subject<'a> {
    /// A pair to which nothing was done yet.
    #[must_use]
    pub fn new(pair: Pair, hosts: Option<&'a Hosts>) -> Self {
        Self {
            pair,
            hosts,
            killed: Vec::new(),
            channel_is_gone: false,
            later: Vec::new(),
        }
    }

    /// A side.
    pub fn side(&mut self, side: Side) -> &mut Replica {
        match side {
            Side::Primary => &mut self.pair.primary,
            Side::Backup => &mut self.pair.backup,
        }
    }

    /// True if a side's process is there, stopped or not.
    pub fn is_running(&mut self, side: Side) -> bool {
        self.side(side).process.is_running()
    }

    /// True if a side has come to its stop point, and stands there or is gone.
    pub fn is_at_its_point(&mut self, side: Side) -> bool {
        let id = self.side(side).process.id();
        let reached = self.side(side).process.stderr().contains(REACHED);
        reached && (is_stopped(id) || !self.is_running(side))
    }

    /// Sends a signal to a side, if it is still there.
    pub fn signal(&mut self, side: Side, signal: Signal) {
        // Looked at first, which also reaps: the number could be another's afterwards.
        if self.is_running(side) {
            self.side(side).process.signal(signal);
        }
    }

    /// Kills a side.
    pub fn kill(&mut self, side: Side) {
        self.signal(side, Signal::SIGKILL);
        self.killed.push(side);
    }

    /// Stops a side, or leaves it stopped, for so long.
    pub fn stop(&mut self, side: Side, ms: u64) {
        self.signal(side, Signal::SIGSTOP);
        self.undo_after(ms, Undo::Continue(side));
    }

    /// Does what `fault` says. What is stopped stays so for `lasts_ms`, the backup of two for
    /// `other_lasts_ms`.
    pub fn apply(&mut self, fault: Fault, lasts_ms: u64, other_lasts_ms: u64, mended_after_ms: Option<u64>) {
        match fault {
            Fault::Kill(side) => self.kill(side),
            Fault::KillBoth => Side::BOTH.into_iter().for_each(|side| self.kill(side)),
            Fault::Stop(side) => self.stop(side, lasts_ms),
            Fault::StopBoth => {
                self.stop(Side::Primary, lasts_ms);
                self.stop(Side::Backup, other_lasts_ms);
            }
            Fault::KillWhileOtherStopped(side) => {
                self.stop(side.other(), lasts_ms);
                self.kill(side);
            }
            Fault::Close => {
                self.pair.proxy().close();
                self.channel_is_gone = true;
            }
            Fault::Blackhole(side) => self.blackhole(side, mended_after_ms),
            Fault::Damage(side) => {
                self.pair.proxy().damage(toward(side));
                self.channel_is_gone = true;
            }
            Fault::StorageAway => self.take_storage(lasts_ms),
            Fault::StorageAwayKill(side) => {
                self.take_storage(lasts_ms);
                self.kill(side);
            }
            Fault::StorageAwayBlackhole => {
                self.take_storage(lasts_ms);
                self.blackhole(None, mended_after_ms);
            }
            Fault::Isolate(side) => self.isolate(side, lasts_ms),
            Fault::FarBlackholeToBackup => {
                let (far, grows_for) = (Duration::from_millis(FAR_MS), Duration::from_millis(FAR_GROWS_MS));
                self.pair.proxy().delay(Toward::Primary, far, grows_for);
                let fault = Fault::Blackhole(Some(Side::Backup));
                self.undo_after(FAR_BEFORE_MS, Undo::Do(fault));
            }
            Fault::SlowKillPrimary => self.slow_and_then(Fault::Kill(Side::Primary)),
            Fault::SlowDamageToBackup => self.slow_and_then(Fault::Damage(Side::Backup)),
            Fault::SlowBlackholeToBackup => self.slow_and_then(Fault::Blackhole(Some(Side::Backup))),
            Fault::HoldReplayKillPrimary => {
                self.undo_after(SLOW_BEFORE_MS, Undo::Do(Fault::Kill(Side::Primary)))
            }
        }
    }

    fn slow_and_then(&mut self, fault: Fault) {
        let delay = Duration::from_millis(SLOW_MS);
        self.pair.proxy().delay(Toward::Primary, delay, Duration::ZERO);
        self.undo_after(SLOW_BEFORE_MS, Undo::Do(fault));
    }

    /// Where clients are to reach somebody in the end, both are reached again; the channel stays
    /// cut.
    fn isolate(&mut self, side: Option<Side>, lasts_ms: u64) {
        let hosts = self.hosts.expect("a host for each side");
        let sides = Side::BOTH.into_iter();
        sides
            .filter(|known| side.is_none_or(|side| side == *known))
            .for_each(|side| hosts.isolate(side));
        self.channel_is_gone = true;
        if side.is_none() {
            self.undo_after(lasts_ms, Undo::Plug);
        }
    }

    /// Where clients find the guest.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        match self.hosts {
            Some(hosts) => hosts.client_address(),
            None => self.pair.switch().client_address(),
        }
    }

    /// The channel swallows what goes to `side`, or everything.
    pub fn blackhole(&mut self, side: Option<Side>, mended_after_ms: Option<u64>) {
        match side {
            Some(side) => self.pair.proxy().cut_toward(toward(side)),
            None => self.pair.proxy().cut(),
        }
        match mended_after_ms {
            Some(ms) => self.undo_after(ms, Undo::Mend),
            None => self.channel_is_gone = true,
        }
    }

    fn take_storage(&mut self, ms: u64) {
        fs::rename(&self.pair.shared, self.pair.scratch.join("away")).expect("the storage can be taken away");
        self.undo_after(ms, Undo::BringStorage);
    }

    fn undo_after(&mut self, ms: u64, undo: Undo) {
        self.later.push((monotonic_ns() + ms * NS_PER_MS, undo));
    }

    /// Undoes what is due. Called all the time.
    pub fn look_at_the_time(&mut self) {
        let now_ns = monotonic_ns();
        let due: Vec<Undo> = self
            .later
            .extract_if(.., |(at_ns, _)| *at_ns <= now_ns)
            .map(|(_, undo)| undo)
            .collect();
        for undo in due {
            match undo {
                Undo::Do(fault) => self.apply(fault, 0, 0, None),
                Undo::Continue(side) => self.signal(side, Signal::SIGCONT),
                Undo::Mend => self.pair.proxy().mend(),
                Undo::BringStorage => fs::rename(self.pair.scratch.join("away"), &self.pair.shared)
                    .expect("the storage can be brought back"),
                Undo::Plug => {
                    for side in Side::BOTH {
                        self.hosts
                            .expect("a host for each side")
                            .plug(side, Cable::Uplink);
                    }
                }
            }
        }
    }

    /// True if everything that was to be undone is.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.later.is_empty()
    }

    /// Who has won generation 2, by what stands on the storage.
    #[must_use]
    pub fn winner(&self) -> Option<Side> {
        let pairs = fs::read_dir(&self.pair.shared).ok()?;
        let claims = pairs
            .flatten()
            .map(|pair| pair.path().join("generation-0000000002"));
        let claim = claims.filter_map(|path| fs::read_to_string(path).ok()).next()?;
        let label = claim.lines().find_map(|line| line.strip_prefix("label "))?;
        Side::BOTH.into_iter().find(|side| label.starts_with(side.name()))
    }
}

fn toward(side: Side) -> Toward {
    match side {
        Side::Primary => Toward::Primary,
        Side::Backup => Toward::Backup,
    }
}
