//! `lockstep inspect`: what files are, and what Lockstep would do with them, without running them.

mod disk;
mod tree;

use crate::printing::print_text;
use crate::status::{CommandError, Status};
use lockstep_core::machine::image::ImageError;
use lockstep_core::machine::image::inspect::{Inspection, KernelImage, Type, inspect as look_into};
use lockstep_core::machine::image::linux::initrd::Initrd;
use lockstep_core::machine::image::linux::sites::Counts;
use lockstep_host::error::RunError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tree::Tree;

/// The largest file that is looked into: an initrd with all modules and firmware of a distribution
/// has some 200 MB.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Width of the names before values.
const NAME_WIDTH: usize = 10;

/// Which files, and how to tell.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArguments {
    /// A guest image, a Linux kernel (vmlinuz or vmlinux), a module (.ko, compressed or not), an
    /// initrd, a disk image with ext4
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One JSON object a file, each on a line
    #[arg(long)]
    pub json: bool,
}

/// Looks into each file, and says what it is.
///
/// # Errors
/// [`CommandError`]: a file cannot be read, or standard output cannot be written to.
pub fn inspect(arguments: &InspectArguments) -> Result<Status, CommandError> {
    let mut status = Status::Success;
    for path in &arguments.files {
        let report = Report::of(path)?;
        if report.refused.is_some() {
            status = Status::Configuration;
        }
        let text = if arguments.json {
            serde_json::to_string(&report).map_err(|why| RunError::Other {
                what: "cannot write JSON".to_owned(),
                source: Box::new(why),
            })?
        } else {
            report.text()
        };
        print_text(&format!("{text}\n"), status)?;
    }
    Ok(status)
}

/// The report about a file.
#[derive(Debug, Default, Serialize)]
struct Report {
    file: String,
    /// Its type; nothing if that is not known.
    #[serde(rename = "type")]
    kind: Option<&'static str>,
    /// Why it cannot be used.
    refused: Option<String>,
    /// Format of a disk image.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    /// Size of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    /// What is on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_system: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_protocol: Option<String>,
    /// Compression of a kernel's payload or of an initrd; "none" if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decompressed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<u64>,
    /// Guest memory that it needs, from address 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    /// Instructions that tell of the host: by name, and by section where those are known. They
    /// become exits, and are the reason to refuse a module.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sites: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Instructions that the fixed CPUID hides, and that are left as they are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    hidden: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Places that hold the bytes of such an instruction inside others.
    #[serde(skip_serializing_if = "Option::is_none")]
    inside_others: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archives: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modules: Option<u64>,
    /// Modules that have sites: the first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused_modules: Vec<String>,
}

fn refused_modules(count: u64) -> String {
    format!("{count} of its modules have instructions that tell of the host")
}

impl Report {
    fn of(path: &Path) -> Result<Self, CommandError> {
        if let Some(found) = disk::look(path)? {
            return Ok(Self::of_disk(path, found));
        }
        let file = lockstep_regular_file::read(path, FILE_BYTES_MAX).map_err(|source| RunError::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let mut report = Self {
            file: path.display().to_string(),
            kind: Type::of(&file).map(Type::name),
            ..Self::default()
        };
        match look_into(&file) {
            Err(why) => report.refused = Some(why.to_string()),
            Ok(inspection) => report.tell(inspection),
        }
        Ok(report)
    }

    fn of_disk(path: &Path, found: Result<disk::Disk, String>) -> Self {
        let mut report = Self {
            file: path.display().to_string(),
            kind: Some("disk image"),
            ..Self::default()
        };
        match found {
            Err(why) => report.refused = Some(why),
            Ok(disk) => {
                report.format = Some(disk.format.to_string());
                report.size_bytes = Some(disk.size_bytes);
                report.file_system = disk.content;
                match disk.tree {
                    Err(why) => report.refused = Some(why),
                    Ok(tree) => report.tree(&tree),
                }
            }
        }
        report
    }

    fn tree(&mut self, tree: &Tree) {
        self.entries = Some(tree.entries);
        self.modules = Some(tree.modules);
        self.refused_modules = tree.named.iter().map(ToString::to_string).collect();
        if tree.refused > 0 {
            self.refused = Some(refused_modules(tree.refused));
        }
    }

    fn tell(&mut self, inspection: Inspection) {
        // The modules of an initrd are listed by themselves.
        self.refused = inspection.check().err().map(|why| match why {
            ImageError::Modules { count, .. } => refused_modules(count),
            why => why.to_string(),
        });
        match inspection {
            Inspection::GuestImage(image) => {
                self.entry = Some(image.entry);
                self.inside_others = Some(image.suspicious);
                for (name, count) in image.sites {
                    self.sites.insert(name, [("code".to_owned(), count)].into());
                }
            }
            Inspection::Kernel(kernel) => self.kernel(*kernel),
            Inspection::Module(counts) => self.counts(&counts),
            Inspection::Initrd(initrd) => self.initrd(&initrd),
        }
    }

    fn kernel(&mut self, kernel: KernelImage) {
        let protocol = |version: u16| format!("{}.{:02}", version >> 8, version & 0xff);
        self.counts(&kernel.counts);
        self.compression = Some(kernel.format.map_or("none", |format| format.name()));
        self.version = kernel.version;
        self.boot_protocol = kernel.protocol.map(protocol);
        self.payload_bytes = kernel.payload_bytes;
        self.decompressed_bytes = Some(kernel.vmlinux_bytes);
        self.entry = Some(kernel.entry);
        self.memory_bytes = Some(kernel.end);
    }

    fn counts(&mut self, counts: &Counts) {
        self.inside_others = Some(counts.undecoded);
        for (kind, section, count) in counts.iter() {
            let list = if kind.is_rewritten() {
                &mut self.sites
            } else {
                &mut self.hidden
            };
            let of_kind = list.entry(kind.name()).or_default();
            of_kind.insert(section.to_owned(), count);
        }
    }

    fn initrd(&mut self, initrd: &Initrd) {
        self.compression = Some(initrd.format.map_or("none", |format| format.name()));
        self.decompressed_bytes = Some(initrd.bytes);
        self.archives = Some(initrd.archives);
        self.entries = Some(initrd.entries);
        self.modules = Some(initrd.modules);
        self.refused_modules = initrd.named.iter().map(ToString::to_string).collect();
    }

    /// The report for people.
    fn text(&self) -> String {
        let kind = self.kind.unwrap_or("not known");
        let mut lines = vec![format!("{}: {kind}", self.file)];
        let mut say = |name: &str, value: String| lines.push(format!("  {name:NAME_WIDTH$} {value}"));
        let hexadecimal = |value| format!("{value:#x}");
        if let Some(version) = &self.version {
            say("version", version.clone());
        }
        if let Some(protocol) = &self.boot_protocol {
            say("protocol", protocol.clone());
        }
        if let (Some(format), Some(bytes)) = (&self.format, self.size_bytes) {
            let content = self.file_system.unwrap_or("nothing that is known");
            say("disk", format!("{format}, {bytes} bytes, with {content}"));
        }
        if let (Some(entries), Some(modules)) = (self.entries, self.modules) {
            let archives = self.archives.map(|count| format!(" in {count} archives"));
            let archives = archives.unwrap_or_default();
            say("holds", format!("{entries} entries{archives}, {modules} modules"));
        }
        if let (Some(compression), Some(bytes)) = (self.compression, self.decompressed_bytes) {
            let packed = self.payload_bytes.map(|bytes| format!("{bytes} bytes, "));
            let packed = packed.unwrap_or_default();
            say(
                "packed",
                format!("{compression}, {packed}{bytes} bytes decompressed"),
            );
        }
        if let Some(entry) = self.entry {
            say("entry", hexadecimal(entry));
        }
        if let Some(bytes) = self.memory_bytes {
            say("memory", format!("up to {bytes:#x}"));
        }
        let by_section = |sections: &BTreeMap<String, u64>| {
            let each: Vec<String> = sections
                .iter()
                .map(|(section, count)| format!("{count} in {section}"))
                .collect();
            each.join(", ")
        };
        for (heading, list) in [("sites", &self.sites), ("hidden", &self.hidden)] {
            for (name, sections) in list {
                say(heading, format!("{name}: {}", by_section(sections)));
            }
        }
        for module in &self.refused_modules {
            say("module", module.clone());
        }
        match &self.refused {
            None => say("result", "it can be used".to_owned()),
            Some(why) => say("result", format!("refused: {why}")),
        }
        lines.join("\n")
    }
}
