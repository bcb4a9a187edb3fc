//! A survey: everything there is to find about this host, and what follows.

use super::progress::Progress;
use crate::status::CommandError;
use lockstep_host::disk::carrying::{NoRing, probe};
use lockstep_host::error::RunError;
use lockstep_kvm::Host;
use lockstep_qualify::platform::Platform;
use lockstep_qualify::start::probing;
use lockstep_qualify::suite::PROPERTIES;
use lockstep_qualify::verdict::{Verdict, verdicts};
use lockstep_qualify::{Effort, Finding, Judgement, Property};

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
        findings.push(judge_io_uring(probe()));
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

/// What carries the requests of disks out here.
fn judge_io_uring(found: Result<(), NoRing>) -> Finding {
    let (judgement, seen, follows) = match found {
        Ok(()) => (
            Judgement::Yes,
            "it opens".to_owned(),
            "it carries out the requests of disks in raw images",
        ),
        Err(why) => (
            Judgement::No,
            why.to_string(),
            "threads carry out the requests of disks; aio=io_uring is refused",
        ),
    };
    Finding {
        property: Property::IoUring,
        judgement,
        tried: "opening a ring".to_owned(),
        seen,
        follows: follows.to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_uring_that_is_kept_away_is_a_no_that_says_by_what() {
        assert_eq!(judge_io_uring(Ok(())).judgement, Judgement::Yes);
        let refused = judge_io_uring(Err(NoRing::Disabled("2".to_owned())));
        assert_eq!(refused.judgement, Judgement::No);
        assert!(
            refused.seen.contains("io_uring_disabled is 2"),
            "{}",
            refused.seen
        );
        assert!(refused.follows.contains("threads"), "{}", refused.follows);
    }
}
