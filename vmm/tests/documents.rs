//! What the documents promise is what the code does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use lockstep::cli::Cli;
use lockstep::status::Status;

const ERRORS: &str = include_str!("../../docs/errors.md");

/// All of them. A new one does not compile here until it has its line.
const ALL: [Status; 9] = [
    Status::Success,
    Status::Failure,
    Status::Usage,
    Status::Configuration,
    Status::Host,
    Status::Divergence,
    Status::Fenced,
    Status::DamagedLog,
    Status::Mismatch,
];

fn position(status: Status) -> usize {
    match status {
        Status::Success => 0,
        Status::Failure => 1,
        Status::Usage => 2,
        Status::Configuration => 3,
        Status::Host => 4,
        Status::Divergence => 5,
        Status::Fenced => 6,
        Status::DamagedLog => 7,
        Status::Mismatch => 8,
    }
}

#[test]
fn every_status_is_listed_above() {
    assert!(
        ALL.iter()
            .enumerate()
            .all(|(index, status)| position(*status) == index)
    );
}

#[test]
fn the_document_lists_every_status_and_no_other() {
    let table = ERRORS
        .split("## ")
        .find(|section| section.starts_with("Exit statuses"))
        .unwrap();
    let rows = table
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit());
    let documented: Vec<(u8, String)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[1].parse().unwrap(), cells[2].to_owned())
        })
        .collect();
    let defined: Vec<(u8, String)> = ALL
        .iter()
        .map(|status| (*status as u8, format!("{status:?}")))
        .collect();

    assert_eq!(documented, defined);
}

#[test]
fn the_help_lists_every_status() {
    let help = <Cli as clap::CommandFactory>::command()
        .render_long_help()
        .to_string();

    for status in ALL {
        assert!(
            help.contains(&format!(" {}  ", status as u8)) || help.contains(&format!(" {} ", status as u8)),
            "{status:?}"
        );
    }
}
