//! A round of a pair that is struck and heals all the time: a side is killed under load, the other
//! goes on, a new one joins and is armed, and the next side is killed, until time is up or
//! something is lost.

use super::linux::{check, expect_right, switch, turns};
use super::load::WRITERS;
use super::round::{CameTo, Round};
use super::workload::Workload;
use lockstep_tests::harness::{Load, Replica, SLOWNESS, Scratch, Switch, lockstep, wait_until};
use std::fmt;
use std::time::Instant;

/// Silence after which a peer is given up: long, so that a busy machine causes no failover of its
/// own.
const TIMEOUT_MS: u64 = 4_000 * SLOWNESS;
/// Most that a backup may be behind before the pair parts.
const LAG_MS_MAX: u64 = 60_000;
/// Writes of each client on either side of what happens to the pair.
const WRITES: u64 = 20;

/// A side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Primary,
    Backup,
}

impl Side {
    /// The one that is killed after so many others: both in turn, the primary first.
    fn after(strikes: u64) -> Self {
        match strikes % 2 {
            0 => Self::Primary,
            _ => Self::Backup,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        })
    }
}

/// The machine.
struct Machine<'a> {
    workload: &'a Workload,
    scratch: Scratch,
    switch: Switch,
    started: u64,
}

/// Strikes the pair for the share of its workload, each of its sides once at least.
///
/// # Panics
/// It does not heal, a client loses its connection or a write, a replay diverges, or the guest
/// finds something wrong.
pub fn run(workload: &Workload, round: &Round<'_>, came_to: &mut CameTo) {
    let scratch = Scratch::new();
    scratch.directory("shared");
    let mut machine = Machine {
        workload,
        switch: switch(workload, &scratch),
        scratch,
        started: 0,
    };
    let start = Instant::now();
    let mut primary = machine.start();
    primary.wait_for("begun");
    primary.process.wait_for_stdout("mix: turn");
    let mut backup = machine.start();
    backup.wait_for("armed");
    wait_for_a_turn(&primary);
    println!(
        "{workload}: protected after {:.0} s",
        start.elapsed().as_secs_f64()
    );
    let struck = Instant::now();
    while came_to.strikes < 2 || struck.elapsed() < round.share && !round.interrupt.is_asked() {
        let load = Load::start(machine.switch.client_address(), WRITERS);
        let side = Side::after(came_to.strikes);
        let began = Instant::now();
        match side {
            Side::Primary => {
                let _ = primary.process.kill();
                expect_same(&primary);
                backup.wait_for("live");
                primary = backup;
            }
            Side::Backup => {
                let alone = primary.count("solo");
                let _ = backup.process.kill();
                expect_same(&backup);
                primary.wait_for_count("solo", alone + 1);
            }
        }
        came_to.strikes += 1;
        let goes_on = began.elapsed();
        load.wait_for_more(WRITES);
        backup = machine.start();
        backup.wait_for("armed");
        let armed = began.elapsed();
        // The guest's own work goes on, too.
        wait_for_a_turn(&primary);
        load.wait_for_more(WRITES);
        came_to.acknowledged += check(load, machine.switch.client_address());
        came_to.recorded = start.elapsed();
        for side in [&primary, &backup] {
            expect_same(side);
            expect_right(&side.process.stdout());
        }
        println!(
            "{workload}: {} sides killed in {:.0} of {:.0} s, the {side} last: on after {:.1} s, \
             armed after {:.1} s; {} writes",
            came_to.strikes,
            struck.elapsed().as_secs_f64(),
            round.share.as_secs_f64(),
            goes_on.as_secs_f64(),
            armed.as_secs_f64(),
            came_to.acknowledged
        );
    }
    let _ = backup.process.kill();
    expect_same(&backup);
    let _ = primary.stop().expect_code(0);
    expect_same(&primary);
}

impl Machine<'_> {
    /// A side: the first begins the machine, each later one joins it.
    fn start(&mut self) -> Replica {
        self.started += 1;
        let name = format!("side-{}", self.started);
        let report = self.scratch.join(&format!("{name}.jsonl"));
        let mut command = lockstep();
        command
            .arg("replica")
            .args(self.workload.machine())
            .arg("--name=soak")
            .arg(format!("--timeout-ms={TIMEOUT_MS}"))
            .arg(format!("--lag-ms-max={LAG_MS_MAX}"))
            .arg("--shared-directory")
            .arg(self.scratch.join("shared"))
            .arg("--network")
            .arg(self.switch.attachment())
            .arg("--report")
            .arg(&report);
        Replica::start(&name, &mut command, report)
    }
}

/// Waits until the guest has ended another turn of its load.
fn wait_for_a_turn(acting: &Replica) {
    let before = turns(&acting.process.stdout());
    wait_until(
        || (turns(&acting.process.stdout()) > before).then_some(()),
        || format!("a turn of the guest: {}", acting.account()),
    );
}

/// Fails where a replay was another than its log.
fn expect_same(replica: &Replica) {
    assert_eq!(
        replica.event("diverged"),
        None,
        "a replay has diverged: {}",
        replica.account()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_killed_in_turn() {
        let sides: Vec<Side> = (0..4).map(Side::after).collect();
        assert_eq!(sides, [Side::Primary, Side::Backup, Side::Primary, Side::Backup]);
    }
}
