//! A survey: everything there is to find about this host, and what follows.

use super::progress::Progress;
use crate::kvm::Host;
use crate::kvm::qualify::platform::Platform;
use crate::kvm::qualify::suite::{self, PROPERTIES};
use crate::kvm::qualify::verdict::{Verdict, verdicts};
use crate::kvm::qualify::{Effort, Finding, KvmBench, Property};
use crate::shell::status::CommandError;
use std::sync::mpsc;
use std::thread::Builder;

/// What was found.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The host itself.
    pub platform: Platform,
    /// One for each property.
    pub findings: Vec<Finding>,
    /// One for each use.
    pub verdicts: Vec<Verdict>,
}

impl Survey {
    /// Measures this host.
    ///
    /// # Errors
    /// The host starts no thread.
    pub fn of_this_host(effort: &Effort, progress: &mut Progress) -> Result<Self, CommandError> {
        let platform = Platform::observe();
        let mut findings = platform.judge();
        match Host::open() {
            Ok(host) => findings.extend(probe_all(host, *effort, progress)?),
            Err(why) => findings.extend(PROPERTIES.map(|property| Finding::untried(property, &why))),
        }
        Ok(Self {
            verdicts: verdicts(&findings),
            platform,
            findings,
        })
    }

    /// Whether the host is good for all that Lockstep itself needs.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.verdicts
            .iter()
            .all(|verdict| verdict.holds || !verdict.usage.is_required())
    }
}

/// On a thread of its own: kicks and timers belong to the thread whose vCPU they stop.
fn probe_all(host: Host, effort: Effort, progress: &mut Progress) -> Result<Vec<Finding>, CommandError> {
    let (begins, begun) = mpsc::channel::<(usize, Property)>();
    let probing = move || {
        let bench = KvmBench::new(host);
        let one = |(number, property): (usize, Property)| {
            // Nobody waits any more when the program is going away.
            let _ = begins.send((number, property));
            suite::probe(&bench, property, &effort)
        };
        PROPERTIES.into_iter().enumerate().map(one).collect::<Vec<_>>()
    };
    let thread = Builder::new().name("doctor".to_owned()).spawn(probing);
    let thread = thread.map_err(CommandError::other("cannot start the measuring thread"))?;
    for (number, property) in begun {
        tracing::debug!(%property, "probing");
        progress.at(number, PROPERTIES.len(), property);
    }
    progress.end();
    thread
        .join()
        .map_err(|_| CommandError::setting("doctor", "a probe ended without a finding: this is a defect"))
}
