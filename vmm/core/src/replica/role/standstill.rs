//! Outputs that wait, or a guest that has to, for longer than the timeout: people are told why, and
//! when it is over.

use super::round_trip::TELL_NS;
use super::turn::Turn;
use super::{HeldBy, Report};

/// Record of the reports to people about a standstill.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    /// Since when what stands still did so, and when that was told.
    told: Option<(u64, u64)>,
    tell_from_ns: u64,
}

impl<E, O> Turn<'_, E, O> {
    /// Tells of a standstill, once it has lasted for a timeout, then now and then, and of its end.
    /// `why` is `None` in a state in which nothing waits.
    pub fn watch(&mut self, why: Option<HeldBy>) {
        let (now_ns, timeout_ns) = (self.now_ns(), self.core.config.timeout_ns);
        let since_ns = why.as_ref().and_then(|_| self.core.standing_since_ns());
        let standstill = &mut self.core.standstill;
        if let Some((told_since_ns, told_at_ns)) = standstill.told
            && since_ns.is_none_or(|since_ns| since_ns > told_at_ns)
        {
            standstill.told = None;
            let stood_ns = now_ns - told_since_ns;
            return self.report(Report::Flows { stood_ns });
        }
        let (Some(since_ns), Some(why)) = (since_ns, why) else {
            return;
        };
        let stood_ns = now_ns - since_ns;
        if stood_ns < timeout_ns || now_ns < standstill.tell_from_ns {
            return;
        }
        standstill.told = Some((standstill.told.map_or(since_ns, |(told_ns, _)| told_ns), now_ns));
        standstill.tell_from_ns = now_ns + TELL_NS;
        let outputs = self.core.gate.held();
        self.report(Report::Held {
            stood_ns,
            outputs,
            why,
        });
    }
}
