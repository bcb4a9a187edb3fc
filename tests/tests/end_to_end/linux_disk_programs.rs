//! Programs that keep data on a mirrored root, while the side that acts is killed again and again:
//! nothing that was durable is lost, and every program judges its own data.

use super::linux_disk::{ENOUGH, Hosts, last_number, wait_for_more};
use super::linux_postgresql::{CHECK, CLIENTS, LONG, TRANSACTIONS, asked, client, under_way};
use lockstep_tests::harness::linux::ENDED;
use lockstep_tests::harness::linux_disk::Root;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Linux, Process, Switch, kvm, linux};

/// Kills the side that acts, so often: what the full form has, and what a short one has time for.
const FAILURES: usize = 10;
const FAILURES_SHORT: usize = 2;

/// Has `program` work on a protected machine whose sides are lost so often, and then end. Gives
/// what it has printed since the last loss.
fn survived(root: Root, program: &str, failures: usize, first: &str) -> String {
    let hosts = Hosts::new(root, program);
    let mut sides = hosts.start_both();
    sides.holder.process.wait_for_stdout(first);
    for _ in 0..failures {
        sides = sides.fail_over(&hosts);
        wait_for_more(&sides.holder);
    }
    sides.holder.process.type_in(ENOUGH);
    let said = sides.holder.process.wait_for_stdout(&format!("{ENDED} 0"));
    hosts.expect_good_end(sides);
    said
}

fn expect_transactions(failures: usize) {
    let said = survived(Root::SQLITE, "transact", failures, "committed 5");
    let last = last_number(&said, "committed");
    assert!(last > 5, "{said}");
    let lines = [
        "ok".to_owned(),
        format!("{last} transactions, the last one {last}"),
        "the balances are 16000".to_owned(),
        "0 accounts differ".to_owned(),
    ];
    for line in lines {
        assert!(said.lines().any(|found| found.trim() == line), "{line}: {said}");
    }
}

#[test]
fn sqlite_has_every_transaction_after_two_failures() {
    let Some(_kvm) = kvm::alone() else { return };
    if linux::offered() {
        expect_transactions(FAILURES_SHORT);
    }
}

#[test]
fn sqlite_has_every_transaction_after_ten_failures() {
    let Some(_kvm) = kvm::alone() else { return };
    if linux::offered() {
        expect_transactions(FAILURES);
    }
}

#[test]
fn fio_reads_what_it_has_written_after_two_failures() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let said = survived(
        Root::FIO,
        "verify 1",
        FAILURES_SHORT,
        "round 1 is what was written",
    );
    assert!(last_number(&said, "verify: round") > 1, "{said}");
}

/// PostgreSQL on a mirrored root: a round of pgbench for each loss, in whose middle it is.
fn expect_balances(failures: usize) {
    let mut hosts = Hosts::new(Root::POSTGRESQL, "serve");
    // The database is made before the machine is protected: the other side gets it with the image.
    let mut making = Root::POSTGRESQL.command("run", &hosts.image("left"), &Linux::running("serve nobody"));
    let made = Process::start("making", &mut making)
        .wait_within(linux::LONG)
        .expect_code(0);
    assert!(made.stdout.contains("has been made"), "{made}");
    hosts.switch = Some(Switch::start_quiet_to(&hosts.scratch, Linux::Postgresql.port()));
    let mut sides = hosts.start_both();
    sides
        .holder
        .process
        .wait_for_stdout("ready to accept connections");
    let address = hosts.switch.as_ref().unwrap().client_address();
    let _ = asked(address, "select 1");
    let _ = run(client("pgbench", address).args(["--initialize", "--init-steps=dtGp"])).expect_code(0);
    let each = CLIENTS * TRANSACTIONS;
    for round in 1..=failures as u32 {
        let mut load = under_way(address);
        sides = sides.fail_over(&hosts);
        let ended = load.wait_within(LONG).expect_code(0);
        let whole = format!("actually processed: {each}/{each}");
        for text in [&whole[..], "number of failed transactions: 0 "] {
            assert!(ended.stdout.contains(text), "{ended}");
        }
        assert_eq!(asked(address, CHECK), format!("{}|t|t|t\n", round * each));
    }
    let _ = sides.newcomer.stop().expect_code(0);
    let _ = sides.holder.stop().expect_code(0);
}

#[test]
fn postgresql_has_every_transaction_after_two_failures() {
    let Some(_kvm) = kvm::alone() else { return };
    if linux::offered() {
        expect_balances(FAILURES_SHORT);
    }
}

#[test]
fn postgresql_has_every_transaction_after_ten_failures() {
    let Some(_kvm) = kvm::alone() else { return };
    if linux::offered() {
        expect_balances(FAILURES);
    }
}
