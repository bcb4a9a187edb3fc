//! The joining of a new backup to a machine that runs, as both sides reported it. Pure.

use super::replica_report::ReplicaReport;
use super::timeline::{Moment, milliseconds, moment};

const NS_PER_MS: u64 = 1_000_000;

/// A new backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Started {
    /// Its process.
    pub(super) process: u32,
    /// Time at which it was started, in nanoseconds.
    pub(super) at_ns: u64,
}

/// A machine that was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copied {
    at_ns: u64,
    bytes: u64,
    memory_bytes: u64,
    took_ms: u64,
}

/// A new backup, from its start until it was armed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joining {
    /// The process.
    pub(super) started: Started,
    copied: Option<Copied>,
    armed_at_ns: Option<u64>,
    /// Attempts that came to nothing: when, and why.
    lost: Vec<(u64, String)>,
}

impl Joining {
    /// From what the new backup has reported, and the side that holds the machine.
    pub(super) fn of(started: Started, newcomer: &ReplicaReport, holder: &ReplicaReport) -> Self {
        let armed = holder.first_since("armed", started.at_ns);
        let armed_at_ns = armed.map(|armed| armed.at_ns);
        // A newcomer that was lost begins again: what it was armed with is the last that it
        // received.
        let received = newcomer
            .all_since("received", started.at_ns)
            .filter(|event| armed_at_ns.is_none_or(|armed_at_ns| event.at_ns <= armed_at_ns))
            .last();
        let copied = received.map(|event| Copied {
            at_ns: event.at_ns,
            bytes: event.number("bytes").unwrap_or(0),
            memory_bytes: event.number("memory_bytes_received").unwrap_or(0),
            took_ms: event.number("elapsed_ms").unwrap_or(0),
        });
        let lost = holder
            .all_since("newcomer_lost", started.at_ns)
            .filter(|event| armed_at_ns.is_none_or(|armed_at_ns| event.at_ns <= armed_at_ns))
            .map(|event| (event.at_ns, event.field("cause").unwrap_or_default()))
            .collect();
        Self {
            started,
            copied,
            armed_at_ns,
            lost,
        }
    }

    /// From the start of the process until it began to receive the machine, in milliseconds.
    pub(super) fn join_ms(&self) -> Option<f64> {
        self.began_at_ns()
            .map(|at_ns| milliseconds(self.started.at_ns, at_ns))
    }

    /// Bytes that were sent to it.
    pub(super) fn copied_bytes(&self) -> Option<u64> {
        self.copied.map(|copied| copied.bytes)
    }

    /// Time that took, in milliseconds.
    pub(super) fn copy_ms(&self) -> Option<f64> {
        self.copied.map(|copied| copied.took_ms as f64)
    }

    /// From having everything until it was armed, in milliseconds.
    pub(super) fn arm_ms(&self) -> Option<f64> {
        Some(milliseconds(self.copied?.at_ns, self.armed_at_ns?))
    }

    /// Time at which it was armed, in nanoseconds.
    pub(super) fn armed_at_ns(&self) -> Option<u64> {
        self.armed_at_ns
    }

    fn began_at_ns(&self) -> Option<u64> {
        let copied = self.copied?;
        Some(copied.at_ns.saturating_sub(copied.took_ms * NS_PER_MS))
    }

    /// The events, for people.
    pub(super) fn moments(&self) -> Vec<Moment> {
        let started = format!("new backup started (process {})", self.started.process);
        let mut moments = vec![moment(self.started.at_ns, started)];
        for (at_ns, cause) in &self.lost {
            moments.push(moment(
                *at_ns,
                format!("new backup lost, it begins again: {cause}"),
            ));
        }
        if let (Some(at_ns), Some(copied)) = (self.began_at_ns(), self.copied) {
            let began = "new backup joins: the machine is copied to it while the guest runs";
            moments.push(moment(at_ns, began.to_owned()));
            let copied_text = format!(
                "new backup has {} KiB of memory, copied as {} KiB in {} ms",
                copied.memory_bytes / 1024,
                copied.bytes / 1024,
                copied.took_ms
            );
            moments.push(moment(copied.at_ns, copied_text));
        }
        if let Some(at_ns) = self.armed_at_ns {
            moments.push(moment(
                at_ns,
                "new backup is armed: the guest is protected again".to_owned(),
            ));
        }
        moments
    }
}

/// Present step of a newcomer, for the line of progress.
pub(super) fn progress(newcomer: &ReplicaReport) -> String {
    let Some(last) = newcomer.last_of(&["receiving", "received", "catching_up", "joining", "armed"]) else {
        return "new backup starts".to_owned();
    };
    if last.event != "receiving" {
        return "new backup has the memory, and catches up".to_owned();
    }
    let kib = |name| last.number(name).unwrap_or(0) / 1024;
    format!(
        "new backup joins: {} KiB of at most {} MiB copied",
        kib("memory_bytes_received"),
        kib("memory_bytes") / 1024
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: Started = Started {
        process: 9,
        at_ns: 1_000_000,
    };
    const NEWCOMER: &str = r#"{"at_ns":10000000,"event":"receiving","bytes":100,"memory_bytes_received":4096,"memory_bytes":67108864,"elapsed_ms":0}
{"at_ns":30000000,"event":"received","bytes":20480,"memory_bytes_received":40960,"memory_bytes":67108864,"elapsed_ms":20}
{"at_ns":31000000,"event":"joining"}
{"at_ns":45000000,"event":"armed","sequence":7,"took_ns":1}"#;
    const HOLDER: &str = r#"{"at_ns":500000,"event":"armed","sequence":3}
{"at_ns":40000000,"event":"armed","sequence":7,"took_ns":1}"#;

    #[test]
    fn a_new_backup_that_joins_gives_the_whole_story() {
        let joining = Joining::of(STARTED, &NEWCOMER.into(), &HOLDER.into());
        assert_eq!(
            (joining.join_ms(), joining.copy_ms(), joining.arm_ms()),
            (Some(9.0), Some(20.0), Some(10.0))
        );
        assert_eq!(joining.copied_bytes(), Some(20_480));
        let said: Vec<String> = joining.moments().into_iter().map(|moment| moment.what).collect();
        assert_eq!(
            said,
            [
                "new backup started (process 9)",
                "new backup joins: the machine is copied to it while the guest runs",
                "new backup has 40 KiB of memory, copied as 20 KiB in 20 ms",
                "new backup is armed: the guest is protected again",
            ]
        );
    }

    #[test]
    fn an_attempt_that_failed_is_told_and_the_next_one_counts() {
        let lost = format!("{{\"at_ns\":32000000,\"event\":\"newcomer_lost\",\"cause\":\"gone\"}}\n{HOLDER}");
        let again = format!(
            "{NEWCOMER}\n{{\"at_ns\":38000000,\"event\":\"received\",\"bytes\":9216,\"elapsed_ms\":5}}"
        );
        let joining = Joining::of(STARTED, &again.as_str().into(), &lost.as_str().into());
        assert_eq!(
            (joining.copied_bytes(), joining.copy_ms()),
            (Some(9_216), Some(5.0))
        );
        assert!(
            joining
                .moments()
                .iter()
                .any(|moment| moment.what.contains("begins again: gone"))
        );
    }

    #[test]
    fn a_new_backup_that_never_came_has_no_times() {
        let joining = Joining::of(STARTED, &"".into(), &"".into());
        assert_eq!(
            (joining.join_ms(), joining.arm_ms(), joining.armed_at_ns()),
            (None, None, None)
        );
        assert_eq!(joining.moments().len(), 1);
    }

    #[test]
    fn progress_is_that_of_the_newest_report() {
        assert_eq!(progress(&"".into()), "new backup starts");
        let first = NEWCOMER.lines().next().unwrap_or_default();
        assert_eq!(
            progress(&first.into()),
            "new backup joins: 4 KiB of at most 64 MiB copied"
        );
        assert_eq!(
            progress(&NEWCOMER.into()),
            "new backup has the memory, and catches up"
        );
    }
}
