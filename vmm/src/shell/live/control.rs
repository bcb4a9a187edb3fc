//! Orders to the vCPU thread from other threads: stop, or be fenced.

use crate::kvm::Kicker;
use crate::machine::door::DoorError;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// What the vCPU thread is told. Higher orders win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Order {
    /// Stop in good order at the next execution point.
    Stop = 1,
    /// Another machine has gone on: stop at once.
    Fence = 2,
}

#[derive(Debug)]
struct Shared {
    order: AtomicU8,
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

    /// Is ready when an order was given.
    #[must_use]
    pub fn woken(&self) -> &Receiver<()> {
        &self.wake
    }
}
