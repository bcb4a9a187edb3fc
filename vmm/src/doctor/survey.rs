//! A survey: everything there is to find about this host, and what follows.

use super::progress::Progress;
use crate::status::CommandError;
use lockstep_host::error::RunError;
use lockstep_kvm::Host;
use lockstep_qualify::platform::Platform;
use lockstep_qualify::start::probing;
use lockstep_qualify::suite::PROPERTIES;
use lockstep_qualify::verdict::{Verdict, verdicts};
use lockstep_qualify::{Effort, Finding};

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

    /// True if the host is good for all that Lockstep itself needs.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.verdicts
            .iter()
            .all(|verdict| verdict.holds || !verdict.usage.is_required())
    }
}

fn probe_all(host: Host, effort: Effort, progress: &mut Progress) -> Result<Vec<Finding>, CommandError> {
    let found = probing::probe("doctor", host, PROPERTIES.to_vec(), effort, |number, property| {
        tracing::debug!(%property, "probing");
        progress.at(number, PROPERTIES.len(), property);
    });
    progress.end();
    found.map_err(|why| RunError::from(why).into())
}
