//! The repository polices itself: who may know what, where `unsafe` may stand, how large a file may
//! be.
//!
//! [`policy`] has the tables, which follow ARCHITECTURE.md; [`paths`] finds what a Rust source
//! names; [`tree`] lists the files. Each check is a function of text, and each has a test here that
//! shows it failing.

// The helpers of a test may fail as loudly as the test itself.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod circles;
mod paths;
mod policy;
mod tree;

use policy::{Allowed, FILE_LINES_MAX, FLOORS, FOLDERS, LAYERS, MANIFESTS};
use tree::Tree;

/// Everything in `complaints` at once, so that one run shows all there is to mend.
fn assert_none(complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "{} violations:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

#[test]
fn every_source_keeps_to_its_layer() {
    let tree = Tree::of_repository();
    let sources = tree.text_files().filter(|(path, _)| path.ends_with(".rs"));
    assert_none(
        &sources
            .flat_map(|(path, text)| policy::layer_complaints(LAYERS, &path, &text))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn no_files_of_a_crate_import_each_other() {
    let tree = Tree::of_repository();
    let sources = tree
        .text_files()
        .filter(|(path, _)| path.ends_with(".rs") && !policy::is_unit_test(path));
    assert_none(&circles::complaints(
        &sources.collect::<Vec<_>>(),
        policy::CIRCLES,
    ));
}

#[test]
fn every_manifest_keeps_to_its_layer() {
    let tree = Tree::of_repository();
    let manifests = MANIFESTS
        .iter()
        .map(|manifest| (manifest, tree.text(manifest.path)));
    let complaints = manifests.flat_map(|(manifest, text)| policy::manifest_complaints(manifest, &text));
    assert_none(&complaints.collect::<Vec<_>>());
}

#[test]
fn every_crate_imports_what_is_below_it() {
    let tree = Tree::of_repository();
    let beside = |folder: &str| folder.starts_with("tests") || folder.starts_with("guest-images");
    let manifests = tree.text_files().filter_map(|(path, text)| {
        let folder = path.strip_suffix("/Cargo.toml")?.to_owned();
        (!beside(&folder)).then_some((folder, text))
    });
    assert_none(
        &manifests
            .flat_map(|(folder, text)| policy::floor_complaints(FLOORS, &folder, &text))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn floors_name_only_what_is_below() {
    for (at, (folder, allowed)) in FLOORS.iter().enumerate() {
        let below: Vec<_> = FLOORS[..at]
            .iter()
            .map(|(folder, _)| format!("lockstep-{}", folder.trim_start_matches("vmm/")))
            .collect();
        for name in *allowed {
            assert!(
                below.iter().any(|crate_name| crate_name == name),
                "{folder}: {name}"
            );
        }
    }
}

#[test]
fn every_deterministic_module_denies_the_banned_calls() {
    let tree = Tree::of_repository();
    let roots = policy::DETERMINISTIC_ROOTS
        .iter()
        .map(|path| (path, tree.text(path)));
    let complaints = roots.filter_map(|(path, text)| policy::missing_denial(path, &text));
    assert_none(&complaints.collect::<Vec<_>>());
}

#[test]
fn every_table_names_what_exists() {
    let tree = Tree::of_repository();
    let named = LAYERS
        .iter()
        .flat_map(|layer| layer.within.iter().chain(layer.except));
    let complaints = named
        .filter(|folder| !tree.has(folder))
        .map(|folder| format!("no file is under `{folder}`"));
    assert_none(&complaints.collect::<Vec<_>>());
}

#[test]
fn every_top_folder_says_what_it_is() {
    let tree = Tree::of_repository();
    let readmes = FOLDERS.iter().map(|folder| format!("{folder}/README.md"));
    assert_none(
        &readmes
            .filter(|readme| !tree.has(readme))
            .map(|readme| format!("missing: {readme}"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn no_file_is_too_long() {
    let tree = Tree::of_repository();
    let complaints = tree
        .text_files()
        .filter_map(|(path, text)| policy::length_complaint(&path, &text));
    assert_none(&complaints.collect::<Vec<_>>());
}

#[test]
fn no_generated_binary_is_kept() {
    let tree = Tree::of_repository();
    let complaints = tree
        .files()
        .filter_map(|(path, bytes)| policy::binary_complaint(&path, &bytes));
    assert_none(&complaints.collect::<Vec<_>>());
}

// What follows shows that each check can fail.

/// The complaints about `text` as if it stood at `path`.
fn complaints_at(path: &str, text: &str) -> Vec<String> {
    policy::layer_complaints(LAYERS, path, text)
}

#[test]
fn a_clock_in_the_machine_is_found() {
    let text = "fn now() -> u64 {\n    std::time::Instant::now().elapsed().as_secs()\n}";
    let found = complaints_at("vmm/core/src/machine/timer.rs", text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("vmm/core/src/machine/timer.rs:2: `std::time`"),
        "{found:?}"
    );
}

#[test]
fn nested_and_renamed_imports_are_found() {
    let text = "use std::{io, collections::{BTreeMap, HashMap as Map}, thread};";
    let found = complaints_at("vmm/core/src/machine/bus.rs", text);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn kvm_outside_its_folder_is_found() {
    for path in [
        "vmm/core/src/machine/vcpu/mod.rs",
        "vmm/core/src/replica/role.rs",
        "vmm/host/src/outside.rs",
        "vmm/switch/src/run.rs",
        "tests/tests/run.rs",
    ] {
        assert_eq!(complaints_at(path, "use kvm_ioctls::Kvm;").len(), 1, "{path}");
    }
    assert_eq!(
        complaints_at("vmm/kvm/src/mod.rs", "use kvm_ioctls::Kvm;"),
        Vec::<String>::new()
    );
}

#[test]
fn tokio_in_the_replica_is_found_inside_a_macro_too() {
    let text = "async fn wait() { select!(_ = tokio::time::sleep(d) => ()) }";
    assert_eq!(complaints_at("vmm/core/src/replica/role.rs", text).len(), 1);
}

#[test]
fn kvm_and_log_entries_in_the_crates_beside_the_vmm_are_found() {
    assert_eq!(
        complaints_at("logging-channel/src/lib.rs", "use vm_memory::Bytes;").len(),
        1
    );
    assert_eq!(
        complaints_at("shared-disk/src/lib.rs", "use lockstep_logging_channel::Entry;").len(),
        1
    );
}

#[test]
fn printing_past_the_queues_is_found() {
    for text in [
        "fn say() { println!(\"a\") }",
        "fn say() { std::eprintln!(\"a\") }",
        "fn say() { let _ = writeln!(io::stderr(), \"a\"); }",
        "use std::io::{Write, stdout};",
    ] {
        assert_eq!(complaints_at("vmm/host/src/outlets.rs", text).len(), 1, "{text}");
        assert_eq!(
            complaints_at("vmm/process/src/writing/standard.rs", text).len(),
            0,
            "{text}"
        );
    }
}

#[test]
fn unsafe_outside_the_listed_files_is_found() {
    let text = "fn peek(at: *const u8) -> u8 {\n    unsafe { *at }\n}";
    assert_eq!(complaints_at("vmm/core/src/machine/bus.rs", text).len(), 1);
    assert_eq!(complaints_at("vmm/kvm/src/vcpu.rs", text), Vec::<String>::new());
}

#[test]
fn words_in_comments_strings_and_unit_tests_are_no_use() {
    let text = "//! Not std::time.\n/* HashMap */ const A: &str = \"std::thread\";\n\
                #[cfg(test)]\nmod tests { use std::collections::HashMap; }";
    assert_eq!(
        complaints_at("vmm/core/src/machine/bus.rs", text),
        Vec::<String>::new()
    );
}

#[test]
fn code_after_a_unit_test_is_still_read() {
    let text =
        "#[cfg(test)]\nuse std::time::Instant;\nuse std::net::TcpStream;\n#[cfg(not(test))]\nuse std::fs;";
    let found = complaints_at("vmm/core/src/machine/bus.rs", text);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_forbidden_dependency_is_found() {
    let text = "[dependencies]\nserde.workspace = true\nvm-memory.workspace = true\n[dev-dependencies]\nlockstep = \"1\"";
    let manifest = policy::Manifest {
        path: "x/Cargo.toml",
        forbidden: &["vm-memory", "lockstep"],
    };
    assert_eq!(policy::manifest_complaints(&manifest, text).len(), 2);
}

#[test]
fn an_import_of_a_higher_floor_is_found() {
    let text = "[package]\nname = \"lockstep-kvm\"\n\n[dependencies]\nlockstep-core.workspace = true\n\n\
                lockstep-switch.workspace = true\n\n[dev-dependencies]\nlockstep-qualify.workspace = true\n";
    let found = policy::floor_complaints(FLOORS, "vmm/kvm", text);
    assert_eq!(found, ["vmm/kvm/Cargo.toml: `lockstep-switch` is not below it"]);
    assert_eq!(policy::floor_complaints(FLOORS, "vmm/attic", text).len(), 1);
}

#[test]
fn a_missing_denial_is_found() {
    let denial = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
    assert!(policy::missing_denial("a.rs", "//! Machine.\npub mod bus;").is_some());
    assert!(policy::missing_denial("a.rs", &format!("//! Machine.\n// {denial}")).is_some());
    assert_eq!(
        policy::missing_denial("a.rs", &format!("//! Machine.\n{denial}\npub mod bus;")),
        None
    );
}

#[test]
fn a_long_file_is_found() {
    assert_eq!(
        policy::length_complaint("a.rs", &"x\n".repeat(FILE_LINES_MAX)),
        None
    );
    assert!(policy::length_complaint("a.rs", &"x\n".repeat(FILE_LINES_MAX + 1)).is_some());
    assert_eq!(
        policy::length_complaint("Cargo.lock", &"x\n".repeat(FILE_LINES_MAX + 1)),
        None
    );
}

#[test]
fn a_binary_is_found() {
    assert!(policy::binary_complaint("guest-images/smoke", b"\x7fELF\x02\x01\x01\0").is_some());
    assert_eq!(
        policy::binary_complaint("README.md", "Zeitschloß".as_bytes()),
        None
    );
}

/// Complaints about the circles among the files of a crate.
fn circles_among(files: &[(&str, &str)], allowed: &[Allowed]) -> Vec<String> {
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| (format!("vmm/kvm/src/{path}"), (*text).to_owned()))
        .collect();
    circles::complaints(&files, allowed)
}

#[test]
fn a_circle_of_files_is_found_with_what_ties_it() {
    let files = [
        ("lib.rs", "pub mod clock; mod kick; mod vcpu;"),
        ("clock/mod.rs", "use super::vcpu::Core;"),
        (
            "vcpu.rs",
            "mod number { fn f() { super::own(); } }\nuse crate::{kick::Kicker, host};",
        ),
        ("kick.rs", "fn take(clock: &mut super::clock::Clock) {}"),
    ];
    let found = circles_among(&files, &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    for tie in [
        "vmm/kvm/src/clock/mod.rs:1 -> vmm/kvm/src/vcpu.rs (super::vcpu::Core)",
        "vmm/kvm/src/vcpu.rs:2 -> vmm/kvm/src/kick.rs (crate::kick::Kicker)",
        "vmm/kvm/src/kick.rs:1 -> vmm/kvm/src/clock/mod.rs (super::clock::Clock)",
    ] {
        assert!(found[0].contains(tie), "{tie}: {}", found[0]);
    }
}

#[test]
fn a_file_and_the_module_below_it_that_it_uses_are_a_circle() {
    let files = [
        ("lib.rs", ""),
        ("role.rs", "mod turn;\nfn step() { turn::begin(); }"),
        ("role/turn.rs", "use super::Role;"),
    ];
    assert_eq!(circles_among(&files, &[]).len(), 1);
}

#[test]
fn what_is_named_through_a_re_export_is_where_it_is_defined() {
    let files = [
        (
            "lib.rs",
            "mod error; mod link; pub use error::{NetworkError as Failure}; pub use link::Link;",
        ),
        ("error.rs", "fn f() { crate::other(); }"),
        ("link.rs", "use super::Failure;\nuse crate::Failure as Why;"),
    ];
    assert_eq!(circles_among(&files, &[]), Vec::<String>::new());
}

#[test]
fn imports_of_unit_tests_and_inner_modules_make_no_circle() {
    let files = [
        ("lib.rs", ""),
        (
            "a.rs",
            "struct A;\nmod inner { use super::A; }\n#[cfg(test)]\nmod tests { use crate::b::B; }",
        ),
        ("b.rs", "use super::a::A;"),
    ];
    assert_eq!(circles_among(&files, &[]), Vec::<String>::new());
}

#[test]
fn a_circle_that_is_allowed_is_no_complaint_and_one_that_is_gone_is() {
    const A_AND_B: &[Allowed] = &[Allowed {
        within: &["vmm/kvm/src/a.rs", "vmm/kvm/src/b/"],
        why: "they are one thing",
    }];
    let circle = [
        ("lib.rs", ""),
        ("a.rs", "use super::b::B;"),
        ("b/mod.rs", "use super::a::A;"),
    ];
    assert_eq!(circles_among(&circle, A_AND_B), Vec::<String>::new());
    let found = circles_among(&circle[..2], A_AND_B);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(A_AND_B[0].within[0]), "{found:?}");
}
