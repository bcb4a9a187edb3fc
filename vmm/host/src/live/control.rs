//! Orders to the vCPU thread from other threads: stop, or be fenced; and what it is to do at a
//! pause, which ends nothing.

use crossbeam_channel::{Receiver, Sender, bounded};
use lockstep_core::machine::Machine;
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::LiveDoor;
use lockstep_kvm::{Kicker, KvmCpu};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};

/// An order to the vCPU thread. Higher orders win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Order {
    /// Stop in good order at the next execution point.
    Stop = 1,
    /// Another machine has gone on: stop at once.
    Fence = 2,
}

/// Function that the vCPU thread calls at a pause, with the machine whole between two steps. The
/// guest does not run meanwhile.
pub type AtPause = Box<dyn FnOnce(&mut Machine<KvmCpu>, &mut dyn LiveDoor) + Send>;

/// Reason why something is not done at a pause: something else is waiting for one, or the machine
/// is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine does not pause: it is over, or another pause was asked for")]
pub struct NoPause;

#[derive(Default)]
struct AtPauses {
    next: Option<AtPause>,
    /// Nothing pauses any more.
    over: bool,
}

impl std::fmt::Debug for AtPauses {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { next, over } = self;
        write!(
            formatter,
            "AtPauses {{ waits: {}, over: {over} }}",
            next.is_some()
        )
    }
}

#[derive(Debug)]
struct Shared {
    order: AtomicU8,
    at_pause: Mutex<AtPauses>,
    /// Something is in `at_pause`: looked at after each step.
    pause_asked: AtomicBool,
    kicker: OnceLock<Kicker>,
    wake: Sender<()>,
}

/// Gives orders, from any thread.
#[derive(Clone, Debug)]
pub struct Control(Arc<Shared>);

/// The vCPU thread's end of a [`Control`].
#[derive(Clone, Debug)]
pub struct Ordered {
    shared: Arc<Shared>,
    wake: Receiver<()>,
}

/// Both ends.
#[must_use]
pub fn control() -> (Control, Ordered) {
    // One waiting wake-up is as good as many.
    let (wake, woken) = bounded(1);
    let shared = Arc::new(Shared {
        order: AtomicU8::new(0),
        at_pause: Mutex::default(),
        pause_asked: AtomicBool::new(false),
        kicker: OnceLock::new(),
        wake,
    });
    (Control(shared.clone()), Ordered { shared, wake: woken })
}

impl Control {
    /// Gives an order. A lower one than was given before changes nothing.
    pub fn give(&self, order: Order) {
        self.0.order.fetch_max(order as u8, Ordering::SeqCst);
        // Full means that a wake-up is already waiting.
        let _ = self.0.wake.try_send(());
        self.kick();
    }

    /// Has the vCPU thread do something at its next pause, a guest that idles or computes included.
    /// It is dropped undone where the machine ends before.
    ///
    /// # Errors
    /// [`NoPause`].
    pub fn at_pause(&self, what: AtPause) -> Result<(), NoPause> {
        let mut at_pause = self.0.at_pause.lock().map_err(|_| NoPause)?;
        if at_pause.over || at_pause.next.is_some() {
            return Err(NoPause);
        }
        at_pause.next = Some(what);
        self.0.pause_asked.store(true, Ordering::SeqCst);
        drop(at_pause);
        // Full means that a wake-up is already waiting.
        let _ = self.0.wake.try_send(());
        self.kick();
        Ok(())
    }

    /// Makes the vCPU leave the guest.
    pub fn kick(&self) {
        if let Some(kicker) = self.0.kicker.get() {
            kicker.kick();
        }
    }
}

impl Ordered {
    /// Lets kicks reach the vCPU of the current thread.
    pub fn attach(&self, kicker: Kicker) {
        // A second vCPU on the same control is never made; the first keeps its kicks.
        let _ = self.shared.kicker.set(kicker);
    }

    /// Refuses if an order was given.
    ///
    /// # Errors
    /// [`DoorError::Stopped`] or [`DoorError::Fenced`].
    pub fn obey(&self) -> Result<(), DoorError> {
        match self.shared.order.load(Ordering::SeqCst) {
            0 => Ok(()),
            order if order == Order::Stop as u8 => Err(DoorError::Stopped),
            _ => Err(DoorError::Fenced),
        }
    }

    /// True if the machine is to pause.
    #[must_use]
    pub fn pause_asked(&self) -> bool {
        self.shared.pause_asked.load(Ordering::SeqCst)
    }

    /// Takes what is to be done at this pause. Whoever waits for [`Ordered::woken`] looks at orders
    /// after this: their wake-up may have been taken with the pause's.
    #[must_use]
    pub fn take_pause(&self) -> Option<AtPause> {
        let _ = self.wake.try_recv();
        let mut at_pause = self.shared.at_pause.lock().ok()?;
        self.shared.pause_asked.store(false, Ordering::SeqCst);
        at_pause.next.take()
    }

    /// The machine is over: what waits for a pause is dropped, and nothing waits any more.
    pub fn no_more_pauses(&self) {
        if let Ok(mut at_pause) = self.shared.at_pause.lock() {
            at_pause.over = true;
            at_pause.next = None;
        }
        self.shared.pause_asked.store(false, Ordering::SeqCst);
    }

    /// Is ready when an order was given, or a pause asked for.
    #[must_use]
    pub fn woken(&self) -> &Receiver<()> {
        &self.wake
    }
}
