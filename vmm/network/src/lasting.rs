//! An attachment that outlives its link.
//!
//! ```text
//!                 the switch ended, the interface was deleted
//!      attached ----------------------------------------------> lost: frames are dropped and counted
//!       |    ^  <---------------------------------------------   |   attaching again after 50 ms, 100 ms, ... 2 s
//!       v    |         attached again: announces itself          +---+
//!      down (TAP): frames are dropped; up again: announces itself
//! ```
//!
//! The network is outside the pair: its end must not be that of the guest.
//! [`NetworkReceiver::recv`] does the work that takes time (attaching, repeating announcements), so
//! it has to be awaited as long as the replica runs. Nothing is announced after the time until
//! which the sender may speak: a repeated announcement of a replica that has been replaced would
//! take the guest's address away from its successor.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lockstep_logging_channel::Generation;
use tokio::sync::Notify;

use super::announcement::is_control;
use super::announcing::Announcing;
use super::tap::Carrier;
use super::{
    Announcement, Attachment, FrameReceiver, FrameSender, Link, MacAddress, NetworkError, PairName, Refusal,
    gratuitous_arp,
};
use lockstep_process::clock::role_ns;

/// First pause before attaching again; each further pause is twice as long.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause before attaching again.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// A link that lasted shorter than this is not worth a line when it ends, nor a short pause: a
/// program that accepts and closes causes one line in this time.
const STABLE: Duration = RETRY_PAUSE_MAX;
/// Between two looks at the condition of a TAP interface, whose owner is not notified of it.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a start waits for a switch: services that are started together come up in any order.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to attach at the start.
const START_INTERVAL: Duration = Duration::from_millis(50);

/// Attaches; waits for a switch that is not running yet. Drop the future to give up earlier.
///
/// # Errors
/// [`NetworkError`]: the attachment cannot be made, or no switch has come within ten seconds.
pub async fn open(attachment: &Attachment) -> Result<(NetworkSender, NetworkReceiver), NetworkError> {
    let deadline = tokio::time::Instant::now() + START_PATIENCE;
    let mut waiting = false;
    let link = loop {
        match attachment.attach() {
            Err(why @ NetworkError::SwitchAbsent { .. }) if tokio::time::Instant::now() < deadline => {
                if !waiting {
                    tracing::warn!("{why}; waiting {} s for it", START_PATIENCE.as_secs());
                }
                waiting = true;
                tokio::time::sleep(START_INTERVAL).await;
            }
            attached => break attached?,
        }
    };
    if waiting {
        tracing::info!("attached to {attachment}");
    }
    halves(attachment, link)
}

fn halves(attachment: &Attachment, link: Link) -> Result<(NetworkSender, NetworkReceiver), NetworkError> {
    let (sender, receiver) = link.split()?;
    let shared = Arc::new(Shared::default());
    shared.state().sender = Some(sender);
    let now = Instant::now();
    let receiver = NetworkReceiver {
        attachment: attachment.clone(),
        shared: Arc::clone(&shared),
        link: Some(receiver),
        attached_at: now,
        lost: Lost::new(now),
        is_down: false,
        look_at: matches!(attachment, Attachment::Tap(_)).then_some(now),
    };
    Ok((NetworkSender(shared), receiver))
}

/// What both halves see.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The sending half has found the link broken.
    broken: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    /// None while the link is lost.
    sender: Option<FrameSender>,
    /// Frames dropped by links that are lost, and while there was none.
    dropped_frames: u64,
    /// Of those, the ones dropped while there was none.
    detached_frames: u64,
    /// Links after the first.
    reattachments: u64,
    pair: Option<PairName>,
    announcing: Option<Announcing>,
    may_speak_until_ns: u64,
}

impl State {
    /// Says on a new link to which pair it belongs, and begins to announce.
    fn introduce(&mut self, now: Instant) {
        if let (Some(pair), Some(sender)) = (self.pair, &mut self.sender) {
            // A link that broke again already is found so by the receiving half.
            let _ = sender.announce(Announcement::standby(pair));
        }
        if let Some(announcing) = &mut self.announcing {
            announcing.restart(now);
        }
        self.announce_if_due(now);
    }

    /// Says that this machine speaks, where it has not been said: whatever it says comes behind
    /// that.
    fn announce_first(&mut self) {
        if self.announcing.as_ref().is_some_and(Announcing::is_first) {
            self.announce_now(Instant::now());
        }
    }

    fn announce_if_due(&mut self, now: Instant) {
        let due = self.announcing.as_ref().and_then(Announcing::due);
        if due.is_some_and(|due| due <= now) {
            self.announce_now(now);
        }
    }

    fn announce_now(&mut self, now: Instant) {
        let Some(announcing) = &mut self.announcing else {
            return;
        };
        let may_speak = role_ns() < self.may_speak_until_ns;
        let left = match &mut self.sender {
            Some(sender) if may_speak => announce(sender, announcing),
            _ => false,
        };
        if left {
            announcing.left(now);
        } else {
            announcing.stayed(now);
        }
    }

    fn drop_detached(&mut self, count: u64) {
        self.dropped_frames += count;
        self.detached_frames += count;
    }

    fn lose(&mut self) {
        self.dropped_frames += self.sender.take().map_or(0, |sender| sender.dropped_frames());
    }
}

/// Sends one announcement; false where something of it was dropped.
fn announce(sender: &mut FrameSender, announcing: &Announcing) -> bool {
    let before = sender.dropped_frames();
    // To a switch of ours a frame that was written is never lost.
    let told = !announcing.is_first() || sender.announce(announcing.to_switch()).is_ok();
    let sent = sender.send(&gratuitous_arp(announcing.mac(), None)).is_ok();
    told && sent && sender.dropped_frames() == before
}

/// The sending half. Never waits, never fails: what cannot leave is dropped and counted.
pub struct NetworkSender(Arc<Shared>);

impl NetworkSender {
    /// Sends frames of the guest in order, to a switch with a single system call. A guest does not
    /// announce: such a frame would speak for the replica, make the guest a member of any pair, and
    /// fence it. It is dropped.
    pub fn send_batch<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]>) {
        let mut state = self.0.state();
        state.announce_first();
        let mut count = 0;
        let mut forged = 0;
        let counted = frames
            .filter(|frame| {
                let is_forged = is_control(frame);
                forged += u64::from(is_forged);
                !is_forged
            })
            .inspect(|_| count += 1);
        let sent = match &mut state.sender {
            Some(sender) => sender.send_batch(counted).is_ok(),
            None => {
                counted.for_each(drop);
                state.dropped_frames += forged;
                state.drop_detached(count);
                return;
            }
        };
        state.dropped_frames += forged;
        if !sent {
            state.drop_detached(count);
            state.lose();
            self.0.broken.notify_one();
        }
    }

    /// Tells a switch of ours that this machine is one of `pair`, and not live. Told again on every
    /// new link.
    pub fn stand_by(&mut self, pair: PairName) {
        let mut state = self.0.state();
        state.pair = Some(pair);
        state.introduce(Instant::now());
    }

    /// Announces from now on that `generation` of `pair` speaks for the guest with this address: at
    /// once where [`Self::may_speak_until`] allows it, repeatedly, and on every new link.
    pub fn announce(&mut self, pair: PairName, generation: Generation, mac: MacAddress) {
        let mut state = self.0.state();
        let now = Instant::now();
        state.pair = Some(pair);
        state.announcing = Some(Announcing::new(pair, generation, mac, now));
        state.announce_if_due(now);
    }

    /// Time on the role machine's clock after which nothing is announced.
    pub fn may_speak_until(&mut self, until_ns: u64) {
        let mut state = self.0.state();
        state.may_speak_until_ns = until_ns;
        state.announce_first();
    }

    /// The counts of this attachment, to be asked later.
    #[must_use]
    pub fn counts(&self) -> NetworkCounts {
        NetworkCounts(Arc::clone(&self.0))
    }
}

/// What is counted of an attachment.
pub struct NetworkCounts(Arc<Shared>);

impl NetworkCounts {
    /// Frames dropped so far, whatever the reason.
    #[must_use]
    pub fn dropped_frames(&self) -> u64 {
        let state = self.0.state();
        let now = state.sender.as_ref().map_or(0, FrameSender::dropped_frames);
        state.dropped_frames + now
    }

    /// Of those, the frames that found no link.
    #[must_use]
    pub fn detached_frames(&self) -> u64 {
        self.0.state().detached_frames
    }

    /// How often a lost link was followed by a new one.
    #[must_use]
    pub fn reattachments(&self) -> u64 {
        self.0.state().reattachments
    }
}

/// What a lost link leads to.
struct Lost {
    retry_at: Instant,
    pause: Duration,
    /// A line has said that it is lost.
    said: bool,
    since: Instant,
    dropped_before: u64,
}

impl Lost {
    fn new(now: Instant) -> Self {
        Self {
            retry_at: now,
            pause: RETRY_PAUSE_MIN,
            said: false,
            since: now,
            dropped_before: 0,
        }
    }
}

/// The receiving half.
pub struct NetworkReceiver {
    attachment: Attachment,
    shared: Arc<Shared>,
    /// None while it is lost.
    link: Option<FrameReceiver>,
    attached_at: Instant,
    lost: Lost,
    /// The interface is down, and that was said.
    is_down: bool,
    /// Time of the next look at the interface; none where the link is not a TAP.
    look_at: Option<Instant>,
}

impl NetworkReceiver {
    /// The next frame for the guest. Cancellation-safe: dropped while it waits, it loses nothing.
    pub async fn recv(&mut self) -> Vec<u8> {
        loop {
            let now = Instant::now();
            if self.due().is_some_and(|due| due <= now) {
                self.tend(now);
            }
            let due = self.due();
            let shared = Arc::clone(&self.shared);
            let received = tokio::select! {
                biased;
                received = receive(&mut self.link) => received,
                () = shared.broken.notified() => Err(self.closed()),
                () = wait_until(due) => continue,
            };
            match received {
                Ok(frame) => {
                    if let Some(frame) = self.for_guest(frame) {
                        return frame;
                    }
                }
                Err(why) => self.lose(&why),
            }
        }
    }

    /// The next frame if it was read already. Never waits.
    pub fn buffered(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.link.as_mut()?.buffered() {
                Ok(frame) => {
                    let frame = frame?;
                    if let Some(frame) = self.for_guest(frame) {
                        return Some(frame);
                    }
                }
                Err(why) => {
                    self.lose(&why);
                    return None;
                }
            }
        }
    }

    /// The frame, unless the switch has sent it to this replica itself.
    fn for_guest(&mut self, frame: Vec<u8>) -> Option<Vec<u8>> {
        let refusal = matches!(self.attachment, Attachment::Switch(_))
            .then(|| Refusal::from_frame(&frame))
            .flatten();
        let Some(refusal) = refusal else {
            return Some(frame);
        };
        tracing::warn!("{}: {refusal}", self.attachment);
        None
    }

    fn closed(&self) -> NetworkError {
        let attachment = self.attachment.to_string();
        match self.attachment {
            Attachment::Tap(_) => NetworkError::InterfaceGone { attachment },
            Attachment::Switch(_) | Attachment::None => NetworkError::Closed { attachment },
        }
    }

    /// Time of whatever is to be done next.
    fn due(&self) -> Option<Instant> {
        if self.link.is_none() {
            return Some(self.lost.retry_at);
        }
        let announcing = self.shared.state().announcing.as_ref().and_then(Announcing::due);
        [announcing, self.look_at].into_iter().flatten().min()
    }

    fn tend(&mut self, now: Instant) {
        if self.link.is_none() {
            self.attach_again(now);
            return;
        }
        if self.look_at.is_some_and(|due| due <= now) {
            self.look_at = Some(now + LOOK_INTERVAL);
            self.look(now);
        }
        if !self.is_down {
            self.shared.state().announce_if_due(now);
        } else if let Some(announcing) = &mut self.shared.state().announcing {
            announcing.stayed(now);
        }
    }

    /// Looks at the condition of the interface.
    fn look(&mut self, now: Instant) {
        let Some(link) = &self.link else { return };
        match (link.carrier(), self.is_down) {
            (Carrier::Gone, _) => {
                let why = self.closed();
                self.lose(&why);
            }
            (Carrier::Down, false) => {
                self.is_down = true;
                tracing::warn!(
                    "the interface of {} is down: the guest goes on, its frames are dropped until it is up",
                    self.attachment
                );
            }
            (Carrier::Up, true) => {
                self.is_down = false;
                tracing::info!("the interface of {} is up again", self.attachment);
                self.shared.state().introduce(now);
            }
            (Carrier::Down, true) | (Carrier::Up, false) => {}
        }
    }

    fn lose(&mut self, why: &NetworkError) {
        let now = Instant::now();
        self.link = None;
        self.is_down = false;
        let mut state = self.shared.state();
        state.lose();
        if now.saturating_duration_since(self.attached_at) >= STABLE {
            self.lost.pause = RETRY_PAUSE_MIN;
        }
        self.lost = Lost {
            retry_at: now + self.lost.pause,
            dropped_before: state.dropped_frames,
            since: now,
            ..self.lost
        };
        drop(state);
        if self.lost.pause == RETRY_PAUSE_MIN {
            self.say_lost(why);
        }
    }

    fn say_lost(&mut self, why: &NetworkError) {
        self.lost.said = true;
        tracing::warn!("{why}; the guest goes on, its frames are dropped until the network is back");
    }

    fn attach_again(&mut self, now: Instant) {
        self.lost.pause = (2 * self.lost.pause).min(RETRY_PAUSE_MAX);
        self.lost.retry_at = now + self.lost.pause;
        let halves = self.attachment.attach().and_then(Link::split);
        let (sender, receiver) = match halves {
            Ok(halves) => halves,
            Err(why) => {
                if !self.lost.said && now.saturating_duration_since(self.lost.since) >= STABLE {
                    self.say_lost(&why);
                }
                return;
            }
        };
        self.link = Some(receiver);
        self.attached_at = now;
        let mut state = self.shared.state();
        state.sender = Some(sender);
        state.reattachments += 1;
        state.introduce(now);
        let dropped_frames = state.dropped_frames - self.lost.dropped_before;
        drop(state);
        if std::mem::take(&mut self.lost.said) {
            tracing::info!(dropped_frames, "attached again to {}", self.attachment);
        }
    }
}

async fn receive(link: &mut Option<FrameReceiver>) -> Result<Vec<u8>, NetworkError> {
    match link {
        Some(link) => link.recv().await,
        None => std::future::pending().await,
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
