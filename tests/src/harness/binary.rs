//! The `lockstep` command under test: the one named by `LOCKSTEP_BIN`, or else the workspace's own, built here once.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Names another command to test.
pub const BINARY_VARIABLE: &str = "LOCKSTEP_BIN";

/// The `lockstep` command, without arguments.
#[must_use]
pub fn lockstep() -> Command {
    let mut command = Command::new(lockstep_path());
    // What surrounds the tests must not change what they see.
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

/// Where the command is.
///
/// # Panics
/// It cannot be built.
#[must_use]
pub fn lockstep_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os(BINARY_VARIABLE).map_or_else(build, PathBuf::from))
}

/// Builds with the profile of the caller, so that release benchmarks measure a release build.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--workspace",
        "--bin",
        "lockstep",
        "--message-format",
        "json",
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let built = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|why| {
            panic!("cargo does not run: {why}; {BINARY_VARIABLE} may name a built command")
        });
    assert!(
        built.status.success(),
        "`lockstep` cannot be built; {BINARY_VARIABLE} may name a built command"
    );
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| executable(&message))
        .unwrap_or_else(|| panic!("cargo names no executable `lockstep`"))
}

fn executable(message: &Value) -> Option<PathBuf> {
    let is_it = message["reason"] == "compiler-artifact" && message["target"]["name"] == "lockstep";
    message["executable"]
        .as_str()
        .filter(|_| is_it)
        .map(PathBuf::from)
}
