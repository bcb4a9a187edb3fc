//! The claims of a pair as files, with calls that block.
//!
//! ```text
//! <directory>/identity                               names this directory, so that two sides can compare
//! <directory>/<pair, 32 digits>/pair                 made when a side of the pair opens the store
//! <directory>/<pair, 32 digits>/generation-0000000002    the claim of generation 2
//! ```
//!
//! Opening makes the directory of the pair; claiming never does. If the file system is unmounted while the pair
//! runs, the empty mount point has no such directory, and a claim finds the storage unreachable instead of
//! winning on a local disk that the other side does not see.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::claim::{Hex, from_hex};
use crate::publish::{Probe, Step, classify, prepare, publish, sync_directory};
use crate::{Claimant, Generation, PairName, StoreError, Verdict};

/// First words of a claim; the number is the version of its format.
const CLAIM_MAGIC: &str = "lockstep-claim 1";

/// First words of the file that names a pair.
const PAIR_MAGIC: &str = "lockstep-pair 1";

/// First words of the file that names a directory.
const IDENTITY_MAGIC: &str = "lockstep-shared-directory 1";

/// Claims of one pair, in a directory.
#[derive(Clone, Debug)]
pub struct DirectoryClaims {
    directory: PathBuf,
}

impl DirectoryClaims {
    /// Opens the store of `pair` in `directory`, which must exist. Does there what a claim does, so that a
    /// directory that will not do is refused now.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] where a person has to do something, [`StoreError::Unreachable`] where it may
    /// pass.
    pub fn open(directory: &Path, pair: PairName) -> Result<Self, StoreError> {
        refuse_missing(directory)?;
        let own = directory.join(pair.to_string());
        match fs::create_dir(&own) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(classify(&own, "create a directory", error));
            }
            _ => sync_directory(directory, &mut |_| Ok(()))?,
        }
        let content = format!("{PAIR_MAGIC}\n{pair}\n");
        if publish(&own, "pair", None, &content, &mut |_| Ok(()))? != content {
            return Err(StoreError::Damaged {
                path: own.join("pair"),
                detail: "it names another pair",
            });
        }
        Ok(Self { directory: own })
    }

    /// What `directory` is called: 16 bytes that stay the same for its life. `fresh`, which should be random,
    /// becomes its name if it has none. Two sides that find different names do not share a directory.
    ///
    /// # Errors
    /// As [`DirectoryClaims::open`].
    pub fn identity(directory: &Path, fresh: [u8; 16]) -> Result<[u8; 16], StoreError> {
        refuse_missing(directory)?;
        let content = format!("{IDENTITY_MAGIC}\n{}\n", Hex(&fresh));
        let found = publish(directory, "identity", None, &content, &mut |_| Ok(()))?;
        let mut lines = found.lines();
        match (lines.next(), lines.next().and_then(from_hex), lines.next()) {
            (Some(IDENTITY_MAGIC), Some(name), None) => Ok(name),
            _ => Err(StoreError::Damaged {
                path: directory.join("identity"),
                detail: "it holds no name",
            }),
        }
    }

    /// Writes and syncs beforehand what `claimant` needs for claiming `generation`, so that the claim itself waits for the disk once
    /// and not twice. Claims nothing; a claim that was not prepared, or whose preparation failed or was swept away, does it all.
    ///
    /// # Errors
    /// [`StoreError`]: there is nothing prepared.
    pub fn prepare(&self, generation: Generation, claimant: &Claimant) -> Result<(), StoreError> {
        self.prepare_probed(generation, claimant, &mut |_| Ok(()))
    }

    /// Removes the pair's directory, with every claim of the pair.
    ///
    /// Only for a claimant that asks no more, where nobody else asks either: a claim has to be found for as long as anybody may ask for
    /// its generation. One who asks all the same is not told a lie: claiming never makes a directory, so after this the storage is not
    /// there, and nobody wins. The directory is renamed first, so that there is no moment in which a claim is gone and its directory is not.
    ///
    /// # Errors
    /// [`StoreError`]: the directory, or a part of it under the name `.ended-…`, is left.
    pub fn remove(&self) -> Result<(), StoreError> {
        let name = self.directory.file_name().unwrap_or_default();
        let ended = self
            .directory
            .with_file_name(format!(".ended-{}", name.to_string_lossy()));
        fs::rename(&self.directory, &ended).map_err(|error| classify(&self.directory, "rename", error))?;
        fs::remove_dir_all(&ended).map_err(|error| classify(&ended, "remove", error))
    }

    /// Where the claims are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }

    #[cfg(test)]
    pub(super) fn claim(&self, generation: Generation, claimant: &Claimant) -> Result<Verdict, StoreError> {
        self.claim_probed(generation, claimant, &mut |_| Ok(()))
    }

    pub(crate) fn prepare_probed(
        &self,
        generation: Generation,
        claimant: &Claimant,
        probe: Probe<'_>,
    ) -> Result<(), StoreError> {
        let (name, owner) = (claim_name(generation), owner(claimant));
        prepare(
            &self.directory,
            &name,
            &owner,
            &encode(generation, claimant),
            probe,
        )
    }

    /// As [`crate::TestAndSet::claim`], and tells `observe` of each system call when it has been made.
    ///
    /// # Errors
    /// [`StoreError`] where there is no verdict. The claim may have been made all the same.
    pub fn claim_observed(
        &self,
        generation: Generation,
        claimant: &Claimant,
        observe: &mut dyn FnMut(Step),
    ) -> Result<Verdict, StoreError> {
        let mut probe = |step| {
            observe(step);
            Ok(())
        };
        self.claim_probed(generation, claimant, &mut probe)
    }

    pub(crate) fn claim_probed(
        &self,
        generation: Generation,
        claimant: &Claimant,
        probe: Probe<'_>,
    ) -> Result<Verdict, StoreError> {
        let (name, owner) = (claim_name(generation), owner(claimant));
        let content = encode(generation, claimant);
        let found = publish(&self.directory, &name, Some(&owner), &content, probe)?;
        let winner = decode(generation, &found).map_err(|detail| StoreError::Damaged {
            path: self.directory.join(&name),
            detail,
        })?;
        Ok(if winner == *claimant {
            Verdict::Won
        } else {
            Verdict::Lost { winner }
        })
    }
}

/// While a pair runs a missing directory may come back; at the start it is a mistake.
fn refuse_missing(directory: &Path) -> Result<(), StoreError> {
    let doing = "look up";
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(classify(directory, doing, ErrorKind::NotADirectory.into())),
        Err(source) if source.kind() == ErrorKind::NotFound => {
            let hint = "create it, or mount the file system it is on";
            Err(StoreError::Unusable {
                path: directory.to_owned(),
                doing,
                hint,
                source,
            })
        }
        Err(error) => Err(classify(directory, doing, error)),
    }
}

fn claim_name(generation: Generation) -> String {
    format!("generation-{:010}", generation.0)
}

fn owner(claimant: &Claimant) -> String {
    Hex(&claimant.id()).to_string()
}

pub(super) fn encode(generation: Generation, claimant: &Claimant) -> String {
    format!(
        "{CLAIM_MAGIC}\ngeneration {}\nclaimant {}\nlabel {}\n",
        generation.0,
        Hex(&claimant.id()),
        claimant.label()
    )
}

fn decode(generation: Generation, text: &str) -> Result<Claimant, &'static str> {
    let mut lines = text.lines();
    if lines.next() != Some(CLAIM_MAGIC) {
        return Err("it is no claim of a known version");
    }
    if lines.next() != Some(format!("generation {}", generation.0).as_str()) {
        return Err("it claims another generation");
    }
    let id = lines
        .next()
        .and_then(|line| line.strip_prefix("claimant "))
        .and_then(from_hex);
    let label = lines.next().and_then(|line| line.strip_prefix("label "));
    match (id, label, lines.next()) {
        (Some(id), Some(label), None) => Ok(Claimant::new(id, label)),
        _ => Err("it names no claimant"),
    }
}
