//! The `lockstep` command under test: the one named by `LOCKSTEP_BIN`, or else the workspace's own,
//! built here once.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Names another command to test.
pub const BINARY_VARIABLE: &str = "LOCKSTEP_BIN";

/// Names the command of an earlier build, for measuring both in turn.
pub const BEFORE_VARIABLE: &str = "LOCKSTEP_BIN_BEFORE";

/// A build of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The one under test.
    Current,
    /// The earlier one that [`BEFORE_VARIABLE`] names.
    Before,
}

/// The earlier build is used. Of the whole process: what measures both does so in turn.
static IS_BEFORE: AtomicBool = AtomicBool::new(false);

impl Build {
    /// The build that [`lockstep()`] is of now.
    #[must_use]
    pub fn now() -> Self {
        if IS_BEFORE.load(Ordering::SeqCst) {
            Self::Before
        } else {
            Self::Current
        }
    }

    /// True if an earlier build is named.
    #[must_use]
    pub fn has_before() -> bool {
        std::env::var_os(BEFORE_VARIABLE).is_some_and(|path| !path.is_empty())
    }

    /// Does something with this build, guests included.
    pub fn used_for<T>(self, what: impl FnOnce() -> T) -> T {
        struct Back(bool);
        impl Drop for Back {
            fn drop(&mut self) {
                IS_BEFORE.store(self.0, Ordering::SeqCst);
            }
        }
        let _back = Back(IS_BEFORE.swap(self == Self::Before, Ordering::SeqCst));
        what()
    }
}

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
    static BEFORE: OnceLock<PathBuf> = OnceLock::new();
    if Build::now() == Build::Before {
        let named = || std::env::var_os(BEFORE_VARIABLE).map(PathBuf::from);
        return BEFORE.get_or_init(|| named().expect("an earlier build is named"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_build_is_used_for_what_is_done_with_it_and_no_longer() {
        assert_eq!(Build::now(), Build::Current);
        let within = Build::Before.used_for(|| (Build::now(), Build::Current.used_for(Build::now)));
        assert_eq!(within, (Build::Before, Build::Current));
        let panicked =
            std::panic::catch_unwind(|| Build::Before.used_for(|| panic!("as where a measurement fails")));
        assert!(panicked.is_err());
        assert_eq!(Build::now(), Build::Current);
    }
}
