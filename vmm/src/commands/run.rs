//! `lockstep run`: one machine, unprotected and unrecorded.

use lockstep_core::machine::door::Door;
use lockstep_core::replica::Unprotected;
use lockstep_core::replica::replayer::TimeFloor;
use lockstep_host::configuration::{Configuration, GuestFiles};
use lockstep_host::disk::Purpose;
use lockstep_host::error::RunError;
use lockstep_host::machine::Plan;
use lockstep_host::outside::{Live, Outsides, Signals, conclude, world};
use lockstep_process::status::Status;

/// Runs `guest` until it ends.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    guest: &GuestFiles,
    configuration: &Configuration,
    signals: &mut Signals,
) -> Result<Status, RunError> {
    let plan = Plan::new(guest, configuration, Purpose::Written)?;
    plan.images().belong_to_nobody()?;
    let entering = plan.entering();
    let drives = plan.images().drives(plan.board())?;
    let Some((outsides, live)) = Outsides::open(configuration, entering.clock, drives, signals).await? else {
        return Ok(Status::Success);
    };
    let Live {
        outlets,
        arrivals,
        ordered,
    } = live;
    let mut outlets = outlets.waiting_for_reader();
    let make_door = Box::new(move || {
        let outside = world(TimeFloor::default(), arrivals, ordered, entering)?;
        let release = Box::new(move |target, bytes: Vec<u8>| {
            outlets.release(std::iter::once((target, bytes.as_slice())))
        });
        Ok(Box::new(Unprotected::new(outside, release)) as Box<dyn Door>)
    });
    Ok(conclude(&outsides.run(plan, make_door, signals).await?))
}
