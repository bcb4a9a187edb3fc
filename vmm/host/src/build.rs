//! The name of this build.
//!
//! Two builds of one version can behave differently: another compiler, another feature, a change
//! that was not given a number. What cannot differ unnoticed is the executable itself, so a build
//! is named by the digest of its bytes. The two sides of a pair run the same one; a recording only
//! says which one made it.

use crate::error::RunError;
use std::fs::File;
use std::io;
use std::sync::OnceLock;

/// This program, as it was started: also where its file has been replaced since.
const PROGRAM: &str = "/proc/self/exe";
/// Hexadecimal digits of a name: 128 bits, as every digest of a log.
const NAME_DIGITS: usize = 32;
/// Digits that `--version` shows.
const SHOWN_DIGITS: usize = 12;

/// Name of this build.
///
/// # Errors
/// The program cannot be read.
pub fn name() -> Result<&'static str, RunError> {
    static NAME: OnceLock<String> = OnceLock::new();
    if let Some(name) = NAME.get() {
        return Ok(name);
    }
    let name = digest().map_err(|source| RunError::File {
        action: "read this program to name its build:",
        path: PROGRAM.into(),
        source,
    })?;
    Ok(NAME.get_or_init(|| name))
}

/// The beginning of the name, for people.
#[must_use]
pub fn shown() -> &'static str {
    name()
        .ok()
        .and_then(|name| name.get(..SHOWN_DIGITS))
        .unwrap_or("unknown")
}

fn digest() -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(PROGRAM)?)?;
    Ok(hasher.finalize().to_hex().chars().take(NAME_DIGITS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_named_by_the_bytes_of_the_program() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let digest = blake3::hash(&bytes).to_hex();
        assert_eq!(name().unwrap(), &digest[..NAME_DIGITS]);
        assert_eq!(shown(), &digest[..SHOWN_DIGITS]);
    }
}
