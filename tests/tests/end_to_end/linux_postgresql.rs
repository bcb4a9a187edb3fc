//! Debian's PostgreSQL under Debian's pgbench: when its primary is killed no connection breaks,
//! every committed transaction is there, and the balances fit.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Linux, PATIENCE, PairSpec, Process, kvm, linux, wait_until};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

pub const CLIENTS: u32 = 4;
/// Each client's.
pub const TRANSACTIONS: u32 = 25;
/// Time that all of them may take where a server in an emulator computes for seconds at each.
pub const LONG: Duration = PATIENCE.saturating_mul(2);

/// Every transaction leaves a row in the history, and its amount in three balances.
pub const CHECK: &str = "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts), \
     sum(delta) = (select sum(tbalance) from pgbench_tellers), \
     sum(delta) = (select sum(bbalance) from pgbench_branches) from pgbench_history";

pub fn client(name: &str, address: SocketAddr) -> Command {
    let mut command = linux::client(name);
    command.env("PGHOST", address.ip().to_string());
    command.env("PGPORT", address.port().to_string());
    command.envs([("PGUSER", "postgres"), ("PGDATABASE", "postgres")]);
    command.envs([("PGSSLMODE", "disable"), ("PGGSSENCMODE", "disable")]);
    command
}

/// What the server answers to `query`. The switch turns a client away whose guest takes long to
/// accept its connection: it asks again.
pub fn asked(address: SocketAddr, query: &str) -> String {
    let answer = || {
        let mut command = client("psql", address);
        command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", query]);
        let ended = run(&mut command);
        ended.status.success().then_some(ended.stdout)
    };
    wait_until(answer, || format!("an answer to `{query}`"))
}

/// Starts the load, and gives it when the first transactions have been made. It asks once for each
/// of its connections: where one is turned away it ends, and is started again.
pub fn under_way(address: SocketAddr) -> Process {
    let start = || {
        let mut load = client("pgbench", address);
        load.args(["--no-vacuum", "--progress=1", &format!("--client={CLIENTS}")]);
        load.arg(format!("--transactions={TRANSACTIONS}"));
        Process::start("pgbench", &mut load)
    };
    let mut load = start();
    let first = || {
        let said = load.stderr();
        if !load.is_running() && said.contains("could not create connection") {
            load = start();
        }
        let mut lines = said.lines().filter(|line| line.starts_with("progress:"));
        lines.any(|line| !line.contains(" 0.0 tps")).then_some(())
    };
    wait_until(first, || "transactions".to_owned());
    assert!(load.is_running(), "nothing is under way any more");
    load
}

#[test]
fn every_committed_transaction_is_there_when_the_primary_is_killed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let mut pair = PairSpec::serving(Linux::Postgresql, "").start();
    // Steps of a start that takes minutes in the lab.
    for step in ["is being made", "has been made", "ready to accept connections"] {
        pair.primary.process.wait_for_stdout(step);
    }
    let address = pair.switch().client_address();
    assert_eq!(asked(address, "select 1"), "1\n");
    // Tables, rows by the server, primary keys.
    let _ = run(client("pgbench", address).args(["--initialize", "--init-steps=dtGp"])).expect_code(0);

    let mut load = under_way(address);
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");

    let total = CLIENTS * TRANSACTIONS;
    let ended = load.wait_within(LONG).expect_code(0);
    assert!(
        ended
            .stdout
            .contains(&format!("actually processed: {total}/{total}")),
        "{ended}"
    );
    assert!(
        ended.stdout.contains("number of failed transactions: 0 "),
        "{ended}"
    );
    assert_eq!(asked(address, CHECK), format!("{total}|t|t|t\n"));
    let _ = pair.backup.stop().expect_code(0);
    assert_eq!(pair.backup.summary()["divergences"], 0);
}
