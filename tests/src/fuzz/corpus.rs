//! The seeds: small text files, one folder a target. `NAME.hex` is bytes in hexadecimal, where white space and what follows
//! `#` in a line do not count; any other file is its own bytes.

use std::fs;
use std::path::{Path, PathBuf};

/// One input that is kept.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Its file.
    pub name: String,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// Where seeds are: a folder for each target.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

/// The seeds of the target `name`, in the order of their names.
#[must_use]
pub fn seeds(name: &str) -> Vec<Seed> {
    let folder = folder().join(name);
    let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Seed {
    let content = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let bytes = if path.extension().is_some_and(|extension| extension == "hex") {
        let text = String::from_utf8(content).expect("hexadecimal is text");
        from_hex(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    } else {
        content
    };
    Seed { name, bytes }
}

/// The bytes that `text` says.
///
/// # Errors
/// What is no hexadecimal digit, or that one is missing.
pub fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let code = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let letters = code.flat_map(str::chars).filter(|letter| !letter.is_whitespace());
    let digit = |letter: char| {
        letter
            .to_digit(16)
            .ok_or_else(|| format!("`{letter}` is no hexadecimal digit"))
    };
    let digits = letters.map(digit).collect::<Result<Vec<u32>, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(format!("{} digits are no whole bytes", digits.len()));
    }
    Ok(digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect())
}

/// `bytes` as the text of a seed.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    let line = |chunk: &[u8]| chunk.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_their_text() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)).unwrap(), bytes);
    }

    #[test]
    fn spaces_and_comments_do_not_count() {
        assert_eq!(
            from_hex("# a seed\n0a 0B # fe\n\tff").unwrap(),
            [0x0a, 0x0b, 0xff]
        );
    }

    #[test]
    fn what_is_no_hexadecimal_is_refused() {
        assert!(from_hex("0g").unwrap_err().contains("`g`"));
        assert!(from_hex("abc").unwrap_err().contains("3 digits"));
    }
}
