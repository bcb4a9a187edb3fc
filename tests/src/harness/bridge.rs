//! A bridge with TAP interfaces, in a network namespace of its own that ends with the test.

use super::kvm;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// TAP interfaces of the two replicas.
pub const REPLICAS: [&str; 2] = ["lockstep0", "lockstep1"];

/// A TAP interface for the test itself.
pub const STATION: &str = "station0";

/// The address of the host in the network of the guests.
pub const HOST: &str = "10.0.2.2/24";

/// Runs `ip` with these words.
///
/// # Panics
/// It fails.
pub fn ip(words: &str) {
    run("ip", words);
}

fn run(program: &str, words: &str) {
    let ended = Command::new(program).args(words.split(' ')).status();
    assert!(ended.is_ok_and(|status| status.success()), "{program} {words}");
}

fn offered() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("it makes a network namespace: that takes root".to_owned());
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|why| format!("no network namespace here: {why}"))?;
    let tun = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    tun.map_err(|why| format!("no /dev/net/tun here: {why}"))?;
    let bridge = Command::new("ip")
        .args(["link", "add", "br0", "type", "bridge"])
        .output()
        .map_err(|why| format!("no `ip` here: {why}"))?;
    if bridge.status.success() {
        Ok(())
    } else {
        Err("no bridges here".to_owned())
    }
}

/// Lets the bridge learn the guest's address behind the replicas' interfaces, as a physical switch does.
pub fn learn() {
    for interface in REPLICAS {
        run("bridge", &format!("link set dev {interface} learning on"));
    }
}

/// Frames that a machine sends by `interface` from now on, taken by a thread until `stop` is set.
///
/// # Panics
/// The interface cannot be listened to.
#[must_use]
pub fn capture(interface: &str, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Vec<u8>>> {
    let index = if_nametoindex(interface).unwrap_or_else(|why| panic!("{interface}: {why}"));
    let all = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .unwrap_or_else(|why| panic!("no packet socket: {why}"));
    setsockopt(&all, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))
        .unwrap_or_else(|why| panic!("no timeout: {why}"));
    setsockopt(&all, sockopt::RcvBufForce, &(16 << 20)).unwrap_or_else(|why| panic!("no room: {why}"));
    thread::spawn(move || {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            let received = recvfrom::<LinkAddr>(all.as_raw_fd(), &mut buffer);
            if let Ok((length, Some(from))) = received
                && from.ifindex() == index as usize
            {
                frames.extend(buffer.get(..length).map(<[u8]>::to_vec));
            }
        }
        frames
    })
}

/// Runs `test` on a thread in a network namespace of its own, where the interfaces of both replicas and one of the test are in a
/// bridge that does not learn the guest's address, and the host has an address. Processes and threads that it starts are there too.
/// Where the host offers no namespaces, it says so, and the test is skipped.
///
/// # Panics
/// The test fails.
pub fn within(test: impl FnOnce() + Send + 'static) {
    let ended = thread::spawn(|| {
        if let Err(why) = offered() {
            kvm::skip(&why);
            return;
        }
        ip("link set dev lo up");
        ip("link set dev br0 up");
        ip(&format!("address add {HOST} dev br0"));
        for interface in REPLICAS.into_iter().chain([STATION]) {
            ip(&format!("tuntap add dev {interface} mode tap"));
            ip(&format!("link set dev {interface} master br0 up"));
        }
        for interface in REPLICAS {
            run("bridge", &format!("link set dev {interface} learning off"));
        }
        test();
    })
    .join();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}
