//! Kicks: a signal that makes a thread leave KVM_RUN, now or at its next entry.
//!
//! The handler sets `immediate_exit` in the run page of the thread it runs on, so that a signal
//! which lands just before KVM_RUN is not lost (Documentation/virt/kvm/api.rst, KVM_RUN). It is
//! installed without SA_RESTART.

#![allow(unsafe_code, reason = "signal handlers and the shared run page")]

use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{SigEvent, SigSet, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;
use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vmm_sys_util::signal::register_signal_handler;

/// The signal used; nothing else in the program may.
pub const SIGNAL: Signal = Signal::SIGUSR1;

thread_local! {
    static KICKED: Cell<bool> = const { Cell::new(false) };
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

extern "C" fn handle(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // A thread that is going away has no cell any more, and nothing to leave.
    let _ = IMMEDIATE_EXIT.try_with(|flag| {
        let flag = flag.get();
        if !flag.is_null() {
            // SAFETY: set by `Registration` to a byte of a run page that stays mapped until it
            // clears the cell again, on this same thread, so not while this handler runs.
            unsafe { ptr::write_volatile(flag, 1) };
        }
    });
    let _ = KICKED.try_with(|kicked| kicked.set(true));
}

/// Takes the kick that KVM_RUN came back with, so that the next entry runs. `flag` is
/// `immediate_exit`.
pub(super) fn take(flag: &mut u8) {
    // A kick after the first line is remembered, and seen at the next entry.
    KICKED.with(|kicked| kicked.set(false));
    restore(flag);
}

/// Puts `flag` back after it was borrowed for completing an access: set if a kick came meanwhile.
pub(super) fn restore(flag: &mut u8) {
    volatile_store(flag, 0);
    // A kick before this line is in KICKED, one after it sets the flag itself.
    if KICKED.with(Cell::get) {
        volatile_store(flag, 1);
    }
}

fn volatile_store(flag: &mut u8, value: u8) {
    // SAFETY: a plain byte of the run page, which the kernel and this thread's signal handler also
    // write.
    unsafe { ptr::write_volatile(flag, value) };
}

/// While it lives, kicks reach the vCPU that belongs to the current thread.
pub(super) struct Registration;

impl Registration {
    /// `immediate_exit` must stay valid until the registration is dropped, on this same thread.
    pub(super) fn new(immediate_exit: *mut u8) -> io::Result<Self> {
        register_signal_handler(SIGNAL as libc::c_int, handle).map_err(io::Error::from)?;
        IMMEDIATE_EXIT.with(|flag| flag.set(immediate_exit));
        Ok(Self)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.with(|flag| flag.set(ptr::null_mut()));
    }
}

/// Kicks the thread it was made on, from any thread.
#[derive(Clone, Debug)]
pub struct Kicker {
    thread: Pthread,
    alive: Arc<AtomicBool>,
}

/// Ends a [`Kicker`]'s reach: dropped before its thread ends.
#[derive(Debug)]
pub struct KickTarget(Arc<AtomicBool>);

impl Kicker {
    /// For the current thread, as long as the target lives.
    #[must_use]
    pub fn for_this_thread() -> (Self, KickTarget) {
        let alive = Arc::new(AtomicBool::new(true));
        (
            Self {
                thread: pthread_self(),
                alive: alive.clone(),
            },
            KickTarget(alive),
        )
    }

    /// Makes the vCPU leave KVM_RUN.
    pub fn kick(&self) {
        if self.alive.load(Ordering::Acquire) {
            // A thread that has just ended is not there to be kicked: nothing to do about it.
            let _ = pthread_kill(self.thread, SIGNAL);
        }
    }
}

impl Drop for KickTarget {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Kicks its own thread after a time.
pub struct KickTimer(nix::sys::timer::Timer);

impl KickTimer {
    /// A timer, not armed, that kicks the current thread.
    ///
    /// # Errors
    /// The host's.
    pub fn for_this_thread() -> io::Result<Self> {
        let target = SigEvent::new(SigevNotify::SigevThreadId {
            signal: SIGNAL,
            thread_id: gettid().as_raw(),
            si_value: 0,
        });
        Ok(Self(nix::sys::timer::Timer::new(
            ClockId::CLOCK_MONOTONIC,
            target,
        )?))
    }

    /// Kicks once, `after` from now (at once if that is nothing).
    ///
    /// # Errors
    /// The host's.
    pub fn arm(&mut self, after: Duration) -> io::Result<()> {
        let after = after.max(Duration::from_nanos(1));
        Ok(self.0.set(
            Expiration::OneShot(TimeSpec::from_duration(after)),
            TimerSetTimeFlags::empty(),
        )?)
    }

    /// Does not kick.
    ///
    /// # Errors
    /// The host's.
    pub fn disarm(&mut self) -> io::Result<()> {
        let never = Expiration::OneShot(TimeSpec::from_duration(Duration::ZERO));
        Ok(self.0.set(never, TimerSetTimeFlags::empty())?)
    }
}

/// While it lives, kicks wait: KVM_RUN is not interrupted by them.
pub(super) struct BlockedKicks(());

fn kick_set() -> SigSet {
    let mut set = SigSet::empty();
    set.add(SIGNAL);
    set
}

impl BlockedKicks {
    pub(super) fn new() -> io::Result<Self> {
        kick_set().thread_block()?;
        Ok(Self(()))
    }

    /// True if a kick has come. The caller takes it from its run page ([`take`]).
    pub(super) fn has_come(&self) -> io::Result<bool> {
        let earlier = KICKED.with(Cell::get);
        let waiting = is_pending()?;
        if waiting {
            // Delivered between the two lines.
            kick_set().thread_unblock()?;
            kick_set().thread_block()?;
        }
        Ok(earlier || waiting)
    }
}

impl Drop for BlockedKicks {
    fn drop(&mut self) {
        // It was just unblocked before: that it could not be again has no known cause.
        let _ = kick_set().thread_unblock();
    }
}

fn is_pending() -> io::Result<bool> {
    let mut pending = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `sigpending` writes a whole set; a zeroed one is a valid empty set in any case.
    let pending = unsafe {
        if libc::sigpending(pending.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        pending.assume_init()
    };
    // SAFETY: the set is initialised.
    Ok(unsafe { libc::sigismember(&raw const pending, SIGNAL as libc::c_int) } == 1)
}
