//! Debian's redis-server: whichever side of its pair is killed or stopped, its clients see one
//! history of the keys that they share, no connection breaks and no write is lost; and Debian's own
//! tools are answered.

use lockstep_tests::campaign::Evidence;
use lockstep_tests::campaign::clients::{Clients, read_all_on};
use lockstep_tests::campaign::promises::Broken;
use lockstep_tests::harness::{
    Client, Linux, Pair, PairSpec, Process, Replica, Reply, SLOWNESS, kvm, linux, wait_until,
};
use nix::sys::signal::Signal;

const CLIENTS: usize = 8;
/// Seed of what the clients ask; when they ask, the machine decides.
const SEED: u64 = 12;
/// Answers to each client before something is done, and after it.
const ANSWERS: u64 = 20;
/// Where the timeout itself is what is waited for: short enough to wait for, long enough for a busy
/// machine.
const TIMEOUT_MS: u64 = 2_000 * SLOWNESS;
/// What redis-benchmark does, and how often each.
const BENCHMARKS: &str = "ping_mbulk,set,get,incr,lpush,lrange_100,mset";
const BENCHMARK_REQUESTS: &str = "200";

/// A pair, and clients that it has answered.
fn protected() -> (Pair, Clients) {
    let spec = PairSpec::serving(Linux::Redis, "");
    let pair = spec.setting("timeout-ms", &TIMEOUT_MS.to_string()).start();
    let connections = (0..CLIENTS).map(|_| pair.client()).collect();
    let clients = Clients::start_on(connections, SEED);
    wait_for_answers(&clients);
    (pair, clients)
}

/// Waits until each client has [`ANSWERS`] more, or one's connection has broken, which is told at the
/// end.
fn wait_for_answers(clients: &Clients) {
    let enough = clients.fewest_answers() + ANSWERS;
    wait_until(
        || (clients.fewest_answers() >= enough || clients.any_broken()).then_some(()),
        || format!("{enough} answers, only {}", clients.fewest_answers()),
    );
}

/// The survivor serves on, every promise to its clients was kept, and its replay has diverged from
/// nothing.
fn expect_good_end(clients: Clients, mut client: Client, survivor: &mut Replica) {
    wait_for_answers(&clients);
    let accounts = clients.stop(false);
    let (held, last) = read_all_on(&mut client, CLIENTS).unwrap();
    let evidence = Evidence {
        accounts,
        last,
        held,
        ..Evidence::default()
    };
    assert_eq!(Broken::promises(&evidence, false), Broken::default());
    let _ = survivor.stop().expect_code(0);
    assert_eq!(survivor.summary()["divergences"], 0);
}

fn expect_fenced(replica: &mut Replica) {
    replica.process.signal(Signal::SIGCONT);
    let ended = replica.process.wait().expect_code(41);
    ended.expect_named(&["fenced"]);
}

#[test]
fn nothing_is_lost_with_a_killed_primary() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let (mut pair, clients) = protected();
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    expect_good_end(clients, pair.client(), &mut pair.backup);
}

#[test]
fn nothing_is_lost_with_a_stopped_primary_which_is_fenced() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let (mut pair, clients) = protected();
    pair.primary.process.signal(Signal::SIGSTOP);
    pair.backup.wait_for("live");
    wait_for_answers(&clients);
    expect_fenced(&mut pair.primary);
    expect_good_end(clients, pair.client(), &mut pair.backup);
}

#[test]
fn a_killed_backup_is_not_missed() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let (mut pair, clients) = protected();
    let _ = pair.backup.process.kill();
    pair.primary.wait_for("solo");
    expect_good_end(clients, pair.client(), &mut pair.primary);
}

#[test]
fn a_stopped_backup_is_not_missed_and_is_fenced() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let (mut pair, clients) = protected();
    pair.backup.process.signal(Signal::SIGSTOP);
    pair.primary.wait_for("solo");
    wait_for_answers(&clients);
    expect_fenced(&mut pair.backup);
    expect_good_end(clients, pair.client(), &mut pair.primary);
}

#[test]
fn debian_s_own_benchmark_runs_through_a_failover() {
    let Some(_kvm) = kvm::alone() else { return };
    if !linux::offered() {
        return;
    }
    let mut pair = PairSpec::serving(Linux::Redis, "").start();
    let address = pair.switch().client_address();
    let mut client = pair.client();
    let mut benchmark = linux::client("redis-benchmark");
    benchmark.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    benchmark.args([
        "-n",
        BENCHMARK_REQUESTS,
        "-c",
        "8",
        "-P",
        "4",
        "--csv",
        "-t",
        BENCHMARKS,
    ]);
    let mut benchmark = Process::start("redis-benchmark", &mut benchmark);
    // Its first writes have been made.
    wait_until(
        || (client.call(&["DBSIZE"]) != Reply::Integer(0)).then_some(()),
        || "writes".to_owned(),
    );
    assert!(benchmark.is_running(), "nothing is under way any more");
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    // It ends where a connection breaks.
    let ended = benchmark.wait().expect_code(0);
    let results = ended.stdout.lines().filter(|line| line.starts_with('"'));
    // A heading, and an LPUSH that LRANGE brings with it.
    assert_eq!(results.count(), BENCHMARKS.split(',').count() + 2, "{ended}");
    assert!(!format!("{ended}").contains("Error"), "{ended}");
    assert_eq!(client.call(&["PING"]), Reply::Simple("PONG".to_owned()));
    let _ = pair.backup.stop().expect_code(0);
    assert_eq!(pair.backup.summary()["divergences"], 0);
}
