//! Debian's PostgreSQL under Debian's pgbench: when its primary is killed no connection breaks,
//! every committed transaction is there, and the balances fit.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Linux, PairSpec, Process, kvm, linux, wait_until};
use std::net::SocketAddr;
use std::process::Command;

const CLIENTS: u32 = 4;
/// Each client's.
const TRANSACTIONS: u32 = 50;
/// Transactions that are there before the primary is killed.
const BEFORE: u32 = 20;

/// Every transaction leaves a row in the history, and its amount in three balances.
const CHECK: &str = "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts), \
     sum(delta) = (select sum(tbalance) from pgbench_tellers), \
     sum(delta) = (select sum(bbalance) from pgbench_branches) from pgbench_history";

fn client(name: &str, address: SocketAddr) -> Command {
    let mut command = linux::client(name);
    command.env("PGHOST", address.ip().to_string());
    command.env("PGPORT", address.port().to_string());
    command.envs([("PGUSER", "postgres"), ("PGDATABASE", "postgres")]);
    command.envs([("PGSSLMODE", "disable"), ("PGGSSENCMODE", "disable")]);
    command
}

fn asked(address: SocketAddr, query: &str) -> Ended {
    let mut command = client("psql", address);
    command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", query]);
    run(&mut command).expect_code(0)
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
    // The switch turns a client away whose guest takes long to answer: then again.
    let answers = || {
        run(client("psql", address).args(["--command", "select 1"]))
            .status
            .success()
    };
    wait_until(|| answers().then_some(()), || "an answer".to_owned());
    // Tables, rows by the server, primary keys.
    let _ = run(client("pgbench", address).args(["--initialize", "--init-steps=dtGp"])).expect_code(0);

    let mut load = client("pgbench", address);
    load.args(["--no-vacuum", &format!("--client={CLIENTS}")]);
    load.arg(format!("--transactions={TRANSACTIONS}"));
    let mut load = Process::start("pgbench", &mut load);
    let done = || {
        let text = asked(address, "select count(*) from pgbench_history").stdout;
        text.trim().parse::<u32>().unwrap()
    };
    wait_until(|| (done() >= BEFORE).then_some(()), || "transactions".to_owned());
    assert!(load.is_running(), "nothing is under way any more");
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");

    let total = CLIENTS * TRANSACTIONS;
    let ended = load.wait().expect_code(0);
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
    assert_eq!(asked(address, CHECK).stdout, format!("{total}|t|t|t\n"));
    let _ = pair.backup.stop().expect_code(0);
    assert_eq!(pair.backup.summary()["divergences"], 0);
}
