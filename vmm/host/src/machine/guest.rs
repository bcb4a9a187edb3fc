//! Guests, and how each kind of them begins: its board, its boot protocol, its processor.

use crate::configuration::{Configuration, GuestFiles};
use crate::error::{GuestFile, RunError};
use crate::live::time::TSC_KHZ;
use lockstep_core::machine::acpi;
use lockstep_core::machine::boot::{self, Firmware};
use lockstep_core::machine::cpu::EntryState;
use lockstep_core::machine::cpu::cpuid::{self, Leaf};
use lockstep_core::machine::devices::board::{BoardError, pc};
use lockstep_core::machine::devices::{Board, Devices};
use lockstep_core::machine::image::inspect::{Type, is_executable};
use lockstep_core::machine::image::linux::PreparedKernel;
use lockstep_core::machine::image::sites::Sites;
use lockstep_core::machine::image::{self, ImageError};
use lockstep_core::machine::memory::{self, Memory};
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::Digest;
use lockstep_qualify::Request;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No file of a guest is larger than the memory it is loaded into.
const FILE_BYTES_MAX: u64 = memory::MEMORY_BYTES_MAX;

/// Places of an image that are named at `-v`, of each sort: a screenful. An image can have any
/// number.
const PLACES_SAID_MAX: usize = 40;

/// A guest that has been read.
#[derive(Debug)]
pub(super) struct Guest {
    path: PathBuf,
    /// Digest of the image or the kernel, as its file has it.
    digest: Digest,
    /// The whole of it, as the guest is given it.
    command_line: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Written for Lockstep.
    Small { image: Vec<u8> },
    /// A kernel, and its initial ramdisk. Preparing a kernel takes seconds.
    Linux {
        kernel: Box<PreparedKernel>,
        interrupt_return: u64,
        initrd: Option<Vec<u8>>,
    },
}

/// A guest that is in memory, and has not run.
pub(super) struct Booted {
    /// State in which it is entered.
    pub entry: EntryState,
    /// Its rewritten instructions.
    pub sites: Sites,
    /// Places to be said at `-v`, each sort with what it is.
    places: Vec<(&'static str, Vec<u64>)>,
}

impl Guest {
    /// Reads it.
    ///
    /// # Errors
    /// [`RunError`] naming what cannot be read, or what its command line cannot have.
    pub fn read(files: &GuestFiles, configuration: &Configuration) -> Result<Self, RunError> {
        let said = &configuration.command_line;
        Ok(match files {
            GuestFiles::Image(path) => {
                let image = read(path, "read the guest image")?;
                expect(path, &image, "a guest image", &[Type::GuestImage])?;
                Self {
                    path: path.clone(),
                    digest: Digest::of(&image),
                    command_line: said.clone(),
                    kind: Kind::Small { image },
                }
            }
            GuestFiles::Linux { kernel: path, initrd } => {
                let command_line = boot::linux::complete(said)?;
                let initrd = initrd.as_deref().map(read_initrd).transpose()?;
                let file = read(path, "read the kernel")?;
                expect(path, &file, "a kernel of Linux", &[Type::BzImage, Type::Vmlinux])?;
                let refused = |source| refused(GuestFile::Kernel, path, source);
                let kernel = PreparedKernel::new(&file, configuration.memory_bytes).map_err(refused)?;
                let back = kernel.kernel.iretq.ok_or(ImageError::NoInterruptReturn);
                Self {
                    path: path.clone(),
                    digest: Digest::of(&file),
                    command_line,
                    kind: Kind::Linux {
                        kernel: Box::new(kernel),
                        interrupt_return: back.map_err(refused)?,
                        initrd,
                    },
                }
            }
        })
    }

    /// Its board.
    ///
    /// # Errors
    /// Never: the parts of boards are constants.
    pub fn board(&self, mac: [u8; 6]) -> Result<Board, RunError> {
        let board: Result<Board, BoardError> = match self.kind {
            Kind::Small { .. } => Board::small(mac),
            Kind::Linux { .. } => Board::pc(pc::Configuration { mac }),
        };
        board.map_err(RunError::other("the board cannot be made"))
    }

    /// Its processor.
    pub fn cpuid(&self) -> &'static [Leaf] {
        match self.kind {
            Kind::Small { .. } => &cpuid::TABLE,
            Kind::Linux { .. } => &cpuid::KERNEL_TABLE,
        }
    }

    /// Its requirements of the host, where `request` was made for any guest.
    ///
    /// # Errors
    /// [`RunError::Setting`]: it cannot have what was asked for.
    pub fn request(&self, request: Request) -> Result<Request, RunError> {
        if matches!(self.kind, Kind::Small { .. }) {
            return Ok(request);
        }
        let has_clock = request.clock.is_some_and(|clock| clock != ClockKind::None);
        let refused = [("clock", has_clock), ("window-exits", request.window_exits)];
        if let Some((name, _)) = refused.into_iter().find(|(_, is_asked)| *is_asked) {
            let why = "into a kernel of Linux events enter at exits and common points: leave it out";
            return Err(RunError::setting(name, why));
        }
        Ok(Request {
            kernel: true,
            ..request
        })
    }

    /// True where it runs for long without an exit as a rule: common points are made for it from
    /// the beginning, when all of its memory is still what both sides have read.
    pub fn computes_at_length(&self) -> bool {
        matches!(self.kind, Kind::Linux { .. })
    }

    /// Puts it into `memory`.
    ///
    /// # Errors
    /// [`RunError`] naming what does not fit.
    pub fn boot(&self, memory: &Memory, board: &Board) -> Result<Booted, RunError> {
        let refused = |source| refused(self.file(), &self.path, source);
        match &self.kind {
            Kind::Small { image } => {
                boot::small::write(memory, &self.command_line, TSC_KHZ)?;
                let loaded = image::load(image, memory).map_err(refused)?;
                Ok(Booted {
                    entry: boot::small::entry_state(loaded.entry),
                    sites: loaded.sites,
                    places: vec![
                        (
                            "bytes of a trapped instruction inside another, left as they are",
                            loaded.suspicious,
                        ),
                        (
                            "rewritten outside every function with a size: data, if it is data, is changed (docs/guest-interface.md, Code and data)",
                            loaded.unclaimed,
                        ),
                    ],
                })
            }
            Kind::Linux {
                kernel,
                interrupt_return,
                initrd,
            } => {
                let kernel = kernel.load(memory).map_err(refused)?;
                let tables =
                    acpi::write(memory, board).map_err(RunError::other("the ACPI tables cannot be made"))?;
                let initrd = initrd.as_deref().unwrap_or_default();
                let entry = boot::linux::write(memory, kernel, initrd, &self.command_line, tables)?;
                Ok(Booted {
                    entry,
                    sites: Sites::of_kernel(*interrupt_return),
                    places: Vec::new(),
                })
            }
        }
    }

    /// The state from which it begins again where it restarts itself; a guest that was written for
    /// Lockstep does not.
    pub fn firmware(guest: &Arc<Self>, board: &Board) -> Option<Box<dyn Firmware>> {
        match guest.kind {
            Kind::Small { .. } => None,
            Kind::Linux { .. } => Some(Box::new(Begins {
                guest: guest.clone(),
                board: board.clone(),
            })),
        }
    }

    /// What its file at [`Guest::path`] is.
    fn file(&self) -> GuestFile {
        match self.kind {
            Kind::Small { .. } => GuestFile::Image,
            Kind::Linux { .. } => GuestFile::Kernel,
        }
    }

    /// Its whole command line.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Path of its image or kernel.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Digest of that.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Digest of its initial ramdisk.
    pub fn initrd_digest(&self) -> Option<Digest> {
        match &self.kind {
            Kind::Linux {
                initrd: Some(initrd), ..
            } => Some(Digest::of(initrd)),
            Kind::Linux { initrd: None, .. } | Kind::Small { .. } => None,
        }
    }
}

/// Everything that a guest begins from.
struct Begins {
    guest: Arc<Guest>,
    board: Board,
}

impl Firmware for Begins {
    fn boot(&self, memory: &Memory) -> Result<EntryState, String> {
        let booted = self.guest.boot(memory, &self.board);
        booted.map(|booted| booted.entry).map_err(|why| why.to_string())
    }

    fn devices(&self) -> Result<Devices, String> {
        Devices::new(&self.board).map_err(|why| why.to_string())
    }
}

impl Booted {
    /// Names its places at `-v`.
    pub fn say(&self) {
        for (what, places) in &self.places {
            for address in places.iter().take(PLACES_SAID_MAX) {
                tracing::debug!(address = format!("{address:#x}"), "{what}");
            }
            if let Some(more) = places.len().checked_sub(PLACES_SAID_MAX + 1) {
                tracing::debug!(more = more + 1, "{what}");
            }
        }
        tracing::debug!(sites = self.sites.len(), "instructions rewritten to exit");
    }
}

/// Reads an initial ramdisk, and refuses one whose modules have what would have to be rewritten.
fn read_initrd(path: &Path) -> Result<Vec<u8>, RunError> {
    let bytes = read(path, "read the initial ramdisk")?;
    expect(path, &bytes, "an initial ramdisk", &[Type::Initrd])?;
    image::linux::check_initrd(&bytes).map_err(|source| refused(GuestFile::Initrd, path, source))?;
    Ok(bytes)
}

/// Refuses a file that is known to be something else. What is not known is told by whoever reads it.
fn expect(path: &Path, bytes: &[u8], wanted: &'static str, types: &[Type]) -> Result<(), RunError> {
    // A damaged ELF file, or one of another processor, can be anything.
    let known = Type::of(bytes).filter(|found| *found != Type::GuestImage || is_executable(bytes));
    match known {
        Some(found) if !types.contains(&found) => Err(RunError::OtherType {
            path: path.to_owned(),
            wanted,
            found,
        }),
        _ => Ok(()),
    }
}

fn refused(what: GuestFile, path: &Path, source: ImageError) -> RunError {
    RunError::Image {
        what,
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path, action: &'static str) -> Result<Vec<u8>, RunError> {
    lockstep_regular_file::read(path, FILE_BYTES_MAX).map_err(|source| RunError::File {
        action,
        path: path.to_owned(),
        source,
    })
}
