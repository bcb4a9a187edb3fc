//! `lockstep run`: one machine, unprotected and unrecorded.

use super::arrange::{Live, Outsides, Signals, conclude, world};
use crate::machine::door::Door;
use crate::replica::Unprotected;
use crate::replica::replayer::TimeFloor;
use crate::shell::configuration::Configuration;
use crate::shell::error::RunError;
use crate::shell::machine::Plan;
use lockstep_process::status::Status;
use std::path::Path;

/// Runs `image` until it ends.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    image: &Path,
    configuration: &Configuration,
    signals: &mut Signals,
) -> Result<Status, RunError> {
    let plan = Plan::new(image, configuration)?;
    let clock = plan.clock();
    let (
        outsides,
        Live {
            outlets,
            arrivals,
            ordered,
        },
    ) = match Outsides::open(configuration, clock, signals).await? {
        Some(opened) => opened,
        None => return Ok(Status::Success),
    };
    let mut outlets = outlets.waiting_for_reader();
    let make_door = Box::new(move || {
        let outside = world(TimeFloor::default(), arrivals, ordered, clock)?;
        let release = Box::new(move |target, bytes: Vec<u8>| {
            outlets.release(std::iter::once((target, bytes.as_slice())))
        });
        Ok(Box::new(Unprotected::new(outside, release)) as Box<dyn Door>)
    });
    Ok(conclude(&outsides.run(plan, make_door, signals).await?))
}
