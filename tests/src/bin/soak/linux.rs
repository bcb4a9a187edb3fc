//! A round of a Linux with a mixed load: recorded for a time while clients are served, then
//! replayed.

use super::load::WRITERS;
use super::round::{CameTo, Round, count, difference, keep_log};
use super::workload::{Workload, command};
use lockstep_tests::harness::linux::LONG;
use lockstep_tests::harness::{Boots, Client, LOOK_INTERVAL, Load, Process, Scratch, Switch};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Beginning of the line after each turn of the guest.
const TURN: &str = "mix: turn ";
/// Beginning of the line where a turn came to a wrong result.
const WRONG: &str = "mix: wrong";

/// Clients check what they have written, and begin anew, so often: their lists stay small.
const SERVED: Duration = Duration::from_secs(60);
/// Between two lines about a replay.
const PROGRESS: Duration = Duration::from_secs(60);
/// A replay that takes so many times as long as its recording, and [`LONG`] more, has stopped.
const SLOWER_MAX: u32 = 5;

/// Records `workload` for half of its share, replays it, and compares.
///
/// # Panics
/// The recording fails, or a client does not find what it has written.
pub fn run(workload: &Workload, round: &Round<'_>, came_to: &mut CameTo) {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let switch = switch(workload, &scratch);
    let start = Instant::now();
    let mut recording = command("record", workload);
    recording.arg("--network").arg(switch.attachment());
    let mut recording = Process::start("record", recording.arg("--log").arg(&log));
    recording.wait_for_stdout(TURN);
    let (time, served) = (round.share / 2, Instant::now());
    while came_to.acknowledged == 0 || served.elapsed() < time && !round.interrupt.is_asked() {
        let load = Load::start(switch.client_address(), WRITERS);
        let until = Instant::now() + SERVED.min(time.saturating_sub(served.elapsed()));
        while Instant::now() < until && !round.interrupt.is_asked() {
            assert!(recording.is_running(), "the recording has ended");
            sleep(LOOK_INTERVAL);
        }
        came_to.acknowledged += check(load, switch.client_address());
        println!(
            "{workload}: recorded {:.0} of {:.0} s, {} turns, {} writes",
            served.elapsed().as_secs_f64(),
            time.as_secs_f64(),
            turns(&recording.stdout()),
            came_to.acknowledged
        );
    }
    recording.signal(Signal::SIGTERM);
    let recorded = recording.wait_within(LONG).expect_code(0);
    came_to.recorded = start.elapsed();
    expect_right(&recorded.stdout);
    count(&log, came_to);
    let start = Instant::now();
    let mut replay = command("replay", workload);
    let mut replay = Process::start("replay", replay.arg("--log").arg(&log));
    let bound = came_to.recorded * SLOWER_MAX + LONG;
    came_to.difference = if ends_within(&mut replay, bound, workload) {
        difference(&recorded, &replay.wait())
    } else {
        Some(format!(
            "the replay does not end within {bound:?}: {}",
            replay.stderr()
        ))
    };
    came_to.replayed = start.elapsed();
    if let Some(difference) = &came_to.difference {
        keep_log(workload, round, &log, difference);
    }
}

/// A switch that leads to what a Linux serves.
///
/// # Panics
/// The workload has another guest.
pub fn switch(workload: &Workload, scratch: &Scratch) -> Switch {
    let Boots::Kernel(linux) = workload.boots else {
        panic!("{workload} serves nothing")
    };
    Switch::start_quiet_to(scratch, linux.port())
}

/// Ends `load`, and gives the writes that were acknowledged to it. They are no longer in the guest.
///
/// # Panics
/// A connection broke, or a write is not there as it was made.
pub fn check(load: Load, address: SocketAddr) -> u64 {
    let acknowledged = load.acknowledged();
    load.stop_and_check();
    let _ = Client::connect(address).call(&["FLUSHALL"]);
    acknowledged
}

/// Turns that a console shows.
pub fn turns(console: &str) -> usize {
    console.matches(TURN).count()
}

/// Fails unless every turn on a console was right.
///
/// # Panics
/// One was not.
pub fn expect_right(console: &str) {
    let wrong = console.lines().find(|line| line.contains(WRONG));
    assert_eq!(wrong, None, "the guest has found something wrong");
}

/// True if `process` has ended before `bound`.
fn ends_within(process: &mut Process, bound: Duration, workload: &Workload) -> bool {
    let (start, mut next) = (Instant::now(), PROGRESS);
    while process.is_running() {
        if start.elapsed() > bound {
            return false;
        }
        if start.elapsed() > next {
            println!(
                "{workload}: replaying for {:.0} s, {} turns",
                next.as_secs_f64(),
                turns(&process.stdout())
            );
            next += PROGRESS;
        }
        sleep(LOOK_INTERVAL);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_counted() {
        assert_eq!(turns("mix: turn 1\r\nredis: ready\r\nmix: turn 2\r\n"), 2);
        assert_eq!(turns("guest: ended with status 0\r\n"), 0);
    }

    #[test]
    #[should_panic(expected = "mix: wrong: a copy differs")]
    fn a_wrong_turn_is_found() {
        expect_right("mix: turn 1\r\nmix: wrong: a copy differs\r\nmix: turn 2\r\n");
    }
}
