//! The tables of the policy, and the checks that apply them to the text of one file.

use crate::paths;

/// Lines a file may have. Typical are 120 to 250.
pub const FILE_LINES_MAX: usize = 500;

/// Files whose length nobody chooses.
const LENGTH_EXEMPT: &[&str] = &["Cargo.lock"];

/// Top folders, each with a README: what it provides, what it may not know.
pub const FOLDERS: &[&str] = &[
    "generation",
    "guest-images",
    "logging-channel",
    "regular-file",
    "shared-disk",
    "tests",
    "vmm",
];

/// Roots of the deterministic modules, in which clippy refuses the calls and types that clippy.toml
/// lists.
pub const DETERMINISTIC_ROOTS: &[&str] = &["vmm/core/src/machine/mod.rs", "vmm/core/src/replica/mod.rs"];

/// What sources may not name.
pub struct Layer {
    /// Files, or folders with a slash at their end, that it is about.
    pub within: &'static [&'static str],
    /// Those among them that may.
    pub except: &'static [&'static str],
    /// Paths or names that may not stand there.
    pub forbidden: &'static [&'static str],
    /// The reason, which completes "because".
    pub why: &'static str,
}

/// Where Rust sources are.
const ALL: &[&str] = &[
    "generation/",
    "guest-images/",
    "logging-channel/",
    "regular-file/",
    "shared-disk/",
    "tests/",
    "vmm/",
];

/// Host effects and unordered collections: what makes two runs differ.
const NONDETERMINISM: &[&str] = &[
    "std::net",
    "std::os::unix::net",
    "std::thread",
    "std::time",
    "std::fs",
    "std::process",
    "std::env",
    "HashMap",
    "HashSet",
    "RandomState",
    "tokio",
    "crossbeam_channel",
    "rand",
    "getrandom",
    "nix",
    "libc",
];

/// Who may know what.
pub const LAYERS: &[Layer] = &[
    Layer {
        within: &[
            "vmm/core/src/machine/",
            "vmm/core/src/replica/",
            "shared-disk/src/decision.rs",
        ],
        except: &[],
        forbidden: NONDETERMINISM,
        why: "it is a function of its state and its inputs: effects and unordered collections are its host's",
    },
    Layer {
        within: ALL,
        except: &["vmm/kvm/", "vmm/qualify/src/"],
        forbidden: &["kvm_ioctls", "kvm_bindings"],
        why: "KVM is known to two crates only",
    },
    Layer {
        within: &["vmm/core/src/machine/", "vmm/core/src/replica/"],
        except: &[],
        forbidden: &["lockstep_kvm"],
        why: "the machine knows a vCPU as a trait, and the replica knows none",
    },
    Layer {
        within: &["vmm/core/src/machine/"],
        except: &[],
        forbidden: &["crate::replica", "super::replica"],
        why: "the machine cannot tell who stands in its door",
    },
    Layer {
        within: &["vmm/kvm/src/", "vmm/qualify/src/"],
        except: &[],
        forbidden: &[
            "lockstep_core::replica",
            "tokio",
            "std::net",
            "HashMap",
            "HashSet",
        ],
        why: "it is a vCPU and nothing else",
    },
    Layer {
        within: &["logging-channel/"],
        except: &[],
        forbidden: &[
            "kvm_ioctls",
            "kvm_bindings",
            "vm_memory",
            "virtio_queue",
            "virtio_bindings",
            "vm_superio",
            "lockstep",
        ],
        why: "the channel carries entries and knows neither KVM nor devices",
    },
    Layer {
        within: &["generation/"],
        except: &[],
        forbidden: &[
            "lockstep",
            "lockstep_logging_channel",
            "lockstep_shared_disk",
            "tokio",
        ],
        why: "it is a number that everything else counts by",
    },
    Layer {
        within: &["regular-file/"],
        except: &[],
        forbidden: &[
            "lockstep",
            "lockstep_logging_channel",
            "lockstep_shared_disk",
            "tokio",
        ],
        why: "it opens files and knows nothing else",
    },
    Layer {
        within: &["shared-disk/"],
        except: &[],
        forbidden: &[
            "kvm_ioctls",
            "kvm_bindings",
            "vm_memory",
            "lockstep",
            "lockstep_logging_channel",
        ],
        why: "storage knows neither KVM nor log entries",
    },
    Layer {
        within: &["vmm/"],
        except: &["vmm/host/src/pair/storage.rs"],
        forbidden: &["DirectoryStore"],
        why: "what sort of store it is, is known where the configuration is read, and nowhere else",
    },
    Layer {
        within: &[
            "logging-channel/src/",
            "shared-disk/src/",
            "vmm/core/src/",
            "vmm/host/src/",
            "vmm/demo/src/",
            "vmm/kvm/src/",
            "vmm/network/src/",
            "vmm/process/src/",
            "vmm/qualify/src/",
            "vmm/src/",
            "vmm/switch/src/",
        ],
        except: &["vmm/process/src/writing/"],
        forbidden: &[
            "println",
            "eprint",
            "eprintln",
            "dbg",
            "io::stdout",
            "io::stderr",
            "io::Stdout",
            "io::Stderr",
        ],
        why: "who reads what is written for people must not stop or end the process: `vmm/process/src/writing` writes it",
    },
    Layer {
        within: ALL,
        except: UNSAFE_ALLOWED,
        forbidden: &["unsafe", "unsafe_code"],
        why: "unsafe is only where KVM, memory mapping, signals or ring 3 need it; a new place is listed here with its reason",
    },
];

/// Where `unsafe` may stand.
const UNSAFE_ALLOWED: &[&str] = &[
    // Ioctls, the shared `kvm_run` page, the signal that kicks a vCPU.
    "vmm/kvm/src/",
    // The kernel is given addresses of memory, which it reads and writes by itself.
    "vmm/host/src/disk/carrying/ring.rs",
    // Programs of the self-test guests, and the dirty log.
    "vmm/qualify/src/",
    // Ioctls attach to a TAP interface and ask for its condition.
    "vmm/network/src/tap.rs",
    // Two settings of the allocator, so that the buffers of closed connections are given back.
    "vmm/switch/src/run.rs",
    // tokio watches a descriptor that is none of its own types.
    "vmm/network/src/link.rs",
    // Processes that the demonstration starts end with it, even by SIGKILL: one system call between
    // fork and exec.
    "vmm/demo/src/processes.rs",
    // Guests are programs on bare (virtual) metal.
    "guest-images/",
    // One ioctl, without any crate.
    "tests/lab/probe.rs",
    // Processes that a test starts end with it, whatever way it ends: two system calls between fork
    // and exec.
    "tests/src/harness/process.rs",
];

/// Floors of the house: the crates of our own that each crate may import. Whoever is named stands
/// on a lower floor, so imports only go down. What a crate needs for its tests is not asked about.
pub const FLOORS: &[(&str, &[&str])] = &[
    ("generation", &[]),
    ("regular-file", &[]),
    (
        "logging-channel",
        &["lockstep-generation", "lockstep-regular-file"],
    ),
    ("shared-disk", &["lockstep-generation", "lockstep-regular-file"]),
    ("vmm/process", &[]),
    ("vmm/core", &["lockstep-logging-channel"]),
    ("vmm/demo", &["lockstep-process"]),
    ("vmm/network", &["lockstep-logging-channel", "lockstep-process"]),
    ("vmm/kvm", &["lockstep-core"]),
    (
        "vmm/switch",
        &[
            "lockstep-core",
            "lockstep-logging-channel",
            "lockstep-network",
            "lockstep-process",
        ],
    ),
    (
        "vmm/qualify",
        &["lockstep-core", "lockstep-kvm", "lockstep-logging-channel"],
    ),
    (
        "vmm/host",
        &[
            "lockstep-core",
            "lockstep-kvm",
            "lockstep-logging-channel",
            "lockstep-network",
            "lockstep-process",
            "lockstep-qualify",
            "lockstep-regular-file",
            "lockstep-shared-disk",
        ],
    ),
    (
        "vmm",
        &[
            "lockstep-core",
            "lockstep-host",
            "lockstep-demo",
            "lockstep-generation",
            "lockstep-kvm",
            "lockstep-logging-channel",
            "lockstep-network",
            "lockstep-process",
            "lockstep-qualify",
            "lockstep-regular-file",
            "lockstep-shared-disk",
            "lockstep-switch",
        ],
    ),
];

/// A circle that may be, and why.
pub struct Allowed {
    /// Its files are all in these folders, or are these files.
    pub within: &'static [&'static str],
    /// The reason, which completes "because".
    pub why: &'static str,
}

impl Allowed {
    /// True if `files` are all there.
    pub fn holds(&self, files: &[&str]) -> bool {
        let is_within = |file: &&str| self.within.iter().any(|place| is_within(file, place));
        files.iter().all(is_within)
    }
}

/// Circles of files that are left.
pub const CIRCLES: &[Allowed] = &[
    Allowed {
        within: &["vmm/core/src/replica/role/"],
        why: "the states of one machine lead to each other, and each has a file",
    },
    Allowed {
        within: &["tests/src/simulator/"],
        why: "the world steps its nodes, which act on the world",
    },
    Allowed {
        within: &[
            "guest-images/key-value/src/command.rs",
            "guest-images/key-value/src/commands/",
            "guest-images/key-value/src/context.rs",
            "guest-images/key-value/src/session.rs",
            "guest-images/key-value/src/table.rs",
        ],
        why: "the table names the functions of commands, and some commands tell of the table",
    },
    Allowed {
        within: &["guest-images/key-value/src/store/"],
        why: "a value is of one of the kinds, and each kind counts its bytes as values do",
    },
    Allowed {
        within: &["guest-images/key-value/src/guest/"],
        why: "the heap is divided by what a connection takes, which keeps to its share",
    },
    Allowed {
        within: &["guest-images/runtime/src/"],
        why: "the assembly of ring 0 is given the addresses of ring 3's routines, which call it",
    },
];

/// Complaints about the crates of our own that the manifest `text` of the crate in `folder` names
/// above its floor.
pub fn floor_complaints(floors: &[(&str, &[&str])], folder: &str, text: &str) -> Vec<String> {
    let Some((_, allowed)) = floors.iter().find(|(crate_folder, _)| *crate_folder == folder) else {
        return vec![format!("{folder}: has no floor in FLOORS")];
    };
    let sections = text
        .split("\n[")
        .filter(|section| section.starts_with("dependencies]"));
    let names = sections.flat_map(|section| {
        section
            .lines()
            .filter_map(|line| line.split(['.', '=', ' ']).next())
    });
    names
        .filter(|name| *name == "lockstep" || name.starts_with("lockstep-"))
        .filter(|name| !allowed.contains(name))
        .map(|name| format!("{folder}/Cargo.toml: `{name}` is not below it"))
        .collect()
}

/// Crates that a package may not depend on.
pub struct Manifest {
    /// Its manifest.
    pub path: &'static str,
    /// Names of crates as they stand in a manifest.
    pub forbidden: &'static [&'static str],
}

/// The packages beside the VMM: what is no dependency cannot be known under any name.
pub const MANIFESTS: &[Manifest] = &[
    Manifest {
        path: "logging-channel/Cargo.toml",
        forbidden: &[
            "lockstep",
            "lockstep-shared-disk",
            "kvm-ioctls",
            "kvm-bindings",
            "vm-memory",
            "virtio-queue",
            "virtio-bindings",
            "vm-superio",
        ],
    },
    Manifest {
        path: "vmm/core/Cargo.toml",
        forbidden: &[
            "kvm-ioctls",
            "kvm-bindings",
            "nix",
            "libc",
            "tokio",
            "crossbeam-channel",
            "getrandom",
        ],
    },
    Manifest {
        path: "shared-disk/Cargo.toml",
        forbidden: &[
            "lockstep",
            "lockstep-logging-channel",
            "kvm-ioctls",
            "kvm-bindings",
            "vm-memory",
        ],
    },
];

/// True if `file` is `place`, or under it where `place` ends with a slash.
pub fn is_within(file: &str, place: &str) -> bool {
    if place.ends_with('/') {
        file.starts_with(place)
    } else {
        file == place
    }
}

/// Unit tests in files of their own are no part of the program.
pub fn is_unit_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/src/") && file.contains("/tests/")
}

/// What `text`, which stands in `file`, names against `layers`.
pub fn layer_complaints(layers: &[Layer], file: &str, text: &str) -> Vec<String> {
    let anywhere = |places: &[&str]| places.iter().any(|place| is_within(file, place));
    let concerned: Vec<&Layer> = layers
        .iter()
        .filter(|layer| anywhere(layer.within) && !anywhere(layer.except))
        .collect();
    if concerned.is_empty() || is_unit_test(file) {
        return Vec::new();
    }
    match paths::named(text) {
        Ok(named) => concerned
            .iter()
            .flat_map(|layer| breaches(layer, file, &named))
            .collect(),
        Err(error) => vec![format!("{file}: {error}")],
    }
}

/// What `layer` forbids among `named`.
fn breaches(layer: &Layer, file: &str, named: &[paths::Named]) -> Vec<String> {
    let found = named.iter().filter_map(|name| {
        let pattern = layer.forbidden.iter().find(|pattern| name.contains(pattern))?;
        Some(format!(
            "{file}:{}: `{pattern}` may not stand here, because {}",
            name.line, layer.why
        ))
    });
    found.collect()
}

/// Forbidden dependencies of any sort in the text of a manifest.
pub fn manifest_complaints(manifest: &Manifest, text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.split(['.', '=', ' ']).next());
    let forbidden = names.filter(|name| manifest.forbidden.contains(name));
    forbidden
        .map(|name| format!("{}: may not depend on `{name}`", manifest.path))
        .collect()
}

/// A complaint where the root of a deterministic module does not deny what clippy.toml lists.
pub fn missing_denial(file: &str, text: &str) -> Option<String> {
    let denial = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
    let denied = text.lines().any(|line| line.trim() == denial);
    (!denied).then(|| format!("{file}: must say {denial}"))
}

/// A complaint about a file that is longer than it may be.
pub fn length_complaint(file: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    let too_long =
        lines > FILE_LINES_MAX && !LENGTH_EXEMPT.contains(&file) && !file.starts_with("tests/fuzz/seeds/");
    too_long.then(|| format!("{file}: {lines} lines, at most {FILE_LINES_MAX}"))
}

/// A complaint about a file that is no text: what is built is not kept.
pub fn binary_complaint(file: &str, bytes: &[u8]) -> Option<String> {
    let is_text = !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok();
    (!is_text).then(|| format!("{file}: not a text; recipes are kept, not what they make"))
}
