//! Lockstep from outside: its command as real processes, guests, pairs, clients, and the wires
//! between them.
//!
//! Everything here panics where a test cannot go on, with what the processes said: a test that
//! fails tells why. Every wait has the bound [`PATIENCE`] and ends as soon as what it waits for is
//! there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test may fail"
)]

pub mod bare;
pub mod binary;
pub mod boots;
pub mod bridge;
pub mod busy;
pub mod clock;
pub mod hosts;
pub mod images;
pub mod interrupt;
pub mod kvm;
pub mod line;
pub mod linux;
pub mod linux_disk;
pub mod load;
pub mod logs;
pub mod namespace;
pub mod pair;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod redis;
pub mod replica;
pub mod scratch;
pub mod switch;
pub mod terminal;
pub mod troubled;
pub mod volatile_disk;

pub use binary::{Build, lockstep, lockstep_path};
pub use boots::Boots;
pub use images::Guest;
pub use interrupt::Interrupt;
pub use linux::Linux;
pub use load::Load;
pub use pair::{Pair, PairSpec};
pub use process::{Ended, Process};
pub use proxy::Proxy;
pub use redis::{Client, Reply};
pub use replica::{Replica, times_reported};
pub use scratch::Scratch;
pub use switch::Switch;
pub use troubled::{Trouble, TroubledStorage};
pub use volatile_disk::VolatileDisk;

use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Factor by which things may be slower than on `/dev/kvm`: tests built for the lab run in an
/// emulator.
pub const SLOWNESS: u64 = if option_env!("LOCKSTEP_TESTS_EMULATED").is_some() {
    5
} else {
    1
};

/// How long any one thing may take, on a machine that is busy with many others.
pub const PATIENCE: Duration = Duration::from_secs(90 * SLOWNESS);

/// Ports below those that the system gives to whoever asks for any (`ip_local_port_range` begins at
/// 32768): nobody takes one by chance before it is used.
const PORTS: Range<u16> = 10_000..32_768;

/// A port of this host that nobody listens on, and that no other call in this process gives.
#[must_use]
pub fn free_port() -> SocketAddr {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Other processes begin elsewhere.
    let first = std::process::id().wrapping_mul(61);
    let free = (0..count).find_map(|_| {
        let at = first.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed)) % count;
        let address = SocketAddr::from(([127, 0, 0, 1], PORTS.start + at as u16));
        TcpListener::bind(address).ok().map(|_| address)
    });
    free.expect("a port")
}

/// Between two looks at something that tells nobody when it changes.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(3);

/// Waits until `look` finds something.
///
/// # Panics
/// After [`PATIENCE`], with `missing()`.
pub fn wait_until<T>(look: impl FnMut() -> Option<T>, missing: impl Fn() -> String) -> T {
    wait_while(|| 0, look, missing)
}

/// Times [`PATIENCE`] that is waited for at most where there are signs of progress.
const PATIENCES_MAX: u32 = 4;

/// Waits until `look` finds something, while the number of `signs` of progress grows.
///
/// # Panics
/// After [`PATIENCE`] without another sign, and after four times that, with `missing()`.
pub fn wait_while<T>(
    mut signs: impl FnMut() -> usize,
    mut look: impl FnMut() -> Option<T>,
    missing: impl Fn() -> String,
) -> T {
    let at_most = Instant::now() + PATIENCE * PATIENCES_MAX;
    let (mut seen, mut deadline) = (signs(), Instant::now() + PATIENCE);
    loop {
        if let Some(found) = look() {
            return found;
        }
        if Instant::now() >= deadline {
            let now = signs();
            assert!(
                now > seen && Instant::now() < at_most,
                "not within {PATIENCE:?}: {}",
                missing()
            );
            (seen, deadline) = (now, Instant::now() + PATIENCE);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}
