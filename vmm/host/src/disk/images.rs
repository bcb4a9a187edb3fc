//! The images of a machine's disks, opened and locked.

use super::changes::KeptChanges;
use super::mirrored::Mirrored;
use super::setting::DiskSetting;
use super::shared::SharedImage;
use super::storage::NamedImage;
use super::threads::{Drive, DriveStorage};
use crate::error::RunError;
use crate::progress::Lines;
use lockstep_core::machine::devices::Board;
use lockstep_core::machine::disk::{DiskShape, SECTOR_BYTES};
use lockstep_logging_channel::{Existing, LogError};
use lockstep_shared_disk::image::{COPY_BLOCK_BYTES, ChangedBlocks, Identity, Image, Options};
use std::ffi::OsString;
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Use of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The guest writes to them.
    Written,
    /// The guest writes to them, and those that are shared are opened by the side that acts.
    Pair,
    /// They stay as they are, and what the guest writes goes elsewhere: what a recording and its
    /// replays begin from. They are compared by digest.
    Base,
}

/// An image that is open.
#[derive(Debug)]
struct Opened {
    setting: DiskSetting,
    shape: DiskShape,
    content: Content,
    /// Digest of its content, where it is a base.
    digest: Option<[u8; 32]>,
    /// Blocks that may differ from the other side's, where there is one with an image of its own.
    changes: Option<Arc<KeptChanges>>,
}

/// The image itself.
#[derive(Clone, Debug)]
enum Content {
    Open(Arc<Image>),
    Shared(Arc<SharedImage>),
}

impl Opened {
    /// The image, where it is this side's own.
    fn own(&self) -> Option<&Arc<Image>> {
        match &self.content {
            Content::Open(image) => Some(image),
            Content::Shared(_) => None,
        }
    }
}

/// The images of a machine, in the order of its disks.
#[derive(Debug, Default)]
pub struct Images(Vec<Opened>);

impl Images {
    /// Opens and locks the images of `settings`.
    ///
    /// # Errors
    /// [`RunError`] naming the image that cannot be used.
    pub fn open(settings: &[DiskSetting], purpose: Purpose) -> Result<Self, RunError> {
        let images = settings.iter().enumerate();
        let images = images.map(|(place, setting)| Opened::new(place, setting, purpose));
        images.collect::<Result<_, _>>().map(Self)
    }

    /// Refuses `setting`, which machines with disks cannot have.
    ///
    /// # Errors
    /// [`RunError::Setting`].
    pub fn refuse(&self, setting: &str, why: &str) -> Result<(), RunError> {
        match self.0.first() {
            None => Ok(()),
            Some(opened) => {
                let image = opened.setting.image.display();
                Err(RunError::setting(
                    setting,
                    format!("the machine has disks ({image}): {why}"),
                ))
            }
        }
    }

    /// What the guest sees of them.
    #[must_use]
    pub fn shapes(&self) -> Vec<DiskShape> {
        self.0.iter().map(|opened| opened.shape).collect()
    }

    /// What has to be the same where a log of this machine is replayed; none without disks.
    #[must_use]
    pub fn described(&self) -> Option<String> {
        let mut text = String::new();
        for opened in &self.0 {
            let separator = if text.is_empty() { "" } else { "; " };
            // A string takes everything.
            let _ = write!(text, "{separator}{}, ", opened.shape);
            let _ = match (&opened.content, &opened.digest) {
                (_, Some(digest)) => write!(text, "base {}", hex::encode(digest)),
                (Content::Shared(_), None) => write!(text, "shared"),
                (Content::Open(_), None) => write!(text, "mirrored"),
            };
        }
        (!text.is_empty()).then_some(text)
    }

    /// Images of which each side of a pair has its own.
    #[must_use]
    pub fn mirrored(&self) -> Vec<Mirrored> {
        let places = (0..).zip(&self.0);
        let own = places.filter_map(|(disk, opened)| {
            Some(Mirrored {
                disk,
                image: opened.own()?.clone(),
                changes: opened.changes.clone(),
                path: opened.setting.image.display().to_string(),
            })
        });
        own.collect()
    }

    /// Images of this side's own that the guest writes to.
    pub fn written(&self) -> impl Iterator<Item = &Arc<Image>> {
        let written = self.0.iter().filter(|opened| !opened.setting.read_only);
        written.filter_map(Opened::own)
    }

    /// Forgets which blocks may differ from the other side's: all may.
    pub fn forget_changes(&self, why: &str) {
        for changes in self.0.iter().filter_map(|opened| opened.changes.as_ref()) {
            if let Err(why) = changes.forget(why) {
                tracing::error!("the bitmap of an image is wrong, and cannot be removed: {why}");
            }
        }
    }

    /// The disks of `board`, which has one for each image.
    ///
    /// # Errors
    /// [`RunError::File`]: an image is gone.
    pub fn drives(&self, board: &Board) -> Result<Vec<Drive>, RunError> {
        self.with_storage(board, |opened| {
            Ok(match &opened.content {
                Content::Open(image) => DriveStorage::Own(Arc::new(NamedImage::new(image.clone())?)),
                Content::Shared(image) => DriveStorage::Shared(image.clone()),
            })
        })
    }

    /// The same, where what is written goes into new files beside `log`, which stay.
    ///
    /// # Errors
    /// [`LogError::Exists`], or one cannot be made.
    pub fn recorded(&self, board: &Board, log: &Path, existing: Existing) -> Result<Vec<Drive>, RunError> {
        if existing == Existing::Refuse && log.exists() {
            let path = log.to_owned();
            return Err(LogError::Exists { path }.into());
        }
        let mut place = 0;
        self.with_storage(board, |opened| {
            let path = overlay_of(log, place);
            place += 1;
            // Without a log it is left over from a recording that did not begin.
            if existing == Existing::Overwrite || !log.exists() {
                remove(&path)?;
            }
            let overlay = Image::create_overlay(&path, opened.base()?, &opened.options(false))?;
            Ok(DriveStorage::Own(Arc::new(NamedImage::new(Arc::new(overlay))?)))
        })
    }

    /// The same, where what is written goes into files without a name, which are gone with this
    /// process.
    ///
    /// # Errors
    /// [`RunError`]: one cannot be made.
    pub fn throwaway(&self, board: &Board) -> Result<Vec<Drive>, RunError> {
        let folder = std::env::temp_dir();
        self.with_storage(board, |opened| {
            let overlay = Image::throwaway_overlay(&folder, opened.base()?, &opened.options(false))?;
            Ok(DriveStorage::Own(Arc::new(overlay)))
        })
    }

    fn with_storage(
        &self,
        board: &Board,
        mut storage: impl FnMut(&Opened) -> Result<DriveStorage, RunError>,
    ) -> Result<Vec<Drive>, RunError> {
        let all = self.0.iter().zip(board.disks()).enumerate();
        all.map(|(place, (opened, (device, _)))| {
            let storage = storage(opened)?;
            let name = format!("disk {place} ({})", opened.setting.image.display());
            Ok(Drive {
                device,
                name,
                storage,
                changes: opened.changes.clone(),
                aio: opened.setting.aio,
                on_error: opened.setting.on_error,
            })
        })
        .collect()
    }

    /// Refuses images that belong to a machine of a pair: without it, they would become another
    /// machine's.
    ///
    /// # Errors
    /// [`RunError::Setting`].
    pub fn belong_to_nobody(&self) -> Result<(), RunError> {
        for opened in &self.0 {
            let image = &opened.setting.image;
            if opened.setting.read_only {
                continue;
            }
            let Some(identity) = Identity::read(image)? else {
                // Nobody marks what is written from now on.
                ChangedBlocks::remove(image)?;
                continue;
            };
            let why = format!(
                "{} belongs to the machine {}, whose other side would not know what is written here; \
                 use a copy, or remove {} to give the machine up",
                image.display(),
                identity.name,
                Identity::path(image).display()
            );
            return Err(RunError::setting("disk", why));
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), RunError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(RunError::File {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The file beside `log` into which the disk at `place` is written.
#[must_use]
pub fn overlay_of(log: &Path, place: usize) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(format!(".disk{place}"));
    name.into()
}

impl Opened {
    fn new(place: usize, setting: &DiskSetting, purpose: Purpose) -> Result<Self, RunError> {
        let read_only = setting.read_only || purpose == Purpose::Base;
        let options = options(setting, read_only);
        let path = setting.image.display();
        if purpose == Purpose::Pair && setting.shared {
            let image = SharedImage::find(&setting.image, options)?;
            tracing::info!("disk {place} is {path}, which the side that acts opens");
            return Ok(Self {
                setting: setting.clone(),
                shape: shape(place, setting, image.size_bytes()),
                content: Content::Shared(Arc::new(image)),
                digest: None,
                changes: None,
            });
        }
        let image = Image::open(&setting.image, &options)?;
        tracing::info!("disk {place} is {path} ({}, {})", image.format(), image.access());
        let digest = match purpose {
            Purpose::Written | Purpose::Pair => None,
            Purpose::Base => Some(digest(place, &image)?),
        };
        let changes = match purpose {
            Purpose::Pair if !read_only => Some(Arc::new(KeptChanges::open(&image)?)),
            Purpose::Pair | Purpose::Written | Purpose::Base => None,
        };
        Ok(Self {
            setting: setting.clone(),
            shape: shape(place, setting, image.size_bytes()),
            content: Content::Open(Arc::new(image)),
            digest,
            changes,
        })
    }

    /// The image, as a base.
    fn base(&self) -> Result<Arc<Image>, RunError> {
        let base = self.own().cloned();
        base.ok_or_else(|| RunError::Defect {
            what: "a shared image was to be the base of a recording".to_owned(),
        })
    }

    fn options(&self, read_only: bool) -> Options {
        options(&self.setting, read_only)
    }
}

/// Digest of a base. Of a large one it takes minutes.
fn digest(place: usize, image: &Image) -> Result<[u8; 32], RunError> {
    let (path, bytes) = (image.path(), image.size_bytes());
    let mut lines = Lines::begin();
    let digest = image.digest_telling(|block| {
        if lines.is_due() {
            let read = block * COPY_BLOCK_BYTES;
            tracing::info!(read, bytes, "disk {place} is read, for the digest of its content");
        }
    });
    digest.map_err(|source| RunError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// What the guest sees of the disk at `place`.
fn shape(place: usize, setting: &DiskSetting, size_bytes: u64) -> DiskShape {
    DiskShape {
        sectors: size_bytes / SECTOR_BYTES,
        block_bytes: setting.block_bytes,
        read_only: setting.read_only,
        serial: setting.serial_at(place),
    }
}

fn options(setting: &DiskSetting, read_only: bool) -> Options {
    Options {
        read_only,
        block_bytes: setting.block_bytes,
        ..Options::default()
    }
}
