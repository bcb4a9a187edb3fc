//! Claimants that really race: threads of one process, and processes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};

use lockstep_shared_disk::{DirectoryStore, Generation, MachineStore, Store, Verdict, fake};
use tempfile::TempDir;

const ROUNDS: u32 = 200;
const RACERS: u8 = 4;

/// Set in the processes that race: the directory and the number of the racer.
const DIRECTORY_VARIABLE: &str = "LOCKSTEP_RACE_DIRECTORY";
const NUMBER_VARIABLE: &str = "LOCKSTEP_RACE_NUMBER";

/// A thread's own runtime, and the claims.
struct Racer {
    runtime: tokio::runtime::Runtime,
    claims: Arc<dyn MachineStore>,
}

impl Racer {
    fn open(path: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = DirectoryStore::new(path);
        let claims = runtime.block_on(async { store.open(&"web".parse().unwrap()).await.unwrap() });
        Self { runtime, claims }
    }

    fn race(&self, number: u8) -> Vec<bool> {
        let claim = |round| {
            let verdict = async { self.claims.claim(&fake::claim(Generation(round), number)).await };
            self.runtime.block_on(verdict).unwrap() == Verdict::Won
        };
        (0..ROUNDS).map(claim).collect()
    }
}

fn assert_one_winner_each_round(wins: &[Vec<bool>]) {
    for round in 0..ROUNDS as usize {
        let winners = wins.iter().filter(|racer| racer[round]).count();
        assert_eq!(winners, 1, "round {round}");
    }
}

#[test]
fn of_racing_threads_exactly_one_wins() {
    let directory = TempDir::new().unwrap();
    let barrier = Barrier::new(RACERS.into());
    let wins = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS)
            .map(|number| {
                let (barrier, path) = (&barrier, directory.path());
                scope.spawn(move || {
                    let racer = Racer::open(path);
                    barrier.wait();
                    racer.race(number)
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_one_winner_each_round(&wins);
}

#[test]
fn of_threads_racing_for_the_same_claimant_all_win() {
    let directory = TempDir::new().unwrap();
    let wins = std::thread::scope(|scope| {
        let race = || Racer::open(directory.path()).race(1);
        let racers: Vec<_> = (0..RACERS).map(|_| scope.spawn(race)).collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(wins.iter().flatten().all(|won| *won));
}

#[test]
fn of_racing_processes_exactly_one_wins() {
    let directory = TempDir::new().unwrap();
    let mut racers: Vec<_> = (0..RACERS)
        .map(|number| {
            Command::new(std::env::current_exe().unwrap())
                .args(["racing_process", "--exact", "--ignored", "--nocapture"])
                .env(DIRECTORY_VARIABLE, directory.path())
                .env(NUMBER_VARIABLE, number.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for racer in &mut racers {
        racer.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    let wins: Vec<_> = racers
        .into_iter()
        .map(|racer| {
            let output = racer.wait_with_output().unwrap();
            assert!(output.status.success());
            let text = String::from_utf8(output.stdout).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("wins ")).unwrap();
            line.chars().map(|won| won == '1').collect()
        })
        .collect();
    assert_one_winner_each_round(&wins);
}

/// Not a test of its own: what the processes above run.
#[test]
#[ignore = "run by of_racing_processes_exactly_one_wins"]
fn racing_process() {
    let Some(path) = std::env::var_os(DIRECTORY_VARIABLE) else {
        return;
    };
    let number = std::env::var(NUMBER_VARIABLE).unwrap().parse().unwrap();
    let racer = Racer::open(Path::new(&path));
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let wins: String = racer
        .race(number)
        .iter()
        .map(|won| if *won { '1' } else { '0' })
        .collect();
    println!("\nwins {wins}");
}
