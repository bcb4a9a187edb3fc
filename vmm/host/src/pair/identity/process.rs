//! This process as a party, and proof that another one of this host is dead.
//!
//! Proof needs the same boot of the same host, the same namespaces, and no process of that number
//! with that start. A host that is a running clone of another one has its boot identity: it must
//! not share a store with it.

use lockstep_shared_disk::{Line, Party, Process};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Boot identity of a host that gives none. Nothing is proven about its processes.
const UNKNOWN_BOOT: [u8; 16] = [0; 16];

/// State of a process in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// It has ended, and its parent has not asked how.
    zombie: bool,
    threads: u64,
    start_ticks: u64,
}

/// This process. Nobody can join it yet.
#[must_use]
pub fn own(id: [u8; 16], label: &str) -> Party {
    let number = std::process::id();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Party {
        id,
        label: Line::shortened(label),
        host: Line::shortened(&host),
        boot: boot(),
        process: Process {
            id: number,
            start_ticks: found(number).map_or(0, |found| found.start_ticks),
            pid_namespace: namespace("pid"),
            time_namespace: namespace("time"),
        },
        address: None,
        written_unix_s: now_unix_s(),
    }
}

/// Wall time, in seconds since 1970. For people.
#[must_use]
pub fn now_unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// True where the party's process is proven to be dead. False proves nothing.
#[must_use]
pub fn is_dead(party: &Party) -> bool {
    let process = party.process;
    let comparable = party.boot != UNKNOWN_BOOT
        && party.boot == boot()
        && process.pid_namespace != 0
        && process.pid_namespace == namespace("pid")
        && process.time_namespace == namespace("time")
        && process.start_ticks != 0;
    let Some(number) = i32::try_from(process.id).ok().filter(|number| *number > 0) else {
        return false;
    };
    if !comparable {
        return false;
    }
    // `/proc` can hide the processes of other users; their numbers are known to be taken all the
    // same.
    if kill(Pid::from_raw(number), None) == Err(Errno::ESRCH) {
        return true;
    }
    found(process.id).is_some_and(|found| {
        // The first thread may have ended before the others, which may still do something.
        let ended = found.zombie && found.threads <= 1;
        found.start_ticks != process.start_ticks || ended
    })
}

/// Number and start of a process of this host.
#[cfg(test)]
pub(super) fn started(number: u32) -> (u32, u64) {
    (number, found(number).map_or(0, |found| found.start_ticks))
}

fn found(number: u32) -> Option<Found> {
    parse(&fs::read_to_string(format!("/proc/{number}/stat")).ok()?)
}

/// Fields 3, 20 and 22 of proc(5). Field 2, the name of the program, is in parentheses and may hold
/// anything.
fn parse(stat: &str) -> Option<Found> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let threads = fields.nth(20 - 4)?.parse().ok()?;
    let start_ticks = fields.nth(22 - 21)?.parse().ok()?;
    Some(Found {
        zombie: matches!(state, "Z" | "X" | "x"),
        threads,
        start_ticks,
    })
}

fn boot() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.trim().chars().filter(|char| *char != '-').collect();
    let number = u128::from_str_radix(&digits, 16)
        .ok()
        .filter(|_| digits.len() == 32);
    number.map_or(UNKNOWN_BOOT, u128::to_be_bytes)
}

fn namespace(kind: &str) -> u64 {
    fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |found| found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn sleeper() -> Child {
        Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn party_of(child: &Child) -> Party {
        let mut party = own([1; 16], "sleeper");
        party.process.id = child.id();
        party.process.start_ticks = found(child.id()).unwrap().start_ticks;
        party
    }

    #[test]
    fn a_process_is_dead_once_it_is_killed() {
        let mut child = sleeper();
        let party = party_of(&child);
        assert!(!is_dead(&party));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_dead(&party));
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_dead_too() {
        let mut child = sleeper();
        let party = party_of(&child);
        child.kill().unwrap();
        let is_zombie = || found(child.id()).is_some_and(|found| found.zombie);
        while !is_zombie() {
            std::thread::yield_now();
        }
        assert!(is_dead(&party));
        child.wait().unwrap();
    }

    #[test]
    fn another_process_of_the_same_number_proves_death() {
        let mut party = own([1; 16], "another");
        assert!(!is_dead(&party));
        party.process.start_ticks += 1;
        assert!(is_dead(&party));
    }

    /// A process that cannot be looked up is not dead: elsewhere, before a reboot, in another
    /// container.
    #[test]
    fn what_is_not_comparable_is_not_proven() {
        let mut child = sleeper();
        let dead = party_of(&child);
        child.kill().unwrap();
        child.wait().unwrap();
        let changes: [fn(&mut Party); 7] = [
            |party| party.boot = [3; 16],
            |party| party.boot = UNKNOWN_BOOT,
            |party| party.process.pid_namespace += 1,
            |party| party.process.pid_namespace = 0,
            |party| party.process.time_namespace += 1,
            |party| party.process.start_ticks = 0,
            |party| party.process.id = 0,
        ];
        for change in changes {
            let mut party = dead.clone();
            change(&mut party);
            assert!(!is_dead(&party), "{party:?}");
        }
        assert!(is_dead(&dead));
    }

    #[test]
    fn the_name_of_a_program_is_not_taken_for_fields() {
        let stat =
            "7 (a) Z 1 (b)) S 1 7 7 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 3 0 4711 1 1 18446744073709551615";
        let expected = Found {
            zombie: false,
            threads: 3,
            start_ticks: 4711,
        };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse("7 (a"), None);
        assert_eq!(parse("7 (a) S 1"), None);
    }
}
