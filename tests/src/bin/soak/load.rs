//! Load for a guest that is being recorded.

use lockstep_tests::harness::process::{is_installed, run};
use lockstep_tests::harness::{Client, Load};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Own clients, each of which checks every answer.
pub const WRITERS: usize = 4;

/// Commands of redis-benchmark, in turn with one and with many requests under way.
const COMMANDS: &str = "set,get,incr,lpush,lpop,sadd,hset,mset";

/// Requests of one call of redis-benchmark for each command.
const REQUESTS: &str = "1000";

/// Between two connections that nobody answers. Each is worth a line of the switch's log, and some frames.
const KNOCK: Duration = Duration::from_millis(100);

/// Loads the key-value guest for `duration`: with clients that append to lists and read everything back in the end, and
/// with redis-benchmark where it is installed. Gives the writes that were acknowledged to the former.
pub fn serve(address: SocketAddr, duration: Duration) -> u64 {
    let until = Instant::now() + duration;
    drop(Client::connect(address));
    let load = Load::start(address, WRITERS);
    let has_benchmark = is_installed("redis-benchmark");
    let mut pipelines = ["1", "8"].iter().cycle();
    while Instant::now() < until {
        match pipelines.next().filter(|_| has_benchmark) {
            Some(pipeline) => benchmark(address, pipeline),
            None => load.wait_for_more(50),
        }
    }
    let acknowledged = load.acknowledged();
    clear(address);
    load.stop_and_check();
    acknowledged
}

fn benchmark(address: SocketAddr, pipeline: &str) {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let sizes = ["-n", REQUESTS, "-c", "8", "-P", pipeline, "-t", COMMANDS, "-q"];
    let _ = run(Command::new("redis-benchmark")
        .args(["-h", &ip, "-p", &port])
        .args(sizes))
    .expect_code(0);
}

/// Removes what redis-benchmark has left, so that only the lists of the own clients are there to be counted.
fn clear(address: SocketAddr) {
    let mut client = Client::connect(address);
    let left = [
        "key:__rand_int__",
        "counter:__rand_int__",
        "mylist",
        "myset",
        "myhash",
        "myhash:__rand_int__",
    ];
    for key in left {
        client.call(&["DEL", key]);
    }
}

/// Somebody who connects to a guest that listens to nobody: it receives the frames that look for it.
pub struct Knocking {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Knocking {
    /// Begins.
    pub fn at(address: SocketAddr) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let knock = move || {
            while !told.load(Ordering::Relaxed) {
                // Whether anybody answers is of no concern.
                let _ = TcpStream::connect_timeout(&address, KNOCK);
                thread::sleep(KNOCK);
            }
        };
        Self {
            over,
            thread: Some(thread::spawn(knock)),
        }
    }
}

impl Drop for Knocking {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
