//! `lockstep record`: one machine, everything that enters it into a log file.

use lockstep_core::machine::door::Door;
use lockstep_core::machine::run::Ended;
use lockstep_core::replica::recorder::Start;
use lockstep_core::replica::replayer::TimeFloor;
use lockstep_core::replica::snapshot::Recording;
use lockstep_core::replica::{LiveDoor, Recorder};
use lockstep_host::configuration::{Configuration, GuestFiles};
use lockstep_host::disk::images::overlay_of;
use lockstep_host::disk::{Contents, Purpose};
use lockstep_host::error::RunError;
use lockstep_host::live::World;
use lockstep_host::machine::Plan;
use lockstep_host::outside::{Live, Outsides, Signals, conclude, world};
use lockstep_host::recording::{FileJournal, Folder, RecordedDisks, Snapshots};
use lockstep_logging_channel::{EndReason, ExecutionPoint, Existing, Generation, Sequence};
use lockstep_process::status::Status;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Unit in which the system counts the room of a file.
const STAT_BLOCK_BYTES: u64 = 512;

/// Files of a recording.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The log.
    pub log: &'a Path,
    /// Treatment of one that is there already.
    pub existing: Existing,
    /// Time between two snapshots; none for no snapshot.
    pub snapshot_every: Option<Duration>,
}

/// Runs `guest` until it ends, and records it.
///
/// # Errors
/// [`RunError`].
pub async fn record(
    guest: &GuestFiles,
    files: Files<'_>,
    configuration: &Configuration,
    signals: &mut Signals,
) -> Result<Status, RunError> {
    let plan = Plan::new(guest, configuration, Purpose::Base)?;
    let ended = record_plan(plan, files, configuration, signals).await?;
    Ok(conclude(&ended))
}

/// Runs the machine of `plan`, and records it. Tells how it ended.
///
/// # Errors
/// [`RunError`].
pub async fn record_plan(
    plan: Plan,
    files: Files<'_>,
    configuration: &Configuration,
    signals: &mut Signals,
) -> Result<Ended, RunError> {
    let Files {
        log,
        existing,
        snapshot_every,
    } = files;
    let folder = Folder::of(log);
    folder.check_free(existing)?;
    let entering = plan.entering();
    let drives = plan.images().recorded(plan.board(), log, existing)?;
    let contents = Contents::of(&drives, &plan.images().shapes());
    let Some((outsides, live)) = Outsides::open(configuration, entering.clock, drives, signals).await? else {
        return Ok(Ended {
            reason: EndReason::Stopped,
            point: ExecutionPoint::default(),
        });
    };
    let Live {
        outlets,
        arrivals,
        ordered,
    } = live;
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(RunError::no_random_bytes)?;
    let outlets = outlets.waiting_for_reader();
    let environment = plan.environment(name);
    let recording = Recording::of(&environment, plan.memory_bytes());
    let (journal, captured) = FileJournal::create(log, existing, environment, outlets)?;
    folder.clear()?;
    let recorder = move || -> Result<Recorder<World, FileJournal>, RunError> {
        let outside = world(TimeFloor::default(), arrivals, ordered, entering)?;
        let start = Start {
            generation: Generation(0),
            sequence: Sequence(1),
        };
        Ok(Recorder::new(outside, journal, start))
    };
    let disks = contents.sizes_bytes().len();
    let Some(every) = snapshot_every else {
        let make_door = Box::new(move || Ok(Box::new(recorder()?) as Box<dyn Door>));
        let ended = outsides.run(plan, make_door, signals).await;
        say_overlays(log, disks);
        return ended;
    };
    folder.create()?;
    let make_door = Box::new(move || Ok(Box::new(recorder()?) as Box<dyn LiveDoor>));
    let control = outsides.control.clone();
    let mut snapshots = Snapshots::new(control, recording, folder, every, captured);
    if !contents.is_empty() {
        snapshots = snapshots.with_disks(RecordedDisks::new(contents, outsides.disks.watch()));
    }
    let ended = outsides
        .run_live(plan, make_door, snapshots.take(), signals)
        .await;
    snapshots.stop().await;
    say_overlays(log, disks);
    ended
}

/// Says where what was written to so many disks is, and how much room it takes.
fn say_overlays(log: &Path, disks: usize) {
    for disk in 0..disks {
        let overlay = overlay_of(log, disk);
        if let Ok(file) = overlay.metadata() {
            let bytes = file.blocks() * STAT_BLOCK_BYTES;
            tracing::info!(
                overlay = %overlay.display(),
                bytes,
                "what was written to disk {disk} is in its overlay: the base is as it was"
            );
        }
    }
}
