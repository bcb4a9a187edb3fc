//! Wires between a holder and whoever comes to join it.
//!
//! A holder listens on a socket whose path is in its claim. The socket is given another name, and
//! this listens under the first one: so every newcomer comes through a wire of its own, which
//! writes down what passes and can be cut, closed and damaged.

use crate::harness::Proxy;
use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Between two looks whether it is over.
const LOOK: Duration = Duration::from_millis(2);

/// The wires to one holder in one generation.
#[derive(Debug)]
pub struct Bridge {
    /// The generation.
    pub generation: u32,
    wires: Arc<Mutex<Vec<Arc<Proxy>>>>,
    over: Arc<AtomicBool>,
}

impl Bridge {
    /// Takes the place of the holder that listens at `path`, for the `number`-th time; nothing
    /// where it does not any more, because a newcomer was there before.
    ///
    /// # Panics
    /// The host gives no socket.
    #[must_use]
    pub fn open(path: &Path, number: usize, generation: u32) -> Option<Self> {
        let holder = path.with_extension(format!("holder-{number}"));
        match fs::rename(path, &holder) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return None,
            renamed => renamed.unwrap_or_else(|why| panic!("{}: {why}", path.display())),
        }
        let listener = UnixListener::bind(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        listener.set_nonblocking(true).expect("a listener");
        let bridge = Self {
            generation,
            wires: Arc::default(),
            over: Arc::default(),
        };
        let (wires, over, path) = (bridge.wires.clone(), bridge.over.clone(), path.to_owned());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((newcomer, _)) => wires
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend(wire(&path, &holder, newcomer)),
                    Err(_) => thread::sleep(LOOK),
                }
            }
        });
        Some(bridge)
    }

    /// Nobody comes any more: the holder may listen at `path` again. Wires stay as they are.
    pub fn close(&self, path: &Path) {
        if !self.over.swap(true, Ordering::Relaxed) {
            // It may be gone with its directory.
            let _ = fs::remove_file(path);
        }
    }

    /// The wires so far, in the order in which newcomers came.
    #[must_use]
    pub fn wires(&self) -> Vec<Arc<Proxy>> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A wire for `newcomer`, unless its holder is gone.
fn wire(path: &Path, holder: &Path, newcomer: UnixStream) -> Option<Arc<Proxy>> {
    newcomer.set_nonblocking(false).ok()?;
    let holder = UnixStream::connect(holder).ok()?;
    Some(Arc::new(Proxy::between(path, newcomer, holder)))
}
