//! The file `IMAGE.lockstep`: whose disk an image is, and who wrote it last.
//!
//! It has lines of text, each with a key. Later software appends keys, and leaves those that are
//! there as they are; keys that are not known are passed over.

use super::super::error::{ImageError, failed};
use super::super::kinds::Format;
use super::text::{Sealed, seal, unseal};
use super::{path_beside, sync_folder};
use crate::name::{Line, MachineId, MachineName, from_hex};
use lockstep_generation::Generation;
use lockstep_regular_file as regular_file;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// The end of its name.
const SUFFIX: &str = ".lockstep";
/// The end of the name under which it is written.
const TEMPORARY_SUFFIX: &str = ".lockstep-new";

/// Its kind, and the version of its format.
const KIND: &str = "lockstep-disk";
const VERSION: u32 = 1;

/// Bytes of such a file: eight lines, the longest of 260, and room for as many that later software
/// appends.
const BYTES_MAX: u64 = 4096;

/// Whose disk an image is, and who wrote it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the machine.
    pub name: MachineName,
    /// The machine: one run of a guest through all its generations.
    pub machine: MachineId,
    /// Generation in which it was last opened.
    pub generation: Generation,
    /// Label of the side that wrote it last.
    pub side: Line,
    /// True if it was closed after everything had been written.
    pub clean: bool,
    /// Format. It counts more than the first bytes of the image, which a guest can write.
    pub format: Format,
    /// Size of the disk.
    pub size_bytes: u64,
}

impl Identity {
    /// Path of the file beside `image`.
    #[must_use]
    pub fn path(image: &Path) -> PathBuf {
        path_beside(image, SUFFIX)
    }

    /// Reads what is beside `image`; `None` where nobody has used it.
    ///
    /// # Errors
    /// [`ImageError`]: the file is damaged, or of another version.
    pub fn read(image: &Path) -> Result<Option<Self>, ImageError> {
        let path = Self::path(image);
        let bytes = match regular_file::read(&path, BYTES_MAX) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed(&path, "read what is beside the"))?,
        };
        let body = match unseal(&bytes, KIND, VERSION) {
            Sealed::Body(body) => body,
            Sealed::Version(found) => {
                let known = VERSION;
                return Err(ImageError::Version { path, found, known });
            }
            Sealed::Damaged(why) => return Err(ImageError::Beside { path, why }),
        };
        let why = "a line is missing or wrong";
        Self::decode(body)
            .map(Some)
            .ok_or(ImageError::Beside { path, why })
    }

    /// Writes it beside `image`, whole and durable, in place of what is there.
    ///
    /// # Errors
    /// [`ImageError::File`]
    pub fn write(&self, image: &Path) -> Result<(), ImageError> {
        let (path, temporary) = (Self::path(image), path_beside(image, TEMPORARY_SUFFIX));
        let written = File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(self.encode().as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| sync_folder(&path));
        written.map_err(|error| {
            // The next one who writes replaces it.
            let _ = fs::remove_file(&temporary);
            failed(&path, "write what is beside the")(error)
        })
    }

    fn encode(&self) -> String {
        let Self {
            name,
            machine,
            generation,
            side,
            clean,
            format,
            size_bytes,
        } = self;
        let clean = if *clean { "yes" } else { "no" };
        let mut text = format!("{KIND} {VERSION}\nname {name}\nmachine {machine}\n");
        // Writing into a string cannot fail.
        let _ = write!(text, "generation {generation}\nside {side}\nclean {clean}\n");
        let _ = write!(text, "format {format}\nsize {size_bytes}\n");
        seal(text)
    }

    /// Reads the lines below the first.
    fn decode(body: &str) -> Option<Self> {
        let mut lines = body.lines();
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        Some(Self {
            name: value("name")?.parse().ok()?,
            machine: MachineId(from_hex(value("machine")?)?),
            generation: Generation(value("generation")?.parse().ok()?),
            side: Line::exact(value("side")?)?,
            clean: match value("clean")? {
                "yes" => true,
                "no" => false,
                _ => return None,
            },
            format: value("format")?.parse().ok()?,
            size_bytes: value("size")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Image, Options, create};
    use super::*;

    fn sample() -> Identity {
        Identity {
            name: "web".parse().unwrap(),
            machine: MachineId([0xa5; 16]),
            generation: Generation(7),
            side: Line::shortened("left (host a)"),
            clean: false,
            format: Format::Qcow2,
            size_bytes: 1 << 30,
        }
    }

    #[test]
    fn its_bytes_are_a_promise() {
        let expected = "lockstep-disk 1\nname web\nmachine a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5\n\
                        generation 7\nside left (host a)\nclean no\nformat qcow2\nsize 1073741824\n\
                        check ";
        let text = sample().encode();
        let (body, sum) = text.split_at(expected.len());
        assert_eq!(body, expected);
        assert_eq!(sum.len(), 33, "{sum}");
    }

    #[test]
    fn it_is_read_as_it_was_written_and_every_change_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        assert_eq!(Identity::read(&image).unwrap(), None);
        sample().write(&image).unwrap();
        assert_eq!(Identity::read(&image).unwrap(), Some(sample()));
        let path = Identity::path(&image);
        let text = sample().encode();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            Identity::read(&image).unwrap_err();
            fs::write(&path, &text[..at]).unwrap();
            Identity::read(&image).unwrap_err();
        }
        fs::write(&path, vec![b'a'; 5000]).unwrap();
        Identity::read(&image).unwrap_err();
    }

    #[test]
    fn a_key_that_later_software_appends_is_passed_over_and_another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let text = sample().encode();
        let body = text.split_once("check ").unwrap().0;
        let with_sum = |body: &str| seal(body.to_owned());
        fs::write(Identity::path(&image), with_sum(&format!("{body}later 1\n"))).unwrap();
        assert_eq!(Identity::read(&image).unwrap(), Some(sample()));
        let other = body.replace("lockstep-disk 1", "lockstep-disk 2");
        fs::write(Identity::path(&image), with_sum(&other)).unwrap();
        let error = Identity::read(&image).unwrap_err();
        assert!(error.to_string().contains("a later Lockstep"), "{error}");
    }

    #[test]
    fn an_image_of_another_machine_and_one_that_shrank_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        create(&path, 1 << 20, Format::Raw, false).unwrap();
        let image = Image::open(&path, &Options::default()).unwrap();
        let identity = Identity {
            size_bytes: 1 << 20,
            ..sample()
        };
        let (web, mail) = ("web".parse().unwrap(), "mail".parse().unwrap());
        identity.admit(&image, &web).unwrap();
        let error = identity.admit(&image, &mail).unwrap_err().to_string();
        assert!(
            error.contains("is a disk of machine `web`, not of `mail`"),
            "{error}"
        );
        let larger = Identity {
            size_bytes: (1 << 20) + 512,
            ..identity
        };
        let error = larger.admit(&image, &web).unwrap_err().to_string();
        assert!(error.contains("has 1048576 bytes, and had 1049088"), "{error}");
    }
}
