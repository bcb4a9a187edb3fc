//! The saved form of devices: what all of them share.
//!
//! A saved type is not the live type: it has the fields in the order of the format
//! (docs/saved-state.md). Saving destructures the live one fully, so that a new field does not
//! compile until somebody has decided about it. Restoring is a constructor, which refuses what no
//! device can be in: a saved state comes from a file or a peer.
//!
//! A saved device is known by its name. Its structure never changes; a device with another
//! structure takes another name.

use lockstep_logging_channel::{Digest, PartDigest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// One device in its saved form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDevice {
    /// Name of the device, and of its digest in the log.
    pub name: String,
    /// Its structure, encoded with postcard.
    pub state: Vec<u8>,
}

/// Why a device cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No such device.
    #[error("it has a device `{name}`, which this program does not know")]
    Unknown {
        /// Its name, shortened.
        name: String,
    },
    /// The same device twice.
    #[error("it has the device `{name}` twice")]
    Repeated {
        /// Its name.
        name: &'static str,
    },
    /// A device of the platform is missing.
    #[error("it has no device `{name}`")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// Not its structure.
    #[error("the state of its device `{name}` cannot be decoded")]
    Malformed {
        /// Its name.
        name: &'static str,
    },
    /// A value that the device never has.
    #[error("its device `{name}` cannot be restored: {field} is {value:#x}, a value that it never has")]
    Impossible {
        /// Its name.
        name: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// A value that the device never has; the bus adds the device's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
}

impl Impossible {
    /// Refuses `value` in `field` unless it is `possible`.
    ///
    /// # Errors
    /// [`Impossible`].
    pub fn unless(possible: bool, field: &'static str, value: impl Into<u64>) -> Result<(), Self> {
        if possible {
            Ok(())
        } else {
            Err(Self {
                field,
                value: value.into(),
            })
        }
    }
}

/// Characters of a foreign name that an error repeats.
const NAME_CHARS_MAX: usize = 40;

impl SavedDevice {
    /// The device `name` in its saved form.
    ///
    /// # Errors
    /// [`NoDigest`]: it has no encoding.
    pub fn new<S: Serialize>(name: &str, saved: &S) -> Result<Self, NoDigest> {
        Ok(Self {
            name: name.to_owned(),
            state: encoded(name, saved)?,
        })
    }

    /// Digest of the saved form: what is compared is what is moved.
    #[must_use]
    pub fn digest(&self) -> PartDigest {
        PartDigest {
            part: self.name.clone(),
            digest: Digest::of(&self.state),
        }
    }
}

/// A part of the machine that cannot be digested: what is not seen is not compared, so the machine
/// stops.
#[derive(Debug, thiserror::Error)]
#[error("there is no digest of the machine's {part}: {why}")]
pub struct NoDigest {
    /// The part.
    pub part: String,
    /// Reason why it cannot be digested.
    pub why: String,
}

/// Digest of a part's saved form.
///
/// # Errors
/// [`NoDigest`]: it has no encoding.
pub fn part<S: Serialize>(name: &str, saved: &S) -> Result<PartDigest, NoDigest> {
    Ok(PartDigest {
        part: name.to_owned(),
        digest: Digest::of(&encoded(name, saved)?),
    })
}

fn encoded<S: Serialize>(name: &str, saved: &S) -> Result<Vec<u8>, NoDigest> {
    postcard::to_stdvec(saved).map_err(|why| NoDigest {
        part: name.to_owned(),
        why: why.to_string(),
    })
}

/// Saved devices, to be taken out by their names.
#[derive(Debug)]
pub struct Taken<'a>(Vec<&'a SavedDevice>);

impl<'a> Taken<'a> {
    /// All of `devices`.
    #[must_use]
    pub fn from(devices: &'a [SavedDevice]) -> Self {
        Self(devices.iter().collect())
    }

    /// Builds the device `name` by `restore`.
    ///
    /// # Errors
    /// [`DeviceError`] where it is not there exactly once, or cannot be built.
    pub fn device<S: DeserializeOwned, D>(
        &mut self,
        name: &'static str,
        restore: impl FnOnce(S) -> Result<D, Impossible>,
    ) -> Result<D, DeviceError> {
        let mut found = self.0.extract_if(.., |device| device.name == name);
        let device = found.next().ok_or(DeviceError::Missing { name })?;
        if found.next().is_some() {
            return Err(DeviceError::Repeated { name });
        }
        let (saved, rest): (S, &[u8]) =
            postcard::take_from_bytes(&device.state).map_err(|_| DeviceError::Malformed { name })?;
        if !rest.is_empty() {
            return Err(DeviceError::Malformed { name });
        }
        restore(saved).map_err(|Impossible { field, value }| DeviceError::Impossible { name, field, value })
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// [`DeviceError::Unknown`].
    pub fn finish(self) -> Result<(), DeviceError> {
        match self.0.first() {
            None => Ok(()),
            Some(device) => Err(DeviceError::Unknown {
                name: device.name.chars().take(NAME_CHARS_MAX).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value that can be made and not encoded.
    struct Unencodable;

    impl Serialize for Unencodable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it has no form"))
        }
    }

    #[test]
    fn a_part_that_cannot_be_encoded_is_an_error_and_no_digest() {
        let why = part("network device", &Unencodable).unwrap_err();
        assert_eq!(why.part, "network device");
        assert!(
            why.to_string()
                .contains("no digest of the machine's network device")
        );
    }
}
