//! A disk as it is written:
//! `IMAGE[,shared][,read-only][,serial=TEXT][,block=512|4096][,aio=io_uring|threads]`
//! `[,on-error=wait|give-way]`.

use crate::error::RunError;
use lockstep_core::machine::disk::{DISKS_MAX, SERIAL_BYTES};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Sector size where none is given: what every guest can use.
const BLOCK_BYTES: u32 = 512;
/// Sector sizes that a guest can be given.
const BLOCK_BYTES_ALL: [u32; 2] = [BLOCK_BYTES, 4096];

/// What carries the requests of a disk out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aio {
    /// The kernel's io_uring.
    IoUring,
    /// Threads, with calls that block.
    Threads,
}

impl Aio {
    const ALL: [Self; 2] = [Self::IoUring, Self::Threads];
}

impl fmt::Display for Aio {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Threads => "threads",
        })
    }
}

/// What a side of a pair does where an error of its host lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Nothing: the request waits until it works.
    #[default]
    Wait,
    /// It leaves the machine to the other side.
    GiveWay,
}

impl OnError {
    const ALL: [Self; 2] = [Self::Wait, Self::GiveWay];
}

impl fmt::Display for OnError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Wait => "wait",
            Self::GiveWay => "give-way",
        })
    }
}

/// Setting of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSetting {
    /// Its image.
    pub image: PathBuf,
    /// Both sides of a pair have this one image; otherwise each has its own.
    pub shared: bool,
    /// The guest cannot write to it.
    pub read_only: bool,
    /// Serial number that the guest reads; none for one by the disk's place.
    pub serial: Option<String>,
    /// Bytes of the sectors that the guest sees.
    pub block_bytes: u32,
    /// What carries its requests out; none for io_uring where it can be used.
    pub aio: Option<Aio>,
    /// What happens where an error of the host lasts.
    pub on_error: OnError,
}

/// Reason why a text does not describe a disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}`: {why}; write IMAGE[,shared][,read-only][,serial=TEXT][,block=512|4096][,aio=io_uring|threads][,on-error=wait|give-way], and a comma in IMAGE twice"
)]
pub struct DiskSettingError {
    text: String,
    why: String,
}

impl FromStr for DiskSetting {
    type Err = DiskSettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: String| DiskSettingError {
            text: text.to_owned(),
            why,
        };
        let mut words = words(text).into_iter();
        let image = words.next().unwrap_or_default();
        if image.is_empty() {
            return Err(wrong("an image is missing".to_owned()));
        }
        let mut disk = Self {
            image: PathBuf::from(image),
            shared: false,
            read_only: false,
            serial: None,
            block_bytes: BLOCK_BYTES,
            aio: None,
            on_error: OnError::default(),
        };
        let mut said = Vec::new();
        for word in words {
            let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
            if said.iter().any(|earlier| earlier == name) {
                return Err(wrong(format!("`{name}` is said twice")));
            }
            said.push(name.to_owned());
            disk.take(&word).map_err(wrong)?;
        }
        Ok(disk)
    }
}

impl DiskSetting {
    fn take(&mut self, word: &str) -> Result<(), String> {
        match word.split_once('=') {
            None if word == "shared" => self.shared = true,
            None if word == "read-only" => self.read_only = true,
            Some(("serial", serial)) => {
                let is_good = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
                if serial.is_empty() || serial.len() > SERIAL_BYTES || !serial.bytes().all(is_good) {
                    return Err(format!(
                        "the serial number `{}` is not 1 to {SERIAL_BYTES} printable ASCII characters",
                        serial.escape_debug()
                    ));
                }
                self.serial = Some(serial.to_owned());
            }
            Some(("block", size)) => {
                self.block_bytes = BLOCK_BYTES_ALL
                    .into_iter()
                    .find(|bytes| bytes.to_string() == size)
                    .ok_or_else(|| format!("a guest's blocks have 512 or 4096 bytes, not `{size}`"))?;
            }
            Some(("aio", way)) => {
                let aio = Aio::ALL.into_iter().find(|aio| aio.to_string() == way);
                let wrong = || format!("requests are carried out by io_uring or threads, not `{way}`");
                self.aio = Some(aio.ok_or_else(wrong)?);
            }
            Some(("on-error", what)) => {
                let on_error = OnError::ALL
                    .into_iter()
                    .find(|on_error| on_error.to_string() == what);
                let wrong = || format!("on an error of the host a disk can wait or give-way, not `{what}`");
                self.on_error = on_error.ok_or_else(wrong)?;
            }
            _ => return Err(format!("`{word}` is not known")),
        }
        Ok(())
    }

    /// Serial number as the guest reads it, where this is the disk at `place` of the machine,
    /// counted from 0.
    #[must_use]
    pub fn serial_at(&self, place: usize) -> [u8; SERIAL_BYTES] {
        let text = self.serial.clone().unwrap_or_else(|| format!("disk{place}"));
        let mut serial = [0; SERIAL_BYTES];
        serial
            .iter_mut()
            .zip(text.bytes())
            .for_each(|(to, from)| *to = from);
        serial
    }

    /// The disks that `texts` describe.
    ///
    /// # Errors
    /// [`RunError::Setting`].
    pub fn all(texts: &[String]) -> Result<Vec<Self>, RunError> {
        let wrong = |why: String| RunError::setting("disk", why);
        let mut all: Vec<Self> = Vec::new();
        for text in texts {
            let disk: Self = text
                .parse()
                .map_err(|why: DiskSettingError| wrong(why.to_string()))?;
            if all.iter().any(|other| other.image == disk.image) {
                return Err(wrong(format!("{} is named twice", disk.image.display())));
            }
            all.push(disk);
        }
        if all.len() > DISKS_MAX {
            return Err(wrong(format!(
                "{} disks: a machine has at most {DISKS_MAX}",
                all.len()
            )));
        }
        Ok(all)
    }
}

impl fmt::Display for DiskSetting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = self.image.display().to_string();
        formatter.write_str(&image.replace(',', ",,"))?;
        if self.shared {
            formatter.write_str(",shared")?;
        }
        if self.read_only {
            formatter.write_str(",read-only")?;
        }
        if let Some(serial) = &self.serial {
            write!(formatter, ",serial={}", serial.replace(',', ",,"))?;
        }
        if self.block_bytes != BLOCK_BYTES {
            write!(formatter, ",block={}", self.block_bytes)?;
        }
        if let Some(aio) = self.aio {
            write!(formatter, ",aio={aio}")?;
        }
        if self.on_error != OnError::default() {
            write!(formatter, ",on-error={}", self.on_error)?;
        }
        Ok(())
    }
}

/// The words between commas, where two commas are one of a word.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(character);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_value_are_the_same() {
        for text in [
            "web.img",
            "/a,,b.qcow2",
            "web.img,shared",
            "web.img,read-only,serial=a b,,c,block=4096",
            "web.img,aio=io_uring",
            "web.img,block=4096,aio=threads",
            "web.img,shared,on-error=give-way",
        ] {
            assert_eq!(text.parse::<DiskSetting>().unwrap().to_string(), text);
        }
        let disk: DiskSetting = "a,,b,block=4096,serial=x,read-only".parse().unwrap();
        assert_eq!(disk.image, PathBuf::from("a,b"));
        assert!(disk.read_only && !disk.shared);
        assert_eq!((disk.serial.as_deref(), disk.block_bytes), (Some("x"), 4096));
    }

    #[test]
    fn wrong_text_teaches_the_right_one() {
        for (text, what) in [
            ("", "an image is missing"),
            (",shared", "an image is missing"),
            ("a,chared", "`chared`"),
            ("a,", "``"),
            ("a,shared,shared", "twice"),
            ("a,block=1024", "1024"),
            ("a,block=512,block=4096", "twice"),
            ("a,serial=", "20 printable"),
            ("a,aio=native", "io_uring or threads"),
            ("a,on-error=stop", "wait or give-way"),
            ("a,serial=123456789012345678901", "20 printable"),
        ] {
            let error = text.parse::<DiskSetting>().unwrap_err().to_string();
            assert!(
                error.contains(what) && error.contains("IMAGE[,shared]"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_machine_has_four_disks_at_most_and_each_once() {
        let all = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            DiskSetting::all(&texts).map_err(|why| why.to_string())
        };
        assert_eq!(all(&["a", "b", "c", "d"]).unwrap().len(), DISKS_MAX);
        assert!(all(&["a", "b", "c", "d", "e"]).unwrap_err().contains("at most 4"));
        assert!(all(&["a", "a,read-only"]).unwrap_err().contains("named twice"));
    }

    #[test]
    fn a_serial_number_is_given_or_says_the_place() {
        let serial = |text: &str| text.parse::<DiskSetting>().unwrap().serial_at(2);
        assert_eq!(&serial("a")[..6], b"disk2\0");
        assert_eq!(&serial("a,serial=x")[..2], b"x\0");
    }
}
