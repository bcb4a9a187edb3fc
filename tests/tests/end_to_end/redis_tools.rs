//! The unmodified `redis-cli` and `redis-benchmark` against the key-value guest, alone and protected.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Client, Guest, PairSpec, Process, Scratch, Switch, kvm, lockstep};
use std::net::SocketAddr;
use std::process::Command;

/// Everything redis-benchmark knows that the guest does.
const BENCHMARKS: &str =
    "ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,lrange_100,mset";

fn tool(name: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(name);
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command
}

fn cli(address: SocketAddr, words: &[&str]) -> String {
    run(tool("redis-cli", address).args(words)).expect_code(0).stdout
}

fn expect_redis_cli(address: SocketAddr) {
    assert_eq!(cli(address, &["PING"]), "PONG\n");
    assert_eq!(cli(address, &["SET", "greeting", "hello there"]), "OK\n");
    assert_eq!(cli(address, &["GET", "greeting"]), "hello there\n");
    assert_eq!(cli(address, &["RPUSH", "list", "a", "b", "c"]), "3\n");
    assert_eq!(cli(address, &["LRANGE", "list", "0", "-1"]), "a\nb\nc\n");
    assert_eq!(cli(address, &["INCRBY", "count", "41"]), "41\n");
    assert_eq!(cli(address, &["TTL", "greeting"]), "-1\n");
    assert!(cli(address, &["LPUSH", "greeting", "x"]).starts_with("WRONGTYPE "));
    assert!(cli(address, &["NONSENSE"]).starts_with("ERR unknown command"));
    assert_eq!(cli(address, &["--scan", "--pattern", "gr*"]), "greeting\n");
}

fn expect_redis_benchmark(address: SocketAddr, pipeline: &str) {
    let sizes = [
        "-n", "400", "-c", "8", "-q", "--csv", "-P", pipeline, "-t", BENCHMARKS,
    ];
    let ended = run(tool("redis-benchmark", address).args(sizes)).expect_code(0);
    let results = ended
        .stdout
        .lines()
        .filter(|line| line.starts_with('"') && !line.starts_with("\"test\""))
        .count();
    // LRANGE brings an LPUSH of its own.
    assert_eq!(results, BENCHMARKS.split(',').count() + 1, "{ended}");
    assert!(
        !ended.stdout.contains("Error") && !ended.stderr.contains("Error"),
        "{ended}"
    );
}

#[test]
fn they_work_unprotected() {
    let Some(_kvm) = kvm::alone() else { return };
    if !kvm::has_tool("redis-cli") || !kvm::has_tool("redis-benchmark") {
        return;
    }
    let scratch = Scratch::new();
    let switch = Switch::start(&scratch);
    let mut command = lockstep();
    command
        .arg("run")
        .arg(Guest::KeyValue.image())
        .arg("--network")
        .arg(switch.attachment());
    let _guest = Process::start("run", &mut command);
    let _ready = Client::connect(switch.client_address());
    expect_redis_cli(switch.client_address());
    expect_redis_benchmark(switch.client_address(), "1");
    expect_redis_benchmark(switch.client_address(), "8");
}

#[test]
fn they_work_protected() {
    let Some(_kvm) = kvm::alone() else { return };
    if !kvm::has_tool("redis-cli") || !kvm::has_tool("redis-benchmark") {
        return;
    }
    let mut pair = PairSpec::new(Guest::KeyValue).with_switch().start();
    let address = pair.switch().client_address();
    let _ready = pair.client();
    expect_redis_cli(address);
    expect_redis_benchmark(address, "1");
    expect_redis_benchmark(address, "8");
    assert!(pair.primary.process.is_running() && pair.backup.process.is_running());
    assert!(pair.backup.event("noticed").is_none() && pair.primary.event("noticed").is_none());
}
