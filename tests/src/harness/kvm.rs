//! `/dev/kvm`: tests that need it share it in an orderly way, or say loudly that they were skipped.

use super::process::is_installed;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

/// Where this is set, a test that would be skipped fails.
pub const NO_SKIP_VARIABLE: &str = "LOCKSTEP_TESTS_NO_SKIP";

/// Single machines run beside each other; a pair with its clients has the host to itself.
static HOST: RwLock<()> = RwLock::new(());

/// For tests of single machines. `None`: there is no usable KVM, and that was said.
#[must_use]
pub fn shared() -> Option<RwLockReadGuard<'static, ()>> {
    usable().then(|| HOST.read().unwrap_or_else(PoisonError::into_inner))
}

/// For tests of pairs and of times. `None`: there is no usable KVM, and that was said.
#[must_use]
pub fn alone() -> Option<RwLockWriteGuard<'static, ()>> {
    usable().then(|| HOST.write().unwrap_or_else(PoisonError::into_inner))
}

fn usable() -> bool {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => true,
        Err(why) => {
            skip(&format!(
                "/dev/kvm cannot be opened ({why}); `make lab-test` needs none"
            ));
            false
        }
    }
}

/// Says that the current test is skipped, past the test runner's capturing. `tests/counted` counts these lines.
///
/// # Panics
/// Where nothing may be skipped.
pub fn skip(why: &str) {
    let current = thread::current();
    let test = current.name().unwrap_or("a test");
    assert!(
        std::env::var_os(NO_SKIP_VARIABLE).is_none(),
        "{test} would be skipped: {why}"
    );
    // A closed standard error is nobody's to see.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// True if the tests have the program `tool`; says otherwise that the current test is skipped.
///
/// # Panics
/// As [`skip`].
#[must_use]
pub fn has_tool(tool: &str) -> bool {
    let found = is_installed(tool);
    if !found {
        skip(&format!("`{tool}` is not there: `make deps` installs it"));
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::harness::process::run;
    use std::process::Command;

    #[test]
    fn what_was_skipped_is_counted_by_its_reason() {
        let tests =
            "echo output; for test in a::b a::c; do echo \"skipped: $test: no moon\" >&2; done; exit 3";
        let mut counted = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/counted"));
        let ended = run(counted.args(["sh", "-c", tests])).expect_code(3);
        assert_eq!(
            ended.stdout,
            "output\n=== 2 tests were skipped\n      2 no moon\n"
        );
        ended.expect_named(&["skipped: a::b: no moon", "skipped: a::c: no moon"]);
    }
}
