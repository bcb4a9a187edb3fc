//! The files of the repository: what git keeps or would keep, so that what is built is left out.

use std::path::PathBuf;
use std::process::Command;

/// The files of a repository, by their paths from its top.
pub struct Tree {
    top: PathBuf,
    paths: Vec<String>,
}

impl Tree {
    /// The repository that this test was built from.
    pub fn of_repository() -> Self {
        let top = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let listing = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&top)
            .output()
            .expect("git lists the files of the repository");
        assert!(
            listing.status.success(),
            "git: {}",
            String::from_utf8_lossy(&listing.stderr)
        );
        let names = String::from_utf8(listing.stdout).expect("file names are UTF-8");
        // A file that was removed and not committed yet is still listed.
        let present = names
            .split('\0')
            .filter(|path| !path.is_empty() && top.join(path).is_file());
        let paths = present.map(str::to_owned).collect();
        Self { top, paths }
    }

    /// Whether a file is `path` or, where it ends with a slash, under it.
    pub fn has(&self, path: &str) -> bool {
        self.paths.iter().any(|file| crate::policy::is_within(file, path))
    }

    /// The text of a file that must be there.
    pub fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.top.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Every file with its bytes.
    pub fn files(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.paths.iter().map(|path| {
            let bytes = std::fs::read(self.top.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            (path.clone(), bytes)
        })
    }

    /// Every file that is text.
    pub fn text_files(&self) -> impl Iterator<Item = (String, String)> {
        self.files()
            .filter_map(|(path, bytes)| Some((path, String::from_utf8(bytes).ok()?)))
    }
}
