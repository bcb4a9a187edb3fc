//! Which image is the newest: what a side writes beside its images, and what a machine may begin
//! from.
//!
//! | written | generation | side | clean |
//! | --- | --- | --- | --- |
//! | before a newcomer's images are copied to | its holder's | backup | no |
//! | when a side acts | its own | holder | no |
//! | when the machine has ended, and everything is durable | the last | as it was | yes |
//!
//! A machine that is begun goes on with the images of the last holder, or with those of either side
//! after an end in good order. Any other image lacks what the guest has written since, or may: a
//! client may have been told of it. A backup that was killed has not always written what it had
//! received.

use crate::disk::Images;
use crate::error::RunError;
use lockstep_logging_channel::Generation;
use lockstep_shared_disk::image::{Identity, Image, ImageError};
use lockstep_shared_disk::{Claim, Line, MachineId, MachineName, Party};
use std::fmt::Write;
use std::sync::Arc;

/// Part of a side in its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Holder,
    Backup,
}

/// What a side writes beside its images.
#[derive(Clone)]
pub struct Ownership {
    images: Arc<Images>,
    name: MachineName,
    machine: MachineId,
    party: Party,
}

impl Ownership {
    /// The images of a side of `machine`.
    #[must_use]
    pub fn new(images: Arc<Images>, name: MachineName, machine: MachineId, party: Party) -> Self {
        Self {
            images,
            name,
            machine,
            party,
        }
    }

    /// This side acts in `generation`, or is about to.
    ///
    /// # Errors
    /// [`RunError::Disk`].
    pub fn holds(&self, generation: Generation) -> Result<(), RunError> {
        self.write(generation, Role::Holder)
    }

    /// This side's images are made those of the holder of `generation`.
    ///
    /// # Errors
    /// [`RunError::Disk`]; also where an image is another machine's.
    pub fn follows(&self, generation: Generation) -> Result<(), RunError> {
        admit(&self.images, &self.name)?;
        self.write(generation, Role::Backup)
    }

    /// The machine has ended in `generation`, and its disks are durable.
    ///
    /// # Errors
    /// [`RunError::Disk`].
    pub fn ended(&self, generation: Generation) -> Result<(), RunError> {
        for image in self.images.written() {
            if let Some(identity) = Identity::read(image.path())? {
                let ended = Identity {
                    generation,
                    clean: true,
                    ..identity
                };
                ended.write(image.path())?;
            }
        }
        Ok(())
    }

    /// This side, which has won `generation`, opens an `image` that both sides share.
    ///
    /// # Errors
    /// [`RunError::Disk`]: it is another machine's. [`RunError::Setting`]: a side that has won a
    /// later generation has opened it.
    pub fn opens(&self, image: &Image, generation: Generation) -> Result<(), RunError> {
        if image.read_only() {
            return Ok(());
        }
        if let Some(identity) = Identity::read(image.path())? {
            identity.admit(image, &self.name)?;
            if identity.machine == self.machine && identity.generation > generation {
                let why = format!(
                    "{} was opened in generation {}, and this side has won {generation} only",
                    image.path().display(),
                    identity.generation
                );
                return Err(RunError::setting("disk", why));
            }
        }
        Ok(self.record(image, generation, Role::Holder)?)
    }

    fn write(&self, generation: Generation, role: Role) -> Result<(), RunError> {
        for image in self.images.written() {
            self.record(image, generation, role)?;
        }
        Ok(())
    }

    fn record(&self, image: &Image, generation: Generation, role: Role) -> Result<(), ImageError> {
        let identity = Identity {
            name: self.name.clone(),
            machine: self.machine,
            generation,
            side: side(role, &self.party),
            clean: false,
            format: image.format(),
            size_bytes: image.size_bytes(),
        };
        identity.write(image.path())
    }
}

/// A side, in one line for people that begins with what is compared.
fn side(role: Role, party: &Party) -> Line {
    let mut text = begins_with(role, party);
    // A string takes everything.
    let _ = write!(text, " {party}");
    Line::shortened(&text)
}

fn begins_with(role: Role, party: &Party) -> String {
    let role = match role {
        Role::Holder => "holder",
        Role::Backup => "backup",
    };
    format!("{role} {}", hex::encode(party.id))
}

fn admit(images: &Images, name: &MachineName) -> Result<(), RunError> {
    for image in images.written() {
        if let Some(identity) = Identity::read(image.path())? {
            identity.admit(image, name)?;
        }
    }
    Ok(())
}

/// Refuses to begin the machine `name` from images that may not be the newest. `newest`: the last
/// claim in the store; `has_ended`: the machine ended in that generation.
///
/// # Errors
/// [`RunError::Setting`] naming the image, [`RunError::Disk`].
pub fn may_begin(
    images: &Images,
    name: &MachineName,
    newest: Option<&Claim>,
    has_ended: bool,
) -> Result<(), RunError> {
    admit(images, name)?;
    for image in images.written() {
        let path = image.path();
        let Some(identity) = Identity::read(path)? else {
            if newest.is_some() {
                tracing::warn!(
                    "{} has no record beside it: the machine begins from what is in it",
                    path.display()
                );
            }
            continue;
        };
        if let Some(why) = not_newest(&identity, newest, has_ended) {
            let why = format!(
                "{} was written in generation {}, and is not known to be the newest: {why}. \
                 Removing {} lets the machine begin from this image all the same",
                path.display(),
                identity.generation,
                Identity::path(path).display()
            );
            return Err(RunError::setting("disk", why));
        }
    }
    Ok(())
}

/// Reason why an image may lack what the guest has written.
fn not_newest(identity: &Identity, newest: Option<&Claim>, has_ended: bool) -> Option<String> {
    let Some(newest) = newest else {
        let why = "the shared directory remembers nothing of the machine";
        return (!identity.clean).then(|| why.to_owned());
    };
    let is_last = identity.generation == newest.generation;
    if is_last && identity.clean && has_ended {
        return None;
    }
    let (generation, party) = (newest.generation, &newest.party);
    let side = identity.side.as_str();
    // A holder that loses its backup claims the next generation, and goes on with its image.
    if identity.generation <= generation && side.starts_with(&begins_with(Role::Holder, party)) {
        return None;
    }
    Some(if side.starts_with(&begins_with(Role::Backup, party)) {
        format!(
            "this side has won generation {generation}, and has not recorded that it had written everything \
             that it had received"
        )
    } else if is_last {
        format!(
            "{party} held the machine, and this side was its backup, which may not have written everything \
             that it had received: start that side first"
        )
    } else {
        format!(
            "{party} has gone on with the machine in generation {generation}, with an image of its own: \
             start that side first"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_shared_disk::Process;
    use lockstep_shared_disk::image::Format;

    fn party(id: u8) -> Party {
        Party {
            id: [id; 16],
            label: Line::shortened("replica"),
            host: Line::shortened("host"),
            boot: [0; 16],
            process: Process::default(),
            address: None,
            written_unix_s: 0,
        }
    }

    fn claim(generation: u32, id: u8) -> Claim {
        Claim {
            generation: Generation(generation),
            machine: MachineId([9; 16]),
            party: party(id),
        }
    }

    fn identity(generation: u32, role: Role, id: u8, clean: bool) -> Identity {
        Identity {
            name: "web".parse().unwrap(),
            machine: MachineId([9; 16]),
            generation: Generation(generation),
            side: side(role, &party(id)),
            clean,
            format: Format::Raw,
            size_bytes: 1 << 20,
        }
    }

    #[test]
    fn only_the_last_holders_image_is_the_newest_after_a_loss() {
        let newest = claim(3, 1);
        let why = |identity: &Identity, ended| not_newest(identity, Some(&newest), ended);
        assert_eq!(why(&identity(3, Role::Holder, 1, false), false), None);
        let backup = why(&identity(3, Role::Backup, 2, false), false).unwrap();
        assert!(backup.contains("was its backup"), "{backup}");
        let older = why(&identity(2, Role::Holder, 2, true), true).unwrap();
        assert!(older.contains("generation 3"), "{older}");
        assert!(why(&identity(3, Role::Holder, 2, false), false).is_some());
        assert_eq!(
            why(&identity(2, Role::Holder, 1, false), false),
            None,
            "it went on"
        );
        assert!(why(&identity(4, Role::Holder, 1, false), false).is_some());
        let taking_over = why(&identity(2, Role::Backup, 1, false), false).unwrap();
        assert!(taking_over.contains("won generation 3"), "{taking_over}");
    }

    #[test]
    fn after_an_end_in_good_order_either_image_is() {
        let newest = claim(3, 1);
        let backup = identity(3, Role::Backup, 2, true);
        assert_eq!(not_newest(&backup, Some(&newest), true), None);
        assert!(not_newest(&backup, Some(&newest), false).is_some());
    }

    #[test]
    fn a_store_that_has_forgotten_the_machine_proves_nothing() {
        assert!(not_newest(&identity(3, Role::Holder, 1, false), None, false).is_some());
        assert_eq!(not_newest(&identity(3, Role::Holder, 1, true), None, false), None);
    }
}
