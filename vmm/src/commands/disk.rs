//! `lockstep disk create|info|check|compare`: images of disks, without a machine.

use crate::printing::print_text;
use crate::status::{CommandError, Status};
use lockstep_host::error::RunError;
use lockstep_process::causes::with_causes;
use lockstep_process::writing::standard;
use lockstep_shared_disk::image::{
    self, Bitmap, COPY_BLOCK_BYTES, Compared, Format, Image, ImageError, Look, Options, Sound, User,
};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Size of an image whose maker gives none.
const DEFAULT_SIZE: &str = "10GiB";
/// Width of the names before values.
const NAME_WIDTH: usize = 10;
/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

const AFTER_CREATE_HELP: &str = "\
An image is a file, and grows with what the guest writes. --preallocate takes all the room at once, so
that the disk of the host cannot be full when the guest writes. Nothing is overwritten.

A mirrored pair has an image on each side: make one, and copy it, or make two of the same size.

Try it:
  lockstep disk create --size 10GiB disk.raw
  lockstep disk info disk.raw";

const AFTER_INFO_HELP: &str = "\
Images that a machine uses are looked at, too: nothing is locked, and only the beginning is read.
The status is 0 if all images can be used, 3 if one cannot, or cannot be read.

Try it:
  lockstep disk info *.raw *.qcow2
  lockstep disk info --json disk.raw";

const AFTER_CHECK_HELP: &str = "\
Reads the tables of a qcow2 image, all of them, and what is recorded beside an image of any format. A raw
image has no tables: only its size can be wrong. An image in use is refused.

The status is 0 if the image is sound, 3 if it is not, or cannot be read.";

const AFTER_COMPARE_HELP: &str = "\
Compares what the guest sees, in blocks of 64 KiB: a raw image can equal a qcow2 image. What is a hole in
both is not read. Images in use are refused; a machine compares those of its two sides itself.

The status is 0 if they are equal, 1 if they differ, 3 if one cannot be used.

Try it, after a mirrored pair has ended:
  lockstep disk compare left/disk.raw right/disk.raw";

/// What to do with images.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DiskCommand {
    /// Make an image, which reads as zeroes
    #[command(after_help = AFTER_CREATE_HELP)]
    Create {
        /// The file to make
        path: PathBuf,
        /// Size of the disk: a number of bytes, or with a unit as in 512MiB, 10GiB, 1TiB
        #[arg(long, default_value = DEFAULT_SIZE, value_parser = parse_size)]
        size: u64,
        /// raw, or qcow2 as QEMU writes it. raw needs no tables, which can be lost with the host's
        /// power
        #[arg(long, default_value_t = Format::Raw, value_parser = str::parse::<Format>)]
        format: Format,
        /// Take all the room now
        #[arg(long)]
        preallocate: bool,
    },
    /// What images are: format, size, room, whose disk, who uses it
    #[command(after_help = AFTER_INFO_HELP)]
    Info {
        /// The images
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// One JSON object an image, each on a line
        #[arg(long)]
        json: bool,
    },
    /// True if an image is sound
    #[command(after_help = AFTER_CHECK_HELP)]
    Check {
        /// The image
        path: PathBuf,
    },
    /// Where the contents of two images differ; status 1 if they do
    #[command(after_help = AFTER_COMPARE_HELP)]
    Compare {
        /// One image
        left: PathBuf,
        /// Another
        right: PathBuf,
    },
}

/// Carries `command` out.
///
/// # Errors
/// [`CommandError`]
pub fn disk(command: &DiskCommand) -> Result<Status, CommandError> {
    match command {
        DiskCommand::Create {
            path,
            size,
            format,
            preallocate,
        } => create(path, *size, *format, *preallocate),
        DiskCommand::Info { paths, json } => info(paths, *json),
        DiskCommand::Check { path } => {
            let sound = image::check(path)?;
            print_text(&sound_text(path, &sound), Status::Success)
        }
        DiskCommand::Compare { left, right } => compare(left, right),
    }
}

fn create(path: &Path, size: u64, format: Format, preallocate: bool) -> Result<Status, CommandError> {
    image::create(path, size, format, preallocate)?;
    let room = if preallocate { "preallocated" } else { "sparse" };
    let text = format!("{}: {format}, {size} bytes, {room}\n", path.display());
    print_text(&text, Status::Success)
}

fn info(paths: &[PathBuf], json: bool) -> Result<Status, CommandError> {
    let mut status = Status::Success;
    for path in paths {
        let look = image::look(path)?;
        if look.refused.is_some() {
            status = Status::Configuration;
        }
        let text = if json {
            format!("{}\n", look_json(path, &look))
        } else {
            look_text(path, &look)
        };
        print_text(&text, status)?;
    }
    Ok(status)
}

/// The keys are a promise: they are appended to, and never change their meaning.
fn look_json(path: &Path, look: &Look) -> Value {
    let Look {
        format,
        size_bytes,
        file_bytes,
        allocated_bytes,
        cluster_bytes,
        backing,
        user,
        identity,
        refused,
        bitmap,
    } = look;
    let by = match user {
        User::Some(Some(holder)) => json!({ "process": holder.process, "name": holder.name }),
        User::None | User::Some(None) => Value::Null,
    };
    let identity = identity.as_ref();
    json!({
        "file": path.display().to_string(),
        "format": format.map(|format| format.to_string()),
        "size_bytes": size_bytes,
        "file_bytes": file_bytes,
        "allocated_bytes": allocated_bytes,
        "cluster_bytes": cluster_bytes,
        "backing": backing,
        "in_use": *user != User::None,
        "in_use_by": by,
        "machine": identity.map(|identity| identity.name.to_string()),
        "machine_id": identity.map(|identity| identity.machine.to_string()),
        "generation": identity.map(|identity| identity.generation.0),
        "written_by": identity.map(|identity| identity.side.to_string()),
        "clean": identity.map(|identity| identity.clean),
        "refused": refused.as_ref().map(ToString::to_string),
        "bitmap": bitmap.as_ref().map(bitmap_json),
    })
}

fn bitmap_json(bitmap: &Bitmap) -> Value {
    match bitmap {
        Bitmap::None => json!({ "state": "none" }),
        Bitmap::Marked {
            generation,
            blocks,
            of,
        } => json!({
            "state": "kept",
            "generation": generation.0,
            "marked_blocks": blocks,
            "blocks": of,
        }),
        Bitmap::Refused(why) => json!({ "state": "refused", "why": with_causes(why) }),
    }
}

fn bitmap_text(bitmap: &Bitmap) -> String {
    match bitmap {
        Bitmap::None => "none: a join compares all blocks".to_owned(),
        Bitmap::Marked {
            generation,
            blocks,
            of,
        } => format!("of generation {generation}: {blocks} of {of} blocks may differ from the other side's"),
        Bitmap::Refused(why) => format!("refused, a join compares all blocks: {}", with_causes(why)),
    }
}

fn look_text(path: &Path, look: &Look) -> String {
    let format = look
        .format
        .map_or("not known".to_owned(), |format| format.to_string());
    let mut text = format!("{}: {format}\n", path.display());
    let mut tell = |name: &str, value: String| {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "  {name:NAME_WIDTH$} {value}");
    };
    if let Some(size) = look.size_bytes {
        tell("size", format!("{size} bytes{}", in_units(size)));
    }
    let (allocated, length) = (look.allocated_bytes, look.file_bytes);
    tell("file", format!("{length} bytes, of which {allocated} take room"));
    if let Some(cluster) = look.cluster_bytes {
        tell("clusters", format!("of {cluster} bytes"));
    }
    if let Some(base) = &look.backing {
        tell("overlay", format!("of {}", base.escape_debug()));
    }
    if let Some(identity) = &look.identity {
        let (name, id) = (&identity.name, &identity.machine);
        tell(
            "machine",
            format!("{name} ({id}), generation {}", identity.generation),
        );
        let how = if identity.clean { "closed" } else { "not closed" };
        tell("written", format!("last by {}, and {how}", identity.side));
        if let Some(bitmap) = &look.bitmap {
            tell("bitmap", bitmap_text(bitmap));
        }
    }
    match &look.user {
        User::None => {}
        User::Some(None) => tell("in use", "by a process that is not named".to_owned()),
        User::Some(Some(holder)) => tell("in use", format!("by {holder}")),
    }
    match (&look.refused, &look.backing) {
        (Some(why), _) => tell("result", format!("refused: {why}")),
        (None, Some(_)) => tell("result", "it can be used with its base".to_owned()),
        (None, None) => tell("result", "it can be used".to_owned()),
    }
    text
}

fn sound_text(path: &Path, sound: &Sound) -> String {
    let Sound {
        format,
        size_bytes,
        backing,
        tables,
    } = sound;
    let mut text = format!("{}: sound: {format}, {size_bytes} bytes", path.display());
    if let Some(tables) = tables {
        let _ = write!(text, ", {} clusters hold data", tables.data_clusters);
        if tables.leaked_clusters > 0 {
            let _ = write!(
                text,
                ", {} take room for nothing: `qemu-img check -r leaks` gives it back",
                tables.leaked_clusters
            );
        }
    }
    if let Some(uncounted) = tables
        .map(|tables| tables.uncounted_clusters)
        .filter(|count| *count > 0)
    {
        let _ = write!(
            text,
            ", {uncounted} are not counted, and will be when it is next opened to be written"
        );
    }
    if let Some(base) = backing {
        let _ = write!(text, "; its base {} was not looked at", base.escape_debug());
    }
    text.push('\n');
    text
}

fn compare(left: &Path, right: &Path) -> Result<Status, CommandError> {
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    let [one, other] = [left, right].map(|path| Image::open(path, &options));
    let (one, other) = (one?, other?);
    let mut progress = Progress::new(one.size_bytes().min(other.size_bytes()));
    let compared = image::compare(&one, &other, |block| progress.at(block * COPY_BLOCK_BYTES));
    progress.end();
    let compared = compared.map_err(RunError::other(format!(
        "cannot compare {} and {}",
        left.display(),
        right.display()
    )))?;
    let status = if compared.is_equal() {
        Status::Success
    } else {
        Status::Failure
    };
    print_text(&compared_text(&compared), status)
}

fn compared_text(compared: &Compared) -> String {
    let Compared {
        sizes_bytes: [left, right],
        blocks,
        bytes,
        ..
    } = compared;
    let all = left.min(right).div_ceil(COPY_BLOCK_BYTES);
    let mut text = String::new();
    if left != right {
        let _ = writeln!(text, "the sizes differ: {left} and {right} bytes");
    }
    // Writing into a string cannot fail.
    let _ = match (compared.first_block(), compared.first_byte) {
        (Some(block), Some(byte)) => writeln!(
            text,
            "{blocks} of {all} blocks of 64 KiB differ, in {bytes} bytes; the first is block {block}, at byte {byte}"
        ),
        _ => writeln!(text, "all {all} blocks of 64 KiB are equal"),
    };
    text
}

/// A size as people write it.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err("write a number of bytes, or one with KiB, MiB, GiB or TiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write a whole number".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "a disk has 16 TiB at most".to_owned())
}

/// The size in the largest unit that it is a multiple of.
fn in_units(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let found = units.iter().find(|(shift, _)| bytes.is_multiple_of(1 << shift));
    found.map_or_else(String::new, |(shift, unit)| {
        format!(" ({} {unit})", bytes >> shift)
    })
}

/// A line that is overwritten, where standard error is a terminal; nothing elsewhere.
struct Progress {
    all_bytes: u64,
    /// Time of the last line; none where there is no terminal.
    told: Option<Instant>,
}

impl Progress {
    fn new(all_bytes: u64) -> Self {
        Self {
            all_bytes: all_bytes.max(1),
            told: standard::error_is_terminal().then(Instant::now),
        }
    }

    fn at(&mut self, bytes: u64) {
        let Some(told) = &mut self.told else { return };
        if told.elapsed() >= PROGRESS_EVERY {
            *told = Instant::now();
            let percent = u128::from(bytes) * 100 / u128::from(self.all_bytes);
            standard::messages().rewrite(&format!("compared: {percent} %"));
        }
    }

    fn end(&mut self) {
        if self.told.is_some() {
            standard::messages().rewrite("");
        }
    }
}

impl From<ImageError> for CommandError {
    fn from(why: ImageError) -> Self {
        Self::DiskImage(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("512", 512),
            ("512B", 512),
            ("64K", 65_536),
            ("512MiB", 512 << 20),
            ("10 GiB", 10 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "GiB",
            "-1",
            "1.5GiB",
            "10GB",
            "1PiB",
            "99999999999TiB",
            "1GiBx",
        ] {
            parse_size(text).unwrap_err();
        }
        assert_eq!(in_units(10 << 30), " (10 GiB)");
        assert_eq!(in_units(512), "");
    }
}
