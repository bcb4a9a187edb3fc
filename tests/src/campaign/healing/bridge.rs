//! Wires between a holder and whoever comes to join it.
//!
//! A holder listens on a socket whose path is in its claim. The socket is given another name, and
//! this listens under the first one: so every newcomer comes through a wire of its own, which
//! writes down what passes and can be cut, closed and damaged.

use crate::harness::Proxy;
use crate::harness::proxy::Passing;
use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Between two looks whether somebody comes, or is gone.
const LOOK: Duration = Duration::from_millis(2);

/// Listener at the path of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The bridge: whoever comes has a wire.
    Bridge,
    /// Nothing: a newcomer has loaded the machine, and once it is armed the holder may listen there
    /// again, at any moment.
    Nothing,
    /// The holder, if it listens again.
    Holder,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    at: Mutex<At>,
}

impl Place {
    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bridge leaves it to `next`.
    fn leave(&self, next: At) {
        let mut at = self.at();
        if *at == At::Bridge {
            // It may be gone with its directory.
            let _ = fs::remove_file(&self.path);
        }
        if *at != At::Holder {
            *at = next;
        }
    }

    /// The bridge listens there again, unless its holder does.
    fn take(&self) -> Option<UnixListener> {
        let mut at = self.at();
        if *at == At::Holder {
            return None;
        }
        let listener = listen(&self.path).ok();
        *at = if listener.is_some() {
            At::Bridge
        } else {
            At::Holder
        };
        listener
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The wires to one holder in one generation.
#[derive(Debug)]
pub struct Bridge {
    /// Number, from 1, of the times that its holder has listened.
    pub number: usize,
    /// The generation.
    pub generation: u32,
    wires: Arc<Mutex<Vec<Arc<Proxy>>>>,
    place: Arc<Place>,
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
        let listener = listen(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let bridge = Self {
            number,
            generation,
            wires: Arc::default(),
            place: Arc::new(Place {
                path: path.to_owned(),
                at: Mutex::new(At::Bridge),
            }),
        };
        let (wires, place) = (bridge.wires.clone(), bridge.place.clone());
        thread::spawn(move || serve(&wires, &place, &holder, Some(listener)));
        Some(bridge)
    }

    /// Nobody comes any more: the holder may listen there again. Wires stay as they are.
    pub fn close(&self) {
        self.place.leave(At::Holder);
    }

    /// The wires so far, in the order in which newcomers came.
    #[must_use]
    pub fn wires(&self) -> Vec<Arc<Proxy>> {
        wires_of(&self.wires)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.close();
    }
}

fn wires_of(wires: &Mutex<Vec<Arc<Proxy>>>) -> Vec<Arc<Proxy>> {
    wires.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Gives each newcomer its wire, until the bridge is closed.
fn serve(
    wires: &Mutex<Vec<Arc<Proxy>>>,
    place: &Arc<Place>,
    holder: &Path,
    mut listener: Option<UnixListener>,
) {
    loop {
        let at = *place.at();
        match (at, &listener) {
            (At::Holder, _) => return,
            (At::Bridge, Some(listens)) => {
                if let Ok((newcomer, _)) = listens.accept() {
                    let wire = wire(place, holder, newcomer);
                    wires.lock().unwrap_or_else(PoisonError::into_inner).extend(wire);
                    continue;
                }
            }
            (At::Bridge | At::Nothing, _) => {
                listener = None;
                if wires_of(wires)
                    .iter()
                    .all(|wire| wire.is_given_up() && !is_armed(wire))
                {
                    listener = place.take();
                }
            }
        }
        thread::sleep(LOOK);
    }
}

fn is_armed(wire: &Proxy) -> bool {
    let passed = wire.traffic().passed;
    passed
        .iter()
        .any(|(_, passing)| matches!(passing, Passing::Armed(_)))
}

/// A wire for `newcomer`, unless its holder is gone.
fn wire(place: &Arc<Place>, holder: &Path, newcomer: UnixStream) -> Option<Arc<Proxy>> {
    newcomer.set_nonblocking(false).ok()?;
    let holder = UnixStream::connect(holder).ok()?;
    let leaves = place.clone();
    let on_loaded = move || leaves.leave(At::Nothing);
    Some(Arc::new(Proxy::between(&place.path, newcomer, holder, on_loaded)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{Scratch, wait_until};
    use lockstep_logging_channel::{Message, codec};
    use std::io::{Read, Write};

    /// A bridge before a holder, a newcomer that has come through it and has loaded the machine, and
    /// the holder's end, on which that has been heard.
    fn loaded(path: &Path) -> (Bridge, UnixStream, UnixStream) {
        let holder = UnixListener::bind(path).unwrap();
        let bridge = Bridge::open(path, 1, 1).unwrap();
        let mut newcomer = UnixStream::connect(path).unwrap();
        let (mut heard, _) = holder.accept().unwrap();
        let mut record = Vec::new();
        codec::encode_message(&Message::Loaded, &mut record).unwrap();
        newcomer.write_all(&record).unwrap();
        heard.read_exact(&mut record).unwrap();
        (bridge, newcomer, heard)
    }

    #[test]
    fn the_path_is_free_when_a_holder_may_arm_and_stays_so_when_the_newcomer_is_gone() {
        let scratch = Scratch::new();
        let path = scratch.join("channel");
        let (bridge, newcomer, heard) = loaded(&path);
        drop(newcomer);
        let again = UnixListener::bind(&path).expect("the holder listens again");
        // It has armed its newcomer before, and the campaign reads of it.
        bridge.close();
        let _ = UnixStream::connect(&path).expect("it still does");
        drop((again, heard));
    }

    #[test]
    fn a_holder_that_gives_its_newcomer_up_has_its_bridge_again() {
        let scratch = Scratch::new();
        let path = scratch.join("channel");
        let (bridge, _newcomer, heard) = loaded(&path);
        drop(heard);
        wait_until(|| UnixStream::connect(&path).ok(), || "a bridge".to_owned());
        drop(bridge);
    }
}
