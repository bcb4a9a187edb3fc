//! Writes the seeds of every fuzz target as bytes, each into `DIRECTORY/TARGET/`: where libFuzzer begins.
#![allow(clippy::expect_used, reason = "a tool of the build may fail")]

use lockstep_tests::fuzz::{TARGETS, corpus};
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .expect("usage: fuzz_corpus DIRECTORY");
    for target in TARGETS {
        let folder = directory.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for seed in corpus::seeds(target.name) {
            std::fs::write(folder.join(seed.name), seed.bytes)?;
        }
    }
    Ok(())
}
