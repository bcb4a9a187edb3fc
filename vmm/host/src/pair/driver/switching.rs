//! Switchover, as the loop of the side that is to hand over sees it.

use super::Driver;
use crate::error::RunError;
use crate::pair::journal::tell;
use crate::pair::stop_point::{Step, pass};
use lockstep_core::replica::role::{Input, Protection};
use lockstep_shared_disk::Switchover;

impl Driver {
    /// Somebody wants the backup to become the primary. Where there is none, the request is
    /// forgotten, and whoever asks sees that in the store.
    pub(super) fn switchover_asked(&mut self, asked: &Switchover) -> Result<(), RunError> {
        let protection = self.parts.replica.statistics().protection;
        match protection {
            Protection::Protected => return self.step(Input::SwitchOver),
            // It is under way, and decided soon.
            Protection::Undecided => {}
            _ => {
                tracing::warn!("no switchover: {} asks for one, and there is no backup", asked.by);
                self.parts.holding.refuse(asked);
            }
        }
        Ok(())
    }

    /// Has the live vCPU stand at its next pause, and say so behind everything that it has logged.
    pub(super) fn stand(&mut self) {
        let parts = &self.parts;
        parts.shared.stand(true);
        let (shared, ordered, to_loop) = (parts.shared.clone(), parts.ordered.clone(), parts.to_loop.clone());
        let asked = parts.control.at_pause(Box::new(move |machine, door| {
            // It is not wanted any more where the backup was lost meanwhile.
            if !shared.stands() {
                return;
            }
            // Where it cannot say where it stands, it does not: the guest runs on.
            if machine.bring_along(door).is_err() {
                return;
            }
            let Ok(Some(saved_at)) = door.saved_at(machine.exits()) else {
                return;
            };
            let sequence = saved_at.sequence;
            if tell(&to_loop, &ordered, Input::Stands { sequence }).is_ok() {
                pass(Step::GuestStands);
                shared.stand_still(&ordered);
            }
        }));
        if let Err(why) = asked {
            // It is over, and says so.
            tracing::debug!("the guest is not stopped for a switchover: {why}");
        }
    }
}
