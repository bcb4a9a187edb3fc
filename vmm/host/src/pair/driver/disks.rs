//! Disks whose host fails: what is done about them.

use super::Driver;
use crate::disk::executor::Fault;
use crate::error::RunError;
use crate::pair::failing::gives_way;
use lockstep_core::replica::role::{Input, Protection};
use serde_json::json;
use std::time::Instant;

impl Driver {
    /// A disk has failed, or works again.
    pub(super) fn disk_noticed(&mut self) -> Result<(), RunError> {
        let states = self.parts.disks.states();
        let reporter = &mut self.parts.reporter;
        reporter.counters.disk_failures = states.iter().map(|(_, state)| state.failures).sum();
        for (event, fields) in self.failing.reports(&states) {
            reporter.event(event, fields);
        }
        self.publish();
        match gives_way(states) {
            Some((name, fault)) if self.standing.live => self.hand_over_for(&name, &fault),
            Some((name, fault)) => self.leave_for(name, fault),
            None => Ok(()),
        }
    }

    /// Asks for a switchover, if there is a backup. The request is forgotten after 3 s, and the next
    /// try of the disk that fails repeats it.
    fn hand_over_for(&mut self, name: &str, fault: &Fault) -> Result<(), RunError> {
        let is_protected = self.parts.replica.statistics().protection == Protection::Protected;
        let now = Instant::now();
        if !is_protected || !self.failing.may_hand_over(now) {
            return Ok(());
        }
        if self.failing.told.may(now) {
            tracing::warn!("{name} fails: {fault}; this side hands the machine over to its backup");
            let fields = json!({ "disk": name, "error": fault.why });
            self.parts.reporter.event("gives_way", fields);
        }
        self.step(Input::SwitchOver)
    }

    /// Leaves the machine to its primary. One that takes over itself is needed.
    fn leave_for(&mut self, name: String, fault: Fault) -> Result<(), RunError> {
        let has_primary = self.standing.connected && !self.parts.replica.takes_over();
        if !has_primary || self.peer_left || self.failing.leaves_for.is_some() {
            return Ok(());
        }
        tracing::warn!("{name} fails: {fault}; this side leaves the machine to its primary");
        let fields = json!({ "disk": name, "error": fault.why });
        self.parts.reporter.event("gives_way", fields);
        self.failing.leaves_for = Some((name, fault));
        self.step(Input::StopRequested)
    }
}
