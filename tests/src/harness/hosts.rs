//! Two hosts and their clients, each in a network namespace of its own, which ends with the test.
//!
//! ```text
//!                   clients (the test's thread): bridge `clients`, 10.0.2.2
//!                        |                              |
//!       primary's host   | uplink                uplink |   backup's host
//!            bridge -----+                              +----- bridge
//!              |                                                 |
//!            TAP `guest`         10.99.0.1 ---- 10.99.0.2      TAP `guest`
//!                                 channel        channel
//! ```
//!
//! The shared directory is the file system's, which both hosts reach whatever becomes of their
//! networks.

use super::kvm;
use super::process::run;
use super::{Pair, PairSpec, Replica, Scratch};
use crate::simulator::Side;
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

/// Where the guest of either host serves its clients.
const SERVICE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 15)), 6379);

/// Port of the logging channel.
const CHANNEL_PORT: u16 = 7000;

/// A witness that each host asks through its guest's network: the station of the clients.
pub const ARP_WITNESS: &str = "10.0.2.2";

/// The same station, asked by TCP: nobody listens there, and it refuses.
pub const TCP_WITNESS: &str = "tcp:10.0.2.2:9";

/// A cable of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// To the other host.
    Channel,
    /// To the clients.
    Uplink,
}

impl Cable {
    fn interface(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Uplink => "uplink",
        }
    }
}

/// The two hosts, seen from their clients.
#[derive(Debug)]
pub struct Hosts {
    namespaces: [File; 2],
}

/// Whether such hosts can be made here; where they cannot, it says so, and the test is skipped.
#[must_use]
pub fn offered() -> bool {
    let script = "ip link add name clients type bridge && ip tuntap add dev guest mode tap && ip link add name one type veth peer name other";
    let made = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .output();
    let why = match made {
        Ok(made) if made.status.success() => return true,
        Ok(made) => String::from_utf8_lossy(&made.stderr).trim().to_owned(),
        Err(why) => why.to_string(),
    };
    kvm::skip(&format!(
        "it makes hosts of network namespaces, which takes root, iproute2, bridges, veth and /dev/net/tun: {why}"
    ));
    false
}

/// Runs `work` as a client of two hosts, on a thread of its own.
///
/// # Panics
/// As `work`.
pub fn among<T: Send>(work: impl FnOnce(&Hosts) -> T + Send) -> T {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
                work(&Hosts::new())
            })
            .join()
    });
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A network namespace that lives as long as its file.
fn namespace() -> File {
    let made = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        File::open("/proc/thread-self/ns/net").expect("its file")
    });
    made.join().expect("a network namespace")
}

fn path(namespace: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

fn shell(command: &mut Command) {
    let ended = run(command);
    assert_eq!(ended.code(), Some(0), "{ended}");
}

impl Hosts {
    fn new() -> Self {
        let hosts = Self {
            namespaces: [namespace(), namespace()],
        };
        let [primary, backup] = hosts.namespaces.each_ref().map(path);
        shell(Command::new("sh").args([
            "-ec",
            &format!(
                "ip link set dev lo up
             ip link add name clients type bridge
             ip address add 10.0.2.2/24 dev clients
             ip link set dev clients up
             ip link add name primary type veth peer name uplink netns {primary}
             ip link add name backup type veth peer name uplink netns {backup}
             ip link set dev primary master clients up
             ip link set dev backup master clients up
             ip link add name channel netns {primary} type veth peer name channel netns {backup}"
            ),
        ]));
        for side in Side::BOTH {
            let number = side.index() + 1;
            let script = format!(
                "ip link set dev lo up
                 ip link add name bridge type bridge
                 ip address add 10.0.2.{}/24 dev bridge
                 ip link set dev bridge up
                 ip link set dev uplink master bridge up
                 ip tuntap add dev guest mode tap
                 ip link set dev guest master bridge up
                 ip address add 10.99.0.{number}/24 dev channel
                 ip link set dev channel up",
                100 + number
            );
            shell(&mut hosts.on(side, Command::new("sh").args(["-ec", &script])));
        }
        hosts
    }

    /// `command` on the host of `side`. Its environment comes along.
    #[must_use]
    pub fn on(&self, side: Side, command: &Command) -> Command {
        let mut wrapped = Command::new("nsenter");
        wrapped
            .arg(format!("--net={}", path(&self.namespaces[side.index()])))
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped
    }

    /// Pulls a cable out of a host.
    pub fn pull(&self, side: Side, cable: Cable) {
        self.set(side, cable, "down");
    }

    /// Puts it back.
    pub fn plug(&self, side: Side, cable: Cable) {
        self.set(side, cable, "up");
    }

    /// Pulls both cables of a host at once.
    pub fn isolate(&self, side: Side) {
        let script = "ip link set dev uplink down; ip link set dev channel down";
        shell(&mut self.on(side, Command::new("sh").args(["-ec", script])));
    }

    fn set(&self, side: Side, cable: Cable, state: &str) {
        let mut ip = Command::new("ip");
        ip.args(["link", "set", "dev", cable.interface(), state]);
        shell(&mut self.on(side, &ip));
    }

    /// Where clients find the guest.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        SERVICE
    }

    /// Starts a pair, a side on each host, and waits until the guest is protected.
    ///
    /// # Panics
    /// It does not come to that.
    #[must_use]
    pub fn start(&self, spec: &PairSpec) -> Pair {
        let scratch = Scratch::new();
        let shared = scratch.directory("shared");
        let channel = format!("tcp:10.99.0.1:{CHANNEL_PORT}");
        let start = |side: Side| {
            let report = scratch.join(&format!("{}.jsonl", side.name()));
            let mut command = spec.command(side.name(), &channel, &shared, &report);
            command.args(["--network", "tap:guest"]);
            Replica::start(side.name(), &mut self.on(side, &command), report)
        };
        let mut primary = start(Side::Primary);
        primary.wait_for("listening");
        let mut backup = start(Side::Backup);
        primary.wait_for("protected");
        backup.wait_for("protected");
        Pair {
            primary,
            backup,
            proxy: None,
            switch: None,
            shared,
            scratch,
            spec: spec.clone(),
        }
    }
}
